"""The tables of a run: read from the written DICOM objects and the records of the run, and queried with SQL."""
