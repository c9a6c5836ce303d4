"""Pseudonymise DICOM files: PS3.15's basic profile with options, keyed UIDs and dates, checks, and a report."""
