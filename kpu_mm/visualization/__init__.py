"""Pictures."""

from .heat_overlay import heat_overlay
from .pca import feature_panel, pca_rgb

__all__ = ['feature_panel', 'heat_overlay', 'pca_rgb']
