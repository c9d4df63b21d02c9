"""DICOM: series that are read, and the segmentation that is filed beside them."""
