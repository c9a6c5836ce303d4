"""What notebooks need in one call: missing inputs, the machine, costs, pictures, charts, report and viewer."""

from ctenrich.notebook.bars import Bar
from ctenrich.notebook.charts import dashboard, explorer, landmark_points, overlap_chart, reviews
from ctenrich.notebook.collections import choose_collections, prepare_contours
from ctenrich.notebook.doses import prepare_doses
from ctenrich.notebook.embed import show_report, show_viewer
from ctenrich.notebook.lab import Lab, catalog_of, choose_series, prepare_run, start_run
from ctenrich.notebook.machines import log_in, machine, mount_drive, query_cost, run_cost
from ctenrich.notebook.pictures import Example, coronal, example, flow, planes, positions, score_chart, slice_viewer
from ctenrich.notebook.readers import compare_readers, read_reports
from ctenrich.notebook.tables import checks_table, objects_table, segments_table, series_table

__all__ = [
    "Bar",
    "Example",
    "Lab",
    "catalog_of",
    "checks_table",
    "choose_collections",
    "choose_series",
    "compare_readers",
    "coronal",
    "dashboard",
    "example",
    "explorer",
    "flow",
    "landmark_points",
    "log_in",
    "machine",
    "mount_drive",
    "objects_table",
    "overlap_chart",
    "planes",
    "positions",
    "prepare_contours",
    "prepare_doses",
    "prepare_run",
    "query_cost",
    "read_reports",
    "reviews",
    "run_cost",
    "score_chart",
    "segments_table",
    "series_table",
    "show_report",
    "show_viewer",
    "slice_viewer",
    "start_run",
]
