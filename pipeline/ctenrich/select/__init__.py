"""Choose series by SQL on metadata: the cohort, everything that was excluded and why, and what makes it repeatable."""
