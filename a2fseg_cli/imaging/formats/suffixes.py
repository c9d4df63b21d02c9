"""Which module reads which file, by the end of its name. No imports: finding patients and `--help` look here."""

# A format is a module of this folder and a row for each ending; of two that fit a name, the longer stands first.
SUFFIXES = {
    ".nii.gz": "nifti",
    ".nii": "nifti",
    ".nrrd": "nrrd",
    ".mha": "metaimage",
    ".mgz": "freesurfer",
    ".mgh": "freesurfer",
    ".hdr": "nifti",
    ".nhdr": "nrrd",
    ".mhd": "metaimage",
}
# Headers whose voxels lie in a second file: read, but never written, since two files cannot appear at once.
_HEADERS = (".hdr", ".nhdr", ".mhd")

EXTENSIONS = tuple(SUFFIXES)
# .seg.nrrd is a NRRD with the fields of 3D Slicer. It is no row above, for in a file that is read `.seg` is a word of
# the name, which says that it is an expert's truth.
WRITABLE = (*(suffix for suffix in SUFFIXES if suffix not in _HEADERS), ".seg.nrrd")
# A DICOM segmentation is written by `dicom.segmentation`, on the grid of a series.
DICOM = ".dcm"
GZIPPED = (".nii.gz", ".mgz")
