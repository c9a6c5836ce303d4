"""The kinds of DICOM objects that are written: which function encodes each, and which proves it."""
