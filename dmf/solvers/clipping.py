"""Values that were clipped: whether they were, and what would be recorded; for what a fit knows of them see `Clipped`."""

from __future__ import annotations

import math

import numpy as np

from dmf.arrays.backend import Array, from_host, to_host
from dmf.observations import Observations
from dmf.observations.clipped import LARGEST_DEVIATION
from dmf.observations.entries import Entries

_LEAST_SHARE = 1e-3  # of the entries, at an end: with fewer, to know that they were clipped changes nothing
_SAMPLE_SIZE = 1_000  # entries within the range, of which hardly any two are alike where values are not rounded
_SHARE_ALIKE = 0.05  # share of them
_CHUNK_SIZE = 2**20  # values whose expectations are computed together


def ends_of(entries: Observations) -> tuple[float, float] | None:
    """Ends of the range in which values were clipped, infinite where they were not; None where they were nowhere.

    Values pile up at an end while those within are all different: measured, not rounded, and clipped.
    """
    step = max(entries.n_measurements // (4 * _SAMPLE_SIZE), 1)
    parts = entries.spread(step) if isinstance(entries, Entries) else []
    if not parts:
        return None
    ends = min(part.ends[0] for part in parts), max(part.ends[1] for part in parts)
    at = [sum(part.at_ends[k] for part in parts if part.ends[k] == ends[k]) for k in (0, 1)]
    piled = [count > max(_LEAST_SHARE * entries.n_measurements, 1) for count in at]
    if not any(piled) or ends[0] == ends[1] or sum(at) > entries.n_measurements / 2:
        return None
    some = np.concatenate([part.some for part in parts])
    within = some[(some > ends[0]) & (some < ends[1])][:_SAMPLE_SIZE]
    if np.unique(within).size < (1 - _SHARE_ALIKE) * within.size or within.size < 2:
        return None
    low, high = (
        end if there else beyond for end, there, beyond in zip(ends, piled, (-math.inf, math.inf), strict=True)
    )
    return low, high


def as_recorded(values: Array, ends: tuple[float, float], deviation: float) -> Array:
    """Expected values of what is clipped at the ends, of which `values` are the means before; of any shape.

    Parameters
    ----------
    values : array
    ends : (float, float)
        Either may be infinite.
    deviation : float, > 0
        Of what is clipped, around its mean.
    """
    from scipy.special import ndtr

    means = to_host(values)
    found = means.reshape(-1).copy()
    for first in range(0, found.size, _CHUNK_SIZE):
        part = found[first : first + _CHUNK_SIZE]
        known = part.astype(np.float64)
        for sign, end in zip((1, -1), ends, strict=True):
            if math.isfinite(end):
                inside = np.clip(sign * (known - end) / deviation, -LARGEST_DEVIATION, None)
                density = np.exp(-np.minimum(inside**2, 2 * LARGEST_DEVIATION**2) / 2) / math.sqrt(2 * math.pi)
                part += sign * deviation * (density - inside * ndtr(-inside))
    return from_host(np.clip(found, *ends).reshape(means.shape), values)
