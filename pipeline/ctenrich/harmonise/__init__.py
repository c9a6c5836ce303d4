"""Masks and measurements of other programs become SEG and SRs of a run, with proof."""
