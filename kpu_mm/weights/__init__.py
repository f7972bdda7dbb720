"""Weights: files, folders and the hub, read as data that cannot run code."""
