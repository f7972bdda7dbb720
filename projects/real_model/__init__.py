"""A student of a released model: EfficientNet-Lite0 with its ImageNet weights.

``make real`` runs it; the README says what it shows.
"""
