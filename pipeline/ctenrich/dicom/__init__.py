"""Reading and writing DICOM: bounded reading, elements, CT slices, frames, segmentations, structured reports."""
