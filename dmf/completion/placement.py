"""Where a fit is computed: few entries on the host, even if they lie on a device; arrays of JAX and PyTorch there as NumPy's.

A solution of few entries is a chain of many small steps. On a device each of them costs its launch, some ten microseconds,
whatever its size: for 3,000 entries that was 8 times what the whole takes on two cores of the host (one H200, November 2026).
JAX and PyTorch take as long for a step on the host, and lie in its memory already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dmf.arrays.backend import Array, from_host, in_host_memory, library, to_host
from dmf.errors import BackendError
from dmf.models import LowRank
from dmf.observations import Entries, Observations
from dmf.recovery.results import Recovery
from dmf.recovery.values import Plan
from dmf.solvers.loop import Callback

HOST_ENTRIES = 20_000  # with fewer, a device takes longer than the host


def better_on_host(observations: Observations) -> bool:
    """Whether these lie where the fit would take longer than as NumPy arrays of the host."""
    if library(observations.like) == "cupy":
        return isinstance(observations, Entries) and observations.n_measurements < HOST_ENTRIES
    if not in_host_memory(observations.like):
        return False
    try:
        observations.to_device("cpu")
    except BackendError:  # an operator of the user's own
        return False
    return True


def solved_on_host(
    solve: Callable[[Any, Plan, Callback | None], Recovery], observations: Any, plan: Plan, callback: Callback | None
) -> Recovery:
    """``solve(observations, plan, callback)``, computed with NumPy arrays; arrays come back to where those of the data lie."""

    def back(array: Array) -> Array:
        return from_host(to_host(array), observations.like)

    def moved(model: LowRank) -> LowRank:
        return model.moved(back)

    seen = callback and (lambda snapshot: callback(snapshot.seen_as(moved, snapshot.stage, snapshot.fit)))
    return solve(observations.to_device("cpu"), plan, seen).moved(back, observations)
