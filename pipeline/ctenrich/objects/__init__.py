"""Registry of the kinds of DICOM objects, each with its encoder and its proof."""
