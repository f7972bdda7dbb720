"""Pictures."""

from .charts import areas, bars, lines, panels, picture_grid
from .pca import feature_panel, pca_rgb

__all__ = [
    'areas',
    'bars',
    'feature_panel',
    'lines',
    'panels',
    'pca_rgb',
    'picture_grid',
]
