"""What a call returns, how it is saved, and what can be asked of it."""

from dmf.recovery.fold_in import new_columns, new_rows
from dmf.recovery.intervals import calibrate, prediction_interval
from dmf.recovery.results import Recovery, load
from dmf.recovery.values import Found, HeldOut, Outliers, Plan, RankingMeasures, StageRun, Weighting

__all__ = [
    "Found",
    "HeldOut",
    "Outliers",
    "Plan",
    "RankingMeasures",
    "Recovery",
    "StageRun",
    "Weighting",
    "calibrate",
    "load",
    "new_columns",
    "new_rows",
    "prediction_interval",
]
