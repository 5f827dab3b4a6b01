"""Values that were clipped: of an entry at an end of the range is known that what was measured lies there or beyond.

Given the fit, with its noise, such a value has a truncated Gaussian distribution. Before every sweep its mean takes the place of
the value, as expectation-maximisation for what is called a Tobit model has it. Its variance is part of that of the noise as it
is told, but not of the one that sweeps go on with: scarce entries are then predicted better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, from_host, frozen, namespace, number, to_host
from dmf.observations import Entries, SampledEntries

_LEAST_SHARE = 1e-3  # of the entries, at an end: with fewer, to know that they were clipped changes nothing
_SAMPLE_SIZE = 1_000  # entries within the range, of which hardly any two are alike where values are not rounded
_SHARE_ALIKE = 0.05  # share of them
_CHUNK_SIZE = 2**20  # values whose expectations are computed together
_LARGEST_DEVIATION = 30.0  # standard deviations beyond which the normal distribution function is not asked


@dataclass(frozen=True, eq=False)
class Clipped:
    """The entries at an end of the range.

    Parameters
    ----------
    places : NumPy array, shape (k,)
        Where they stand among all.
    entries : SampledEntries
        Themselves.
    signs : NumPy array, shape (k,)
        1 at the upper end, -1 at the lower one.
    """

    places: np.ndarray
    entries: SampledEntries
    signs: np.ndarray

    @classmethod
    def of(cls, entries: Any, ends: tuple[float, float], centred: Any) -> Clipped:
        """Those of `entries`, in memory and without weights, that lie at an end of the range; as they are in `centred`."""
        values = to_host(entries.entries)
        signs = np.zeros(values.size, np.int8)
        signs[values <= ends[0]] = -1
        signs[values >= ends[1]] = 1
        places = np.flatnonzero(signs)
        return cls(places, centred.chosen(signs != 0), signs[places].astype(np.float64))

    def expected(self, entries: Any, left: Array, right: Array, noise: float) -> tuple[Entries, float]:
        """The entries with expected values in place of clipped ones, and the sum of the variances of these.

        Parameters
        ----------
        entries : SampledEntries
            All of them, less what `entries` of this object are less.
        left, right : arrays, shapes (d1, w) and (w, d2)
            Factors of the fit.
        noise : float
            Variance.
        """
        from scipy.special import log_ndtr  # here: the import takes a tenth of a second

        deviation = math.sqrt(noise)
        fitted, ends = (to_host(a).astype(np.float64) for a in (self.entries.product(left, right), self.entries.values))
        beyond = np.clip(self.signs * (ends - fitted) / deviation, -_LARGEST_DEVIATION, _LARGEST_DEVIATION)
        ratio = np.exp(-(beyond**2) / 2 - math.log(2 * math.pi) / 2 - log_ndtr(-beyond))
        there = to_host(entries.values).copy()
        there[self.places] = fitted + self.signs * deviation * ratio
        variances = noise * np.maximum(1 + ratio * (beyond - ratio), 0)
        return entries.with_values(frozen(from_host(there, entries.values))), float(np.sum(variances))


def ends_of(entries: Entries) -> tuple[float, float] | None:
    """Ends of the range in which values were clipped, infinite where they were not; None where they were nowhere.

    Values pile up at an end while those within are all different: measured, not rounded, and clipped.
    """
    if not isinstance(entries, SampledEntries) or entries.weights is not None:
        return None
    xp, values = namespace(entries.values), entries.values
    ends = number(xp.min(values)), number(xp.max(values))
    at = [number(xp.sum(xp.astype(values == end, xp.int64))) for end in ends]
    piled = [count > max(_LEAST_SHARE * entries.n_measurements, 1) for count in at]
    if not any(piled) or ends[0] == ends[1] or sum(at) > entries.n_measurements / 2:
        return None
    step = max(entries.n_measurements // (4 * _SAMPLE_SIZE), 1)
    some = to_host(values[::step])
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
                inside = np.clip(sign * (known - end) / deviation, -_LARGEST_DEVIATION, None)
                density = np.exp(-np.minimum(inside**2, 2 * _LARGEST_DEVIATION**2) / 2) / math.sqrt(2 * math.pi)
                part += sign * deviation * (density - inside * ndtr(-inside))
    return from_host(np.clip(found, *ends).reshape(means.shape), values)
