"""Files: readers that return plain values and trust nothing, and writers that leave a whole file or none.

`read_entries`, `read_matrix`, `read_sensing` and `read_pairs` are offered here; what they return is made into observations by
`dmf.SampledEntries.from_entries`, `dmf.FullMatrix` and `dmf.LinearMeasurements`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dmf.io.matrices import read_entries, read_matrix, read_sensing
    from dmf.io.pairs import read_pairs

__all__ = ["read_entries", "read_matrix", "read_pairs", "read_sensing"]


def __getattr__(name: str) -> Any:
    """Load a reader when it is first asked for: writers need none of what readers import."""
    if name not in __all__:
        raise AttributeError(f"module 'dmf.io' has no attribute {name!r}")
    return getattr(import_module("dmf.io.pairs" if name == "read_pairs" else "dmf.io.matrices"), name)
