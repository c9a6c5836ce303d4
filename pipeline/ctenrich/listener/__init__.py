"""Receives DICOM objects over the network and from folders, gathers them into cases, and runs closed cases."""
