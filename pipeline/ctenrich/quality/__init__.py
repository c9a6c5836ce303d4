"""Check segmentations without ground truth: masks and CT of one series, then robust statistics of the cohort."""
