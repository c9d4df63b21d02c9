"""Evaluation: metrics, subsets, tables, the published numbers as data."""
