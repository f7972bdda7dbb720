"""Pictures."""

from .charts import areas, bars, lines, panels, picture_grid
from .heat_overlay import heat_overlay
from .pca import feature_panel, pca_rgb

__all__ = [
    'areas',
    'bars',
    'feature_panel',
    'heat_overlay',
    'lines',
    'panels',
    'pca_rgb',
    'picture_grid',
]
