"""Fast transforms as measurements: no array of m x d1 x d2 numbers is stored."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmf.arrays.backend import Array, as_array, frozen, is_numpy, real_dtype
from dmf.arrays.checks import check_choice, positive_integer, random_generator
from dmf.errors import ArgumentError, BackendError, DTypeError, ObservationError, ShapeError
from dmf.observations.checks import check_shape

_TRANSFORMS = {"dct": ("dctn", "idctn"), "dst": ("dstn", "idstn")}  # names in scipy.fft


class SubsampledTransform:
    """Chosen coefficients of a fast orthonormal transform of a d1 x d2 matrix, an operator for `LinearMeasurements`.

    One application costs O(d1 d2 log(d1 d2)), whatever m is. With random signs flipped before the transform a low-rank
    matrix is spread over all coefficients, whatever its singular vectors; without them a smooth matrix has most of its weight in
    few coefficients.

    Parameters
    ----------
    index : integer array, shape (m,)
        Which coefficients are measured, in this order: positions in the (d1, d2) array of coefficients flattened row by row,
        from 0 to d1 * d2 - 1, none twice.
    shape : (int, int)
        (d1, d2).
    transform : {"dct", "dst"}
        Two-dimensional cosine or sine transform (of type II, orthonormal).
    signs : bool
        Whether each entry is multiplied by a random sign before the transform.
    seed : int
        Seed of these signs.

    Raises
    ------
    ShapeError, DTypeError, ObservationError, ArgumentError
        If an argument is out of range. ``forward`` and ``adjoint`` raise BackendError for anything but NumPy arrays.

    References
    ----------
    .. [1] Krahmer, Ward: New and Improved Johnson-Lindenstrauss Embeddings via the Restricted Isometry Property. SIAM J. Math.
       Anal. 43 (2011). Random signs before a subsampled orthonormal transform.
    """

    def __init__(
        self, index: Array, shape: tuple[int, int], *, transform: str = "dct", signs: bool = False, seed: int = 0
    ) -> None:
        self.shape = check_shape(shape)
        check_choice("transform", transform, _TRANSFORMS)
        self.index = frozen(_checked_index(index, self.shape[0] * self.shape[1]))
        self.transform = transform
        self.signs = random_generator(seed).choice(np.array([-1, 1], np.int8), self.shape) if signs else None

    @classmethod
    def random(
        cls, count: int, shape: tuple[int, int], *, transform: str = "dct", signs: bool = True, seed: int = 0
    ) -> SubsampledTransform:
        """`count` different coefficients drawn uniformly.

        Parameters
        ----------
        count : int, 1 <= count <= d1 * d2
            Number m of measurements.
        shape : (int, int)
            (d1, d2).
        transform : {"dct", "dst"}
            See the class.
        signs : bool
            See the class.
        seed : int
            Seed of the choice and of the signs.
        """
        d1, d2 = check_shape(shape)
        if positive_integer(count, "count") > d1 * d2:
            raise ArgumentError(
                f"count={count}, but a {d1} x {d2} matrix has {d1 * d2} coefficients. Pass a count of at most that.",
                argument="count",
                value=count,
                limit=d1 * d2,
            )
        index = random_generator(seed).permutation(d1 * d2)[:count]
        return cls(np.sort(index), (d1, d2), transform=transform, signs=signs, seed=seed + 1)

    @property
    def n_measurements(self) -> int:
        """Number m of measurements."""
        return self.index.shape[0]

    def forward(self, matrix: Array) -> Array:
        """Chosen coefficients, shape (m,), of a matrix (d1, d2)."""
        import scipy.fft

        _check_numpy(matrix, "matrix", self.shape)
        flipped = matrix if self.signs is None else matrix * self.signs
        coefficients = getattr(scipy.fft, _TRANSFORMS[self.transform][0])(flipped, norm="ortho")
        return coefficients.reshape(-1)[self.index]

    def adjoint(self, weights: Array) -> Array:
        """Transpose of `forward`, from (m,) to (d1, d2)."""
        import scipy.fft

        _check_numpy(weights, "weights", self.index.shape)
        coefficients = np.zeros(self.shape[0] * self.shape[1], weights.dtype)
        coefficients[self.index] = weights
        matrix = getattr(scipy.fft, _TRANSFORMS[self.transform][1])(
            coefficients.reshape(self.shape), norm="ortho", overwrite_x=True
        )
        return matrix if self.signs is None else matrix * self.signs

    def __repr__(self) -> str:
        signs = "" if self.signs is None else " after random signs"
        return (
            f"SubsampledTransform({self.n_measurements} of {self.shape[0]} x {self.shape[1]} {self.transform}{signs})"
        )


def _checked_index(index: Any, total: int) -> np.ndarray:
    """`index` as int64 positions below `total`, without repetition."""
    index = as_array(index, "index")
    if not is_numpy(index):
        raise BackendError(
            f"index is a {type(index).__module__}.{type(index).__name__}, but scipy.fft computes on NumPy arrays. Convert it "
            "with numpy.asarray.",
            argument="index",
            value=type(index).__name__,
            limit="numpy.ndarray",
        )
    if index.ndim != 1 or index.size == 0:
        raise ShapeError(
            f"index has shape {index.shape}, but the coefficients are chosen by a vector of at least 1 position. For pairs use "
            "numpy.ravel_multi_index.",
            argument="index",
            value=index.shape,
        )
    if index.dtype.kind not in "iu":
        raise DTypeError(
            f"index has dtype {index.dtype}, but positions are integers from 0. For a mask use numpy.flatnonzero.",
            argument="index",
            value=str(index.dtype),
            limit="integer",
        )
    wrong = (index < 0) | (index >= total)
    if np.any(wrong):
        where = int(np.argmax(wrong))
        raise ObservationError(
            f"index[{where}] = {index[where]}, but there are {total} coefficients, so positions run from 0 to {total - 1}. Pass "
            "positions in the flattened array.",
            argument="index",
            value=int(index[where]),
            limit=(0, total - 1),
        )
    index = index.astype(np.int64)
    known, first = np.unique(index, return_index=True)
    if known.size < index.size:
        where = int(np.setdiff1d(np.arange(index.size), first)[0])
        raise ObservationError(
            f"index[{where}] = {index[where]} repeats an earlier one, but the rows of the map are orthonormal. Average "
            "repeated measurements, and pass each position once.",
            argument="index",
            value=int(index[where]),
            limit="each position once",
        )
    return index


def _check_numpy(array: Any, argument: str, shape: tuple[int, ...]) -> None:
    if not is_numpy(array):
        raise BackendError(
            f"{argument} is a {type(array).__module__}.{type(array).__name__}, but SubsampledTransform computes with scipy.fft, "
            "on NumPy arrays only. Convert the measurements with numpy.asarray, or pass LinearMeasurements an object with "
            "forward and adjoint in your library.",
            argument=argument,
            value=type(array).__name__,
            limit="numpy.ndarray",
        )
    if array.shape != shape:
        raise ShapeError(
            f"{argument} has shape {array.shape}, but the transform maps {shape} arrays. Pass one of that shape.",
            argument=argument,
            value=array.shape,
            limit=shape,
        )
    real_dtype(array, argument)
