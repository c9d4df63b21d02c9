"""Reports: overlays, charts, volumes."""
