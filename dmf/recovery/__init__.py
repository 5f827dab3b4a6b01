"""What a call returns, how it is saved, and what can be asked of it."""

from dmf.recovery.fold_in import new_columns, new_rows
from dmf.recovery.intervals import calibrate, prediction_interval
from dmf.recovery.results import History, Recovery, Status, load

__all__ = ["History", "Recovery", "Status", "calibrate", "load", "new_columns", "new_rows", "prediction_interval"]
