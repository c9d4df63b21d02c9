"""DICOM: finding its files, headers to series, slices to volumes, voxels. Which sequence a series is, `cases` says."""
