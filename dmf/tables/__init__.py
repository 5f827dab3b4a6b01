"""Tables with holes: columns of different units and kinds, filled with honest uncertainty."""

from dmf.tables.complete import complete_table
from dmf.tables.files import load
from dmf.tables.recovery import TableRecovery

__all__ = ["TableRecovery", "complete_table", "load"]
