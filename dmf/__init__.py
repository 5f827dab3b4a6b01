"""Recover low-rank matrices from partial or indirect measurements with compressed deep linear networks.

Names are loaded when they are first used, so that ``import dmf`` is quick. Beside those here there are the modules `dmf.solvers`,
`dmf.theory`, `dmf.completion`, `dmf.tables`, `dmf.recovery`, `dmf.estimators`, `dmf.nonlinear`, `dmf.io`, `dmf.experiments` and
`dmf.errors`.
"""

from __future__ import annotations

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmf.arrays.threads import threads
    from dmf.completion import complete, complete_distances, complete_together, factorize, sense
    from dmf.models import DeepLinearNetwork, oblique_projection, orthogonal_network, spectral_network
    from dmf.observations import (
        FullMatrix,
        LinearMeasurements,
        Observations,
        RankOneMeasurements,
        SampledEntries,
        SubsampledTransform,
    )
    from dmf.recovery import Recovery, calibrate, load, new_columns, new_rows, prediction_interval
    from dmf.solvers import Checkpoint, gradient_descent
    from dmf.tables import TableRecovery, complete_table
    from dmf.theory import compressed_start

__version__ = metadata.version("dmf")

_HOMES = {
    "dmf.arrays.threads": ("threads",),
    "dmf.completion": ("complete", "complete_distances", "complete_together", "factorize", "sense"),
    "dmf.models": ("DeepLinearNetwork", "oblique_projection", "orthogonal_network", "spectral_network"),
    "dmf.observations": (
        "FullMatrix",
        "LinearMeasurements",
        "Observations",
        "RankOneMeasurements",
        "SampledEntries",
        "SubsampledTransform",
    ),
    "dmf.recovery": ("Recovery", "calibrate", "load", "new_columns", "new_rows", "prediction_interval"),
    "dmf.solvers": ("Checkpoint", "gradient_descent"),
    "dmf.tables": ("TableRecovery", "complete_table"),
    "dmf.theory": ("compressed_start",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
_MODULES = (
    "completion", "errors", "estimators", "experiments", "io", "models", "nonlinear", "observations", "recovery", "report",
    "solvers", "tables", "theory",
)  # fmt: skip

__all__ = [
    "Checkpoint",
    "DeepLinearNetwork",
    "FullMatrix",
    "LinearMeasurements",
    "Observations",
    "RankOneMeasurements",
    "Recovery",
    "SampledEntries",
    "SubsampledTransform",
    "TableRecovery",
    "calibrate",
    "complete",
    "complete_distances",
    "complete_together",
    "complete_table",
    "compressed_start",
    "factorize",
    "gradient_descent",
    "load",
    "new_columns",
    "new_rows",
    "oblique_projection",
    "orthogonal_network",
    "prediction_interval",
    "sense",
    "spectral_network",
    "threads",
]


def __getattr__(name: str) -> Any:
    """Load a public name or module when it is first asked for."""
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    elif name in _MODULES:
        value = import_module(f"dmf.{name}")
    else:
        raise AttributeError(f"module 'dmf' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES, "__version__"})
