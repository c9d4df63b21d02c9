"""Brain tumour segmentation from any subset of T1, T1c, T2 and FLAIR (A2FSeg, MICCAI 2023)."""

__version__ = "0.1.0"
