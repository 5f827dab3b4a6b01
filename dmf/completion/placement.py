"""Where a completion is computed: few entries on the host, even if they lie on a device.

A solution of few entries is a chain of many small steps. On a device each of them costs its launch, some ten microseconds,
whatever its size: for 3,000 entries that was 8 times what the whole takes on two cores of the host (one H200, November 2026).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dmf.arrays.backend import device, library
from dmf.models import LowRank
from dmf.observations import Entries
from dmf.recovery.results import Recovery
from dmf.recovery.values import Plan
from dmf.solvers.loop import Callback

FEW_ENTRIES = 20_000  # below, a device takes longer than the host


def better_on_host(observations: Entries) -> bool:
    """Whether these entries lie on a device that would take longer than the host to complete them."""
    return library(observations.like) == "cupy" and observations.n_measurements < FEW_ENTRIES


def from_host(solve: Callable[..., Recovery], observations: Entries, plan: Plan, callback: Callback | None) -> Recovery:
    """``solve(observations, plan, callback)``, computed on the host; all arrays lie on the device, as there."""
    there = f"cuda:{device(observations.like).id}"

    def moved(model: LowRank) -> LowRank:
        return model.to_device(there)

    seen = callback and (lambda snapshot: callback(snapshot.seen_as(moved, snapshot.stage, snapshot.fit)))
    recovery = solve(observations.to_device("cpu"), plan, seen)
    return replace(replace(recovery, observations=None).to_device(there), observations=observations)
