"""Mask DINO (https://arxiv.org/abs/2206.02777)."""
