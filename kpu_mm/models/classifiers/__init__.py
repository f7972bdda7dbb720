"""Classifiers."""

__all__: list[str] = []
