"""Pictures."""

from .pca import feature_panel, pca_rgb

__all__ = ['feature_panel', 'pca_rgb']
