"""Weights: manifest, cache and download, the file format, the bundled weights."""
