"""Who runs the units: one process, several on this machine, or Ray. All keep the same small protocol."""
