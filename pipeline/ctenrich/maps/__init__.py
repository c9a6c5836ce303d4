"""Values per voxel as Parametric Maps and FRACTIONAL segmentations: read, checked, written and proven."""
