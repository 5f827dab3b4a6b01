"""What observations are refused for: shapes, dtypes and numbers that do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dmf.arrays.backend import (
    Array,
    all_true,
    as_array,
    floating,
    is_numpy,
    kept,
    namespace,
    number,
    real_dtype,
    to_host,
)
from dmf.errors import ArgumentError, DTypeError, ObservationError, RankError, ShapeError

if TYPE_CHECKING:
    from dmf.observations.base import Observations


def check_values(observations: Observations, values: Array) -> Array:
    """`values` if they can take the place of those of `observations`.

    Raises
    ------
    ShapeError, DTypeError, BackendError
        If their shape, dtype, library or device differs.
    """
    namespace(observations.values, values)
    if values.shape != observations.values.shape:
        raise ShapeError(
            f"values have shape {tuple(values.shape)}, but there are {observations.n_measurements} measurements. Pass one "
            "value for each, in the order of `values`.",
            argument="values",
            value=tuple(values.shape),
            limit=tuple(observations.values.shape),
        )
    if values.dtype != observations.dtype:
        raise DTypeError(
            f"values have dtype {values.dtype}, but the measurements {observations.dtype}. Convert them first.",
            argument="values",
            value=str(values.dtype),
            limit=str(observations.dtype),
        )
    return values


def check_factors(observations: Observations, left: Array, right: Array) -> None:
    """Raise unless `left` (d1, w) and `right` (w, d2) are factors of a matrix that `observations` measure.

    Raises
    ------
    ShapeError, DTypeError
        If their shapes or dtypes do not fit.
    """
    d1, d2 = observations.shape
    if left.shape[0] != d1 or right.shape[1] != d2 or left.shape[1] != right.shape[0]:
        raise ShapeError(
            f"left has shape {tuple(left.shape)} and right {tuple(right.shape)}, but the matrix is {d1} x {d2}. Pass "
            f"factors ({d1}, w) and (w, {d2}).",
            argument="left, right",
            value=(tuple(left.shape), tuple(right.shape)),
            limit=((d1, "w"), ("w", d2)),
        )
    if not left.dtype == right.dtype == observations.dtype:
        raise DTypeError(
            f"left has dtype {left.dtype} and right {right.dtype}, but the values {observations.dtype}. Convert them first.",
            argument="left, right",
            value=(str(left.dtype), str(right.dtype)),
            limit=str(observations.dtype),
        )


def check_factor(observations: Observations, side: int, factor: Array) -> None:
    """Raise unless `factor` is the given one of a ridge regression of the factor on `side`.

    Raises
    ------
    ShapeError, DTypeError
        If its number of rows or its dtype does not fit.
    """
    rows = observations.shape[1 - side]
    if factor.shape[0] != rows:
        raise ShapeError(
            f"factor has shape {tuple(factor.shape)}, but the regressions of side {side} meet {rows} rows. Pass an array "
            f"({rows}, w).",
            argument="factor",
            value=tuple(factor.shape),
            limit=(rows, "w"),
        )
    if factor.dtype != observations.dtype:
        raise DTypeError(
            f"factor has dtype {factor.dtype}, but the values {observations.dtype}. Convert it first.",
            argument="factor",
            value=str(factor.dtype),
            limit=str(observations.dtype),
        )


def has_own_loss(observations: Observations, kind: type[Observations]) -> bool:
    """Whether the observations are of a subclass of `kind` that measures or judges by methods of its own."""
    names = ("predict", "adjoint", "evaluate", "loss")
    return any(getattr(type(observations), name) is not getattr(kind, name) for name in names)


def check_least_squares(observations: Observations, kind: type[Observations], method: str) -> None:
    """Raise where `method` of `kind` would ignore that a subclass has a loss of its own, or numbers an imaginary part."""
    real_dtype(observations.like, "values")
    if has_own_loss(observations, kind):
        name = type(observations).__name__
        raise ArgumentError(
            f"{name} overrides how {kind.__name__} measures or judges, but `{method}` of {kind.__name__} solves least squares "
            f"and would ignore it. Define {name}.{method} too, or take a solver that asks for gradients only, such as "
            "gradient_descent.",
            argument="observations",
            value=name,
            limit=kind.__name__,
        )


def check_measurements(values: Any, hint: str, *, or_complex: bool = False) -> Array:
    """`values` as a vector (m,) of at least one finite number, to be kept; integers become float64.

    Raises
    ------
    ShapeError, DTypeError, ObservationError
        Otherwise; for numbers that are not finite the message ends with `hint`.
    """
    given = as_array(values, "values")
    values = floating(given, "values", or_complex=or_complex)
    if values.ndim != 1 or values.shape[0] == 0:
        raise ShapeError(
            f"values has shape {tuple(values.shape)}, but the measurements are a vector of at least 1 number.",
            argument="values",
            value=tuple(values.shape),
        )
    check_finite(values, "values", hint)
    return kept(values, given)


def check_shape(shape: Any) -> tuple[int, int]:
    """(d1, d2) as Python integers.

    Raises
    ------
    ShapeError
        If `shape` is not a pair of positive integers below 2**31.
    """
    try:
        d1, d2 = (-1 if isinstance(n, bool) or int(n) != n else int(n) for n in shape)
    except (TypeError, ValueError, OverflowError):
        d1 = d2 = -1
    if min(d1, d2) < 1 or max(d1, d2) >= 2**31:
        raise ShapeError(
            f"shape={shape!r}, but a matrix has two dimensions from 1 to 2**31 - 1. Pass (rows, columns).",
            argument="shape",
            value=shape,
            limit=(1, 2**31 - 1),
        )
    return d1, d2


def check_two_dimensions(matrix: Any) -> None:
    """Raise ShapeError unless `matrix`, an array or a sparse matrix, has rows and columns."""
    if matrix.ndim != 2:
        raise ShapeError(
            f"matrix has {matrix.ndim} dimensions (shape {tuple(matrix.shape)}), but a matrix has 2.",
            argument="matrix",
            value=tuple(matrix.shape),
            limit=2,
        )


def check_rank(rank: Any, shape: tuple[int, int]) -> int:
    """`rank` as a Python integer.

    Raises
    ------
    RankError
        If it is not an integer from 1 to min(d1, d2).
    """
    most = min(shape)
    if isinstance(rank, (bool, np.bool_)) or not isinstance(rank, (int, np.integer)) or not 1 <= rank <= most:
        raise RankError(
            f"rank={rank!r}, but the matrix is {shape[0]} x {shape[1]}, whose rank is an integer from 1 to {most}. "
            f"Pass 1 <= rank <= {most}.",
            argument="rank",
            value=rank,
            limit=(1, most),
        )
    return int(rank)


def check_finite(
    values: Array, argument: str, hint: str = "Remove them.", places: tuple[Array, Array] | None = None
) -> None:
    """Raise ObservationError if a number is NaN or infinite; its message ends with `hint`, the way out.

    It names row and column of the first: those of a matrix, or `places`, the rows and columns of values.
    """
    xp = namespace(values)
    finite = xp.isfinite(values)
    if not all_true(finite):
        bad = ~finite
        count = int(xp.sum(xp.astype(bad, xp.int64)))
        first = int(xp.argmax(xp.astype(xp.reshape(bad, (-1,)), xp.int64)))
        at = (
            tuple(np.unravel_index(first, values.shape))
            if places is None
            else tuple(int(index[first]) for index in places)
        )
        where = f"row {at[0]}, column {at[1]}, from 0" if len(at) == 2 else f"index {', '.join(map(str, at))}"
        raise ObservationError(
            f"{argument} holds {count} NaN or infinite numbers (the first at {where}), but all must be finite. {hint}",
            argument=argument,
            value=count,
            limit=0,
        )


def check_times(times: Any, count: int) -> np.ndarray:
    """Times of entries, numbers or datetimes, as a float64 NumPy array.

    Raises
    ------
    ShapeError, DTypeError, ObservationError
        If there is not one finite number or datetime for each of `count` entries.
    """
    times = as_array(times, "times")
    if is_numpy(times) and times.dtype.kind == "M":
        times = np.where(np.isnat(times), np.nan, times.astype("datetime64[us]").astype(np.int64) / 1e6)
    times = to_host(floating(times, "times")).astype(np.float64)
    if times.shape != (count,):
        raise ShapeError(
            f"times have shape {times.shape}, but there are {count} entries. Pass one for each.",
            argument="times",
            value=times.shape,
            limit=(count,),
        )
    check_finite(times, "times", "Leave entries without a time out.")
    return times


def check_weights(weights: Any, values: Array) -> Array:
    """Weights in the library and dtype of the values that they belong to.

    Raises
    ------
    ShapeError, DTypeError, BackendError, ObservationError
        If there is not one finite number of at least 0 for each value, or all are 0.
    """
    count = values.shape[0]
    weights = floating(as_array(weights, "weights"), "weights")
    xp = namespace(values, weights)
    if tuple(weights.shape) != (count,):
        raise ShapeError(
            f"weights have shape {tuple(weights.shape)}, but there are {count} values. Pass one for each.",
            argument="weights",
            value=tuple(weights.shape),
            limit=(count,),
        )
    with np.errstate(over="ignore"):  # of NumPy's casts: what is infinite then is refused below
        weights = xp.astype(weights, values.dtype)
    check_finite(
        weights, "weights", "Pass 0 for entries that are not to count, and scale weights to a mean of about 1."
    )
    least = number(xp.min(weights))
    if least < 0:
        raise ObservationError(
            f"weights hold {least:g}, but a weight is the inverse of a variance, up to a common factor. Pass 0 for entries "
            "that are not to count.",
            argument="weights",
            value=least,
            limit=0,
        )
    if number(xp.max(weights)) == 0:
        raise ObservationError(
            "all weights are zero, so that no entry is observed, but at least 1 is needed to learn anything.",
            argument="weights",
            value=0,
            limit=1,
        )
    return weights


def check_scale(observations: Observations) -> None:
    """Raise ObservationError if products would leave the range of their dtype, or the operator is zero.

    Solvers multiply four measurements, and square ``A^T A A^T y``; the size of A is the root mean square of the norms of the
    ``A_i``.
    """
    xp, size = namespace(observations.like), observations.largest
    most = float(xp.finfo(observations.dtype).max) ** 0.4
    if size != 0 and not 1 / most <= size <= most:
        raise ObservationError(
            f"the measurements are up to {size:.3g} in size, but in {observations.dtype} products of numbers beyond {most:.0e} "
            f"or below {1 / most:.0e} are lost. Take another unit: multiply the measurements by a constant.",
            argument="values",
            value=size,
            limit=(1 / most, most),
        )
    with np.errstate(over="ignore", invalid="ignore"):
        gain = observations.gain
    if gain == 0:
        raise ObservationError(
            f"the operator measures 0 of every matrix, or its squares are lost in {observations.dtype}, so that nothing is "
            "learnt of any entry. Correct it, or multiply it and the measurements by a constant.",
            argument="operator",
            value=0.0,
        )
    norm = (gain * observations.shape[0] * observations.shape[1] / observations.n_measurements) ** 0.5
    # The third, of which there is only the square, may reach to the root of the range; the last is the size of the matrix.
    reached = (norm, norm * norm, (norm * norm * size or norm) ** (5 / 6), size / norm or norm)
    if not 1 / most <= min(reached) <= max(reached) <= most:
        raise ObservationError(
            f"the operator has a size of {norm:.3g} (root mean square of the norms of its matrices) and the measurements are up "
            f"to {size:.3g}, but in {observations.dtype} products of these beyond {most:.0e} or below {1 / most:.0e} are lost. "
            "Take other units: multiply the operator, or the weights, and the measurements by constants.",
            argument="operator",
            value=norm,
            limit=(1 / most, most),
        )


def held_out_count(fraction: float, total: int) -> int:
    """Number of `total` measurements to hold out.

    Raises
    ------
    ArgumentError
        If the fraction is not between 0 and 1, or there is nothing to split.
    """
    if not 0 < fraction < 1:
        raise ArgumentError(
            f"fraction={fraction!r}, but the held-out share lies strictly between 0 and 1.",
            argument="fraction",
            value=fraction,
            limit=(0, 1),
        )
    if total < 2:
        raise ObservationError(
            f"there is {total} measurement, but a split needs at least 2. Hold nothing out "
            "(holdout=0, on the command line --holdout 0).",
            argument="fraction",
            value=total,
            limit=2,
        )
    return min(max(round(fraction * total), 1), total - 1)


def nothing_left(rows: int, cols: int) -> ObservationError:
    """What is raised where so many rows and columns hold no entry."""
    return ObservationError(
        f"no entry is observed in these {rows:,} rows and {cols:,} columns, but at least 1 is needed to learn anything. "
        "Keep more of them.",
        argument="rows, cols",
        value=0,
        limit=1,
    )
