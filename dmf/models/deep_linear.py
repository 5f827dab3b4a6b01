"""The deep linear network: a product of weight matrices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dmf.arrays.backend import Array, all_true, as_array, floating, namespace
from dmf.arrays.linalg import chain_product, identity
from dmf.errors import DTypeError, ObservationError, ShapeError
from dmf.kernels import kernel


@dataclass(frozen=True, eq=False)
class DeepLinearNetwork:
    """``W = W_L ... W_2 W_1``, an immutable product of L >= 1 weight matrices.

    Parameters
    ----------
    weights : iterable of arrays
        (W_1, ..., W_L), W_1 first (next to the input): shapes (w_1, d2), (w_2, w_1), ..., (d1, w_{L-1}). One array library,
        device and dtype (float32, float64, complex64 or complex128; integers become float64), finite.

    Raises
    ------
    ShapeError, DTypeError, BackendError, ObservationError
        If shapes do not chain, dtypes or libraries differ, or a weight is NaN or infinite.
    """

    weights: tuple[Array, ...]

    def __init__(self, weights: Iterable[Array]) -> None:
        layers = tuple(floating(as_array(w, "weights"), "weights", or_complex=True) for w in weights)
        shapes = [tuple(w.shape) for w in layers]
        if not layers or any(len(s) != 2 or min(s) < 1 for s in shapes):
            raise ShapeError(
                f"weights have shapes {shapes}, but a network has at least one layer and each layer is a matrix.",
                argument="weights",
                value=shapes,
            )
        for layer, (below, above) in enumerate(zip(shapes, shapes[1:], strict=False), start=1):
            if above[1] != below[0]:
                raise ShapeError(
                    f"W_{layer + 1} has shape {above} and W_{layer} has shape {below}, but W_{layer + 1} takes what "
                    f"W_{layer} gives: {below[0]} numbers. Pass W_1 first.",
                    argument="weights",
                    value=above,
                    limit=("any", below[0]),
                )
        xp = namespace(*layers)
        if len({str(w.dtype) for w in layers}) > 1:
            raise DTypeError(
                f"weights have dtypes {[str(w.dtype) for w in layers]}, but a network has one dtype. Convert them.",
                argument="weights",
                value=[str(w.dtype) for w in layers],
            )
        for layer, w in enumerate(layers, start=1):
            if not all_true(xp.isfinite(w)):
                raise ObservationError(
                    f"W_{layer} holds NaN or infinite numbers, but weights must be finite.",
                    argument="weights",
                    value=f"W_{layer}",
                )
        object.__setattr__(self, "weights", layers)

    @property
    def depth(self) -> int:
        """Number L of layers."""
        return len(self.weights)

    @property
    def shape(self) -> tuple[int, int]:
        """(d1, d2) of the product."""
        return self.weights[-1].shape[0], self.weights[0].shape[1]

    @property
    def widths(self) -> tuple[int, ...]:
        """Inner widths (w_1, ..., w_{L-1})."""
        return tuple(w.shape[0] for w in self.weights[:-1])

    @property
    def dtype(self):
        """Dtype of the weights."""
        return self.weights[0].dtype

    @property
    def n_parameters(self) -> int:
        """Number of weights of all layers together."""
        return sum(w.shape[0] * w.shape[1] for w in self.weights)

    def factors(self) -> tuple[Array, Array]:
        """``W = left @ right`` through the narrowest place: arrays (d1, w) and (w, d2).

        Cheap to take entries of; of depth 1, one factor is the identity.
        """
        if self.depth == 1:
            weight = self.weights[0]
            d1, d2 = self.shape
            return (identity(d1, weight), weight) if d1 <= d2 else (weight, identity(d2, weight))
        cut = min(range(1, self.depth), key=lambda layer: self.widths[layer - 1])
        return chain_product(self.weights[: cut - 1 : -1]), chain_product(self.weights[cut - 1 :: -1])

    def product(self) -> Array:
        """End-to-end matrix W, shape (d1, d2), multiplied in the cheapest order."""
        return chain_product(self.weights[::-1])

    def entries(self, rows: Array, cols: Array) -> Array:
        """Entries of W without forming it.

        Parameters
        ----------
        rows, cols : integer arrays, shape (m,)
            Positions, 0 <= row < d1 and 0 <= col < d2.

        Returns
        -------
        array, shape (m,)

        Raises
        ------
        ShapeError, DTypeError, ObservationError
            If the positions are no integer vectors of one length or lie outside the matrix.
        """
        return entries_of(*self.factors(), rows, cols)

    def __repr__(self) -> str:
        sizes = " x ".join(str(n) for n in (self.shape[0], *self.widths[::-1], self.shape[1]))
        return f"DeepLinearNetwork(depth {self.depth}, {sizes}, {self.dtype})"


def entries_of(left: Array, right: Array, rows: Array, cols: Array) -> Array:
    """Entries of ``left @ right`` at (rows, cols), without forming it.

    Parameters
    ----------
    left : array, shape (d1, w)
    right : array, shape (w, d2)
    rows, cols : integer arrays, shape (m,)

    Returns
    -------
    array, shape (m,)

    Raises
    ------
    ShapeError, DTypeError, ObservationError
        If the positions are no integer vectors of one length or lie outside the matrix.
    """
    rows, cols = as_array(rows, "rows"), as_array(cols, "cols")
    if rows.ndim != 1 or rows.shape != cols.shape:
        raise ShapeError(
            f"rows and cols have shapes {tuple(rows.shape)} and {tuple(cols.shape)}, but they are vectors of one length.",
            argument="rows, cols",
            value=(tuple(rows.shape), tuple(cols.shape)),
        )
    xp = namespace(left, rows, cols)
    for index, argument, size in ((rows, "rows", left.shape[0]), (cols, "cols", right.shape[1])):
        if not xp.isdtype(index.dtype, "integral"):
            raise DTypeError(
                f"{argument} has dtype {index.dtype}, but positions are integers from 0.",
                argument=argument,
                value=str(index.dtype),
                limit="integer",
            )
        if not all_true((index >= 0) & (index < size)):
            least, most = int(xp.min(index)), int(xp.max(index))
            raise ObservationError(
                f"{argument} runs from {least} to {most}, but the matrix has {size} {argument}: "
                f"indices run from 0 to {size - 1}.",
                argument=argument,
                value=least if least < 0 else most,
                limit=(0, size - 1),
            )
    return kernel("sampled_product", left)(left, right, rows, cols)
