"""A page with pictures of one recovery."""

from dmf.report.page import write_report

__all__ = ["write_report"]
