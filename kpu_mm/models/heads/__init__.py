"""Heads of detection models."""

__all__: list[str] = []
