"""Detectors."""

__all__: list[str] = []
