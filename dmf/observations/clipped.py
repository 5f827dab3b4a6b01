"""Values that were clipped: of an entry at an end of the range is known that what was measured lies there or beyond.

Given the fit, with its noise, such a value has a truncated Gaussian distribution. Before every sweep its mean takes the place of
the value, as expectation-maximisation for what is called a Tobit model has it. Its variance is part of that of the noise as it
is told, but not of the one that sweeps go on with: scarce entries are then predicted better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dmf.arrays.backend import Array, from_host, frozen, namespace, number, to_host

LARGEST_DEVIATION = 30.0  # standard deviations beyond which the normal distribution function is not asked


class Spread(NamedTuple):
    """The range of some values.

    Attributes
    ----------
    ends : (float, float)
        The least and the largest one.
    at_ends : (int, int)
        How many these are.
    some : NumPy array
        Some of the values.
    """

    ends: tuple[float, float]
    at_ends: tuple[int, int]
    some: np.ndarray

    @classmethod
    def of(cls, values: Array, step: int) -> Spread:
        """That of at least one value, of which every `step`-th is told."""
        xp = namespace(values)
        low, high = number(xp.min(values)), number(xp.max(values))
        least, most = (int(number(xp.sum(xp.astype(values == end, xp.int64)))) for end in (low, high))
        return cls((low, high), (least, most), to_host(values[::step]))


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
    entries: Any
    signs: np.ndarray

    @classmethod
    def of(cls, entries: Any, ends: tuple[float, float], centred: Any) -> Clipped:
        """Those of `entries`, in memory, that lie at an end of the range; as they are in `centred`."""
        values = to_host(entries.entries)
        signs = np.zeros(values.size, np.int8)
        signs[values <= ends[0]] = -1
        signs[values >= ends[1]] = 1
        places = np.flatnonzero(signs)
        return cls(places, centred.chosen(signs != 0), signs[places].astype(np.float64))

    def expected(self, entries: Any, left: Array, right: Array, noise: float) -> tuple[Any, float]:
        """The entries with expected values in place of clipped ones, and the sum of the variances of these.

        Parameters
        ----------
        entries : SampledEntries
            All of them, less what `entries` of this object are less.
        left, right : arrays, shapes (d1, w) and (w, d2)
            Factors of the fit.
        noise : float
            Variance, of an entry of weight 1.
        """
        from scipy.special import log_ndtr  # here: the import takes a tenth of a second

        deviation = math.sqrt(noise)
        fitted, ends = (to_host(a).astype(np.float64) for a in (self.entries.predict(left, right), self.entries.values))
        beyond = np.clip(self.signs * (ends - fitted) / deviation, -LARGEST_DEVIATION, LARGEST_DEVIATION)
        ratio = np.exp(-(beyond**2) / 2 - math.log(2 * math.pi) / 2 - log_ndtr(-beyond))
        there = to_host(entries.values).copy()
        there[self.places] = fitted + self.signs * deviation * ratio
        variances = noise * np.maximum(1 + ratio * (beyond - ratio), 0)
        return entries.with_values(frozen(from_host(there, entries.values))), float(np.sum(variances))
