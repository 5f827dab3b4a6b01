"""A page with pictures of one recovery, of a matrix or of a table."""

from dmf.report.page import write_report
from dmf.report.tables import write_table_report

__all__ = ["write_report", "write_table_report"]
