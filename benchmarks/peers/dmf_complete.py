"""dmf.complete, in the form of the peers: with the rank as a bound, or without any number."""

from __future__ import annotations

from typing import Any

import numpy as np

import dmf
from peers.common import Solution, Watch, limited, unwatched


def available() -> tuple[bool, str]:
    """Always."""
    return True, ""


def solve(
    case: dict[str, Any],
    rank: int,
    *,
    watch: Watch | None = None,
    threads: int = 2,
    seed: int = 0,
    free: bool = False,
    offsets: bool | str = "auto",
    iterations: int = 10_000,
) -> Solution:
    """Factors of dmf.complete; with `free`, `rank` is not told.

    Parameters
    ----------
    offsets : bool or "auto"
        See dmf.complete.
    """
    with limited(threads):
        watch = watch or unwatched()
        watch.start()

        def look(snapshot: Any) -> None:
            left, right = snapshot.model.factors()
            if watch(left, right.T):
                raise StopIteration

        observations = dmf.SampledEntries(case["rows"], case["cols"], case["values"], case["shape"])
        recovery = dmf.complete(
            observations,
            None if free else rank,
            offsets=offsets,
            iterations=iterations,
            seed=seed,
            callback=look if np.isfinite(watch.limit) else None,
        )
        seconds = watch.seconds
    left, right = recovery.factors()
    return left, right.T, seconds
