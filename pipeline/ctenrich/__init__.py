"""ctenrich: from a cohort of CT scans to checked DICOM objects and tables. Research software, not a medical device."""

__version__ = "0.1.0"
RELEASE_DATE = "20261121"
"""Date of this release (YYYYMMDD): the content date of objects unless the user gives one; never the clock."""
