"""Write DICOM objects: segmentations and TID 1500 structured reports."""
