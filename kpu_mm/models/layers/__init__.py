"""Layers of backbones and heads: deformable attention, ViT-Adapter, FPN."""
