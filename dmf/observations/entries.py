"""Some entries of a matrix: what completion and the solvers for entries know of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from dmf.arrays.backend import Array
from dmf.observations.base import Observations, Ridge
from dmf.observations.clipped import Clipped, Spread
from dmf.observations.design import Design


class Entries(Observations):
    """Some entries of a matrix, possibly with a weight each: what matrix completion needs beyond `Observations`.

    The measurements are ``y_k = sqrt(w_k) X[i_k, j_k]``, so that their noise is the same for all if the noise variance of an
    entry is that of the model over its weight. A position that occurs k times counts as k measurements.

    Attributes
    ----------
    entries : array, shape (m,)
        The entries as they are, without the roots of the weights. Asked for only of entries that are held out, and at the end.
    weights : array, shape (m,), or None
        Their weights; None where all are 1.
    known : (Design or None, Design or None)
        What is known of rows and of columns besides the entries.
    times : float64 NumPy array, shape (m,), or None
        When each was observed.
    """

    known: tuple[Design | None, Design | None] = (None, None)
    times: np.ndarray | None = None

    @property
    @abstractmethod
    def entries(self) -> Array: ...

    @property
    @abstractmethod
    def weights(self) -> Any: ...

    @abstractmethod
    def product(self, left: Array, right: Array) -> Array:
        """Entries of ``left @ right`` at the positions, without weights, shape (m,)."""

    @property
    def mean_weight(self) -> float:
        """Mean of the weights; 1 where there are none."""
        return self.gain * self.shape[0] * self.shape[1] / self.n_measurements

    @abstractmethod
    def centred(self) -> tuple[float, Self]:
        """Mean of the entries, each counted by its weight, and the entries of the matrix without it."""

    @abstractmethod
    def ridge(
        self,
        side: int,
        factor: Array,
        penalty: Array,
        variances: Array | None = None,
        start: Array | None = None,
        means: Array | None = None,
    ) -> Ridge:
        """See `Observations.ridge`; the penalty draws the rows to `means`, an array (n, w), if it is given."""

    @abstractmethod
    def pattern_product(self, side: int, factor: Array) -> Array:
        """Product of the pattern P (d1, d2), which holds how often each position is observed, whatever the weights.

        Parameters
        ----------
        side : {0, 1}
        factor : array, shape (d2, w) for side 0, (d1, w) for side 1

        Returns
        -------
        array
            ``P @ factor`` (d1, w) or ``P^T @ factor`` (d2, w).
        """

    @abstractmethod
    def counts(self, side: int) -> Array:
        """Number of measurements in each row (side 0) or column (side 1), int64, shape (d,)."""

    @abstractmethod
    def restricted(self, rows: Array, cols: Array) -> Self:
        """The entries in some rows and columns, as a matrix of their own.

        Parameters
        ----------
        rows, cols : integer arrays, shapes (n1,) and (n2,)
            Ascending positions in this matrix, in any array library. At least one entry must be there.
        """

    @abstractmethod
    def connectivity(self) -> tuple[Array, Array]:
        """Which rows and columns hang together through observed positions.

        Returns
        -------
        integer arrays, shapes (d1,) and (d2,)
            Numbers from 0 of the connected component that each row and each column belongs to, of the graph that has an
            edge for each observed position. A row without entries is a component of its own.
        """

    def spread(self, step: int) -> list[Spread]:
        """Ranges of the entries, or of parts of them, and every `step`-th one; none where they have weights."""
        return [] if self.weights is not None else [Spread.of(self.values, step)]

    def clipped(self, ends: tuple[float, float], centred: Self) -> Any:
        """What a fit knows of the entries at the ends of a range; see `Clipped`.

        Parameters
        ----------
        ends : (float, float)
            Either may be infinite.
        centred : Entries
            The same without their mean.
        """
        return Clipped.of(self, ends, centred)

    def _known(self, function: Callable[[Design, int], Design]) -> tuple[Design | None, Design | None]:
        """``function(design, side)`` of what is known of each side."""
        rows, cols = (None if known is None else function(known, side) for side, known in enumerate(self.known))
        return rows, cols
