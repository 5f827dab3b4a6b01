"""A page with pictures of one recovery, of a matrix or of a table, or of several experiments."""

from dmf.report.page import write_gallery, write_report
from dmf.report.tables import write_table_report

__all__ = ["write_gallery", "write_report", "write_table_report"]
