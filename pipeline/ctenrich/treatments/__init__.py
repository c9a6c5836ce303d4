"""Radiotherapy treatments: planning CT, structure sets, plans and doses of a patient, linked and chosen by rules."""
