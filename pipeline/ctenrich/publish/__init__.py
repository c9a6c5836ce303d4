"""Results leave a run: objects to storages and PACS, tables to BigQuery, exports to files."""
