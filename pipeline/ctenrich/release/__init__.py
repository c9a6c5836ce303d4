"""Package the results of a run as a data set for publication: objects, tables, and metadata in common formats."""
