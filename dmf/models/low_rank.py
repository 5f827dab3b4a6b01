"""A matrix of low rank as its singular value decomposition, with offsets where the model has them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from dmf.arrays.backend import Array, from_host, move, namespace, to_host
from dmf.arrays.linalg import factored_svd
from dmf.models.deep_linear import DeepLinearNetwork, entries_of
from dmf.models.initialize import balanced_network
from dmf.models.offsets import Offsets

_DEPTH = 3  # of the network that the paper trains


@dataclass(frozen=True, eq=False)
class LowRank:
    """The matrix ``u @ diag(s) @ vt``, plus offsets: what one stage of a recovery hands to the next.

    Parameters
    ----------
    u : array, shape (d1, w)
        Left singular vectors.
    s : array, shape (w,)
        Singular values, descending. A matrix of zeros has one component of size 0.
    vt : array, shape (w, d2)
        Right singular vectors.
    offsets : Offsets, optional
        Global mean, row and column offsets that are added.
    """

    u: Array
    s: Array
    vt: Array
    offsets: Offsets | None = None

    @classmethod
    def of(cls, model: LowRank | DeepLinearNetwork) -> LowRank:
        """The same matrix as a `LowRank`; of a network by a singular value decomposition of its factors."""
        return model if isinstance(model, LowRank) else cls.of_factors(*model.factors())

    @classmethod
    def of_factors(cls, left: Array, right: Array, offsets: Offsets | None = None) -> LowRank:
        """The matrix ``left @ right``, of factors (d1, w) and (w, d2), plus offsets."""
        return cls(*factored_svd(left, right), offsets)

    @property
    def shape(self) -> tuple[int, int]:
        """(d1, d2)."""
        return self.u.shape[0], self.vt.shape[1]

    @property
    def width(self) -> int:
        """Number w of components."""
        return self.s.shape[0]

    @property
    def dtype(self):
        """Dtype of the arrays."""
        return self.s.dtype

    def halves(self) -> tuple[Array, Array]:
        """Balanced factors (d1, w) and (w, d2), without the offsets: each has the root of the singular values."""
        roots = namespace(self.s).sqrt(self.s)
        return self.u * roots, roots[:, None] * self.vt

    def factors(self) -> tuple[Array, Array]:
        """The matrix, offsets included, as a product of arrays (d1, w) and (w, d2); offsets make w larger by two."""
        left, right = self.halves()
        if self.offsets is None:
            return left, right
        more_left, more_right = self.offsets.factors()
        xp = namespace(left)
        return xp.concat([left, more_left], axis=1), xp.concat([right, more_right], axis=0)

    def truncated(self, rank: int) -> LowRank:
        """The first `rank` components, and the offsets; of rank 0, one component of size 0."""
        kept, s = max(rank, 1), self.s if rank else 0 * self.s
        return replace(self, u=self.u[:, :kept], s=s[:kept], vt=self.vt[:kept, :])

    def network(self, depth: int = _DEPTH) -> DeepLinearNetwork:
        """Balanced network of `depth` layers with the product ``u diag(s) vt``; offsets are no part of it."""
        return balanced_network(self.u, self.s, self.vt, depth)

    def product(self) -> Array:
        """The matrix, shape (d1, d2), offsets included."""
        left, right = self.factors()
        return left @ right

    def entries(self, rows: Array, cols: Array) -> Array:
        """Entries of the matrix, offsets included, without forming it.

        Parameters
        ----------
        rows, cols : integer arrays, shape (m,)

        Returns
        -------
        array, shape (m,)

        Raises
        ------
        ShapeError, DTypeError, ObservationError
            If the positions are no integer vectors of one length or lie outside the matrix.
        """
        values = entries_of(*self.halves(), rows, cols)
        if self.offsets is None:
            return values
        xp = namespace(values)
        rows, cols = (xp.astype(xp.asarray(index), xp.int64) for index in (rows, cols))
        return values + self.offsets.mean + xp.take(self.offsets.row, rows) + xp.take(self.offsets.col, cols)

    def placed(self, rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]) -> LowRank:
        """The same as some of the rows and columns of a matrix of `shape`, whose others have neither factors nor offsets.

        Parameters
        ----------
        rows, cols : NumPy int64 arrays, shapes (d1,) and (d2,)
            Their places.
        shape : (int, int)
        """
        offsets = self.offsets
        if offsets is not None:
            row, col = _spread(offsets.row, rows, shape[0]), _spread(offsets.col, cols, shape[1])
            offsets = replace(offsets, row=row, col=col)
        return LowRank(_spread(self.u, rows, shape[0]), self.s, _spread(self.vt, cols, shape[1], axis=1), offsets)

    def to_device(self, device: str) -> LowRank:
        """The same on "cpu", "cuda" or "cuda:N"."""
        return self.moved(lambda array: move(array, device))

    def moved(self, to: Callable[[Array], Array]) -> LowRank:
        """The same with each array ``to(array)`` in its place."""
        offsets = self.offsets
        if offsets is not None:
            offsets = replace(offsets, row=to(offsets.row), col=to(offsets.col))
        return LowRank(to(self.u), to(self.s), to(self.vt), offsets)


def _spread(array: Array, index: np.ndarray, size: int, axis: int = 0) -> Array:
    """Array of `size` along an axis that has the given one at `index` and zeros elsewhere."""
    known = np.moveaxis(to_host(array), axis, 0)
    whole = np.zeros((size, *known.shape[1:]), known.dtype)
    whole[index] = known
    return from_host(np.ascontiguousarray(np.moveaxis(whole, 0, axis)), array)
