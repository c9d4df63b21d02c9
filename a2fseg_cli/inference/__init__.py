"""From a patient's files to a segmentation, one patient or a cohort."""
