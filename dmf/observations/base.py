"""What is known of a matrix: the contract between data and solvers.

`Observations` is all that solvers know of any measurements; `dmf.observations.entries.Entries` says what more they know of
entries. Whatever keeps these promises can be solved for: arrays on a CPU or a GPU, or row blocks on the workers of a cluster.
Nothing but the observations themselves computes with arrays of m numbers, and nothing else knows the positions of entries;
factors, and whatever has a number for each row or column, are arrays like `Observations.like`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, NamedTuple, Self

from dmf.arrays.backend import (
    Array,
    check_device,
    device,
    frozen,
    is_complex,
    is_numpy,
    namespace,
    number,
    on_device_of,
    to_host,
)
from dmf.arrays.linalg import conjugate_gradient, gaussian
from dmf.io.forms import Form

_RIDGE_TOLERANCE, _RIDGE_STEPS = 1e-3, 30  # of the default `ridge`: it starts from the last solution


class Ridge(NamedTuple):
    """What `Observations.ridge` returns.

    Attributes
    ----------
    rows : array, shape (n, w)
        The fitted factor.
    variances : array, shape (n, w), or None
        Variances of `rows` in units of the noise variance, of each number given all others: inverses of the diagonals of the
        normal matrices. Given nothing they are larger, but not independent: a row seen once, or with one entry of large weight,
        is known well in one direction, and were it taken to be uncertain in all, noise would be seen where there is none.
    square : float
        ``||A(U V^T) - y||^2`` at the solution.
    uncertainty : float
        What the variances of the given factor add to the expectation of `square`.
    freedom : float
        Effective degrees of freedom of the fit; times the noise variance, what the variances of `rows` add to it.
    """

    rows: Array
    variances: Any
    square: float
    uncertainty: float
    freedom: float


class Observations(ABC):
    """Linear measurements ``y = A(X)`` of an unknown matrix X of shape (d1, d2).

    Solvers see a matrix only as a product ``left @ right`` of factors of shapes (d1, w) and (w, d2), of any width w, and
    ask for nothing beyond the methods below. Factors must have the library, dtype and device of `like`.

    To add a kind of observation, write the abstract methods and add it to `KINDS` in tests/helpers.py. The others have
    defaults, which do arithmetic on `values` and on what `predict` returns.

    Attributes
    ----------
    shape : (int, int)
        (d1, d2).
    values : array, shape (m,)
        The measurements y, in the units of X times those of A. Solvers only hand them back to these methods, as they do with
        what `predict` returns.
    form : dmf.io.forms.Form or None
        Names of rows and columns, and the form in which the matrix came, if any.
    """

    shape: tuple[int, int]
    values: Array
    form: Form | None = None

    @property
    def like(self) -> Array:
        """Some array of the library, dtype and device that factors must have."""
        return self.values

    def threads(self) -> AbstractContextManager[Any]:
        """Context in which solvers work on these observations."""
        return on_device_of(self.like)

    @property
    def n_measurements(self) -> int:
        """Number m of measurements."""
        return self.values.shape[0]

    @cached_property
    def n_distinct(self) -> int:
        """Number of different measurements, of which copies say nothing new: those that predict different values of a matrix."""
        xp, (d1, d2) = namespace(self.values), self.shape
        predicted = self.predict(gaussian((d1, 1), 0, self.values), gaussian((1, d2), 1, self.values))
        ordered = xp.sort(predicted)
        alike = 4 * float(xp.finfo(self.dtype).eps) * number(xp.max(xp.abs(ordered)))
        return 1 + int(number(xp.sum(xp.astype(ordered[1:] - ordered[:-1] > alike, xp.int64))))

    @property
    def dtype(self) -> Any:
        """Dtype of measurements and factors: float32 or float64, of some kinds complex64 or complex128."""
        return self.like.dtype

    @cached_property
    def mean_square(self) -> float:
        """Mean square of the measurements, summed in float64."""
        return 2 * number(half_square(self.values)) / self.n_measurements

    @cached_property
    def largest(self) -> float:
        """Largest absolute value of a measurement."""
        xp = namespace(self.values)
        if is_complex(self.values):
            return number(xp.max(xp.abs(self.values)))
        return max(number(xp.max(self.values)), -number(xp.min(self.values)))

    @abstractmethod
    def predict(self, left: Array, right: Array) -> Array:
        """``A(left @ right)``, shape (m,)."""

    @abstractmethod
    def adjoint(self, weights: Array, left: Array, right: Array) -> tuple[Array, Array]:
        """Products of the matrix ``Z = A^T(weights)`` with the factors.

        Parameters
        ----------
        weights : array, shape (m,)
        left : array, shape (d1, w)
        right : array, shape (w, d2)

        Returns
        -------
        ``Z @ right^T`` (d1, w) and ``left^T @ Z`` (w, d2); of complex numbers with conjugate transposes
        """

    def evaluate(self, left: Array, right: Array) -> tuple[Array, Array, Array]:
        """Loss ``1/2 ||A(left @ right) - y||^2`` and `adjoint` of the residual ``A(left @ right) - y``.

        Returns
        -------
        float64 array of shape (), array (d1, w), array (w, d2)
        """
        residual = self.predict(left, right) - self.values
        return half_square(residual), *self.adjoint(residual, left, right)

    def loss(self, left: Array, right: Array) -> Array:
        """Loss ``1/2 ||A(left @ right) - y||^2``, a float64 array of shape ()."""
        return half_square(self.predict(left, right) - self.values)

    def best_scale(self, left: Array, right: Array) -> float:
        """The factor c with the least ``||A(c left @ right) - y||``; 0 where `left @ right` is not seen at all."""
        predicted = self.predict(left, right)
        xp = namespace(predicted)
        square = number(xp.sum(predicted * predicted))
        return number(xp.sum(predicted * self.values)) / square if square > 0 else 0.0

    def minus(self, left: Array, right: Array) -> Self:
        """The same measurements of the matrix ``X - left @ right``."""
        return self.with_values(frozen(self.values - self.predict(left, right)))

    def scaled(self, factor: float) -> Self:
        """The same measurements of the matrix ``factor X``."""
        return self.with_values(frozen(factor * self.values))

    @property
    @abstractmethod
    def gain(self) -> float:
        """``||A||_F^2 / (d1 d2)``, the share seen if A takes entries: ``||A(X)||^2`` is about ``gain ||X||_F^2``."""

    def ridge(
        self, side: int, factor: Array, penalty: Array, variances: Array | None = None, start: Array | None = None
    ) -> Ridge:
        """Fit one factor of ``U V^T`` by ridge regression, the other one given.

        Minimises ``||A(U V^T) - y||^2 + sum_k penalty_k ||column k of the factor||^2``.

        Parameters
        ----------
        side : {0, 1}
            0: U (d1, w) is fitted; 1: V (d2, w) is.
        factor : array, shape (d2, w) for side 0, (d1, w) for side 1
            The given factor.
        penalty : array, shape (w,)
            Positive.
        variances : array shaped as `factor`, optional
            Of the entries of `factor`, where it is uncertain: they add to the normal matrices. Kinds of observations that
            cannot use them leave them out, and return no variances.
        start : array, shape (n, w), optional
            Where an iterative solution begins.
        """
        xp = namespace(factor, penalty)
        zeros = frozen(0 * self.values)

        def gradient(rows, values):
            left, right = (rows, xp.matrix_transpose(factor)) if side == 0 else (factor, xp.matrix_transpose(rows))
            loss, grad_left, grad_right = values.evaluate(left, right)
            return loss, grad_left if side == 0 else xp.matrix_transpose(grad_right)

        # Columns are scaled to a normal matrix with a diagonal of about 1.
        scale = 1 / xp.sqrt(self.gain * xp.sum(factor * factor, axis=0) + penalty)
        linear = self.with_values(zeros)
        rows = xp.zeros((self.shape[side], factor.shape[1]), dtype=factor.dtype, device=device(factor))
        target = -scale * gradient(rows, self)[1]
        rows = conjugate_gradient(
            lambda x: scale * (gradient(scale * x, linear)[1] + penalty * scale * x),
            target,
            None if start is None else start / scale,
            _RIDGE_TOLERANCE,
            _RIDGE_STEPS,
        )
        rows = scale * rows
        return Ridge(rows, None, 2 * number(gradient(rows, self)[0]), 0.0, 0.0)

    def tangent_normal(self, u: Array, vt: Array) -> Callable[[Array], Array]:
        """Normal map ``T^T A^T A T`` of the measurements on the tangent space ``T(P, Q) = P V^T + U Q^T`` at a matrix.

        Solvers apply it many times; an array operator that is large is read once here and not at all then.

        Parameters
        ----------
        u : array, shape (d1, r)
        vt : array, shape (r, d2)

        Returns
        -------
        callable
            From arrays (d1 + d2, r), P above Q, to the same.
        """
        xp = namespace(u, vt)
        (d1, rank), linear = u.shape, self.scaled(0)

        def normal(step):
            # One pass gives both components: the halves of the factors are paired crosswise.
            p, q = step[:d1, :], xp.matrix_transpose(step[d1:, :])
            _, left, right = linear.evaluate(xp.concat([p, u], axis=1), xp.concat([vt, q]))
            return xp.concat([left[:, :rank], xp.matrix_transpose(right[rank:, :])])

        return normal

    def tangent_step(
        self, u: Array, vt: Array, target: Array, damping: float, tolerance: float, iterations: int
    ) -> Array:
        """Step in the tangent space that ``N + damping`` maps to `target`, N the map of `tangent_normal`, by iteration.

        N is singular: ``(U C, -V C^T)`` steps nowhere, for any C. Which of the solutions is returned is not specified.

        Parameters
        ----------
        u : array, shape (d1, r)
        vt : array, shape (r, d2)
        target : array, shape (d1 + d2, r)
        damping : float, >= 0
        tolerance : float
            Of the residual, relative to `target`.
        iterations : int
            Most passes over the measurements.

        Returns
        -------
        array, shape (d1 + d2, r)
        """
        normal = self.tangent_normal(u, vt)
        return conjugate_gradient(lambda step: normal(step) + damping * step, target, None, tolerance, iterations)

    @abstractmethod
    def surrogate_svd(self, rank: int, seed: int = 0, sweeps: int = 12) -> tuple[Array, Array, Array]:
        """Top singular triplets of the surrogate matrix ``A^T(y)``, scaled so that its expectation is X.

        Parameters
        ----------
        rank : int, 1 <= rank <= min(d1, d2)
        seed : int
            Seed of the randomised singular value decomposition.
        sweeps : int, >= 1
            Most subspace iterations of it; few are enough for a start.

        Returns
        -------
        U (d1, rank), s (rank,) descending, V^T (rank, d2)
        """

    @abstractmethod
    def split(self, fraction: float, seed: int = 0) -> tuple[Any, Any]:
        """Random partition of the measurements into kept and held-out ones.

        Parameters
        ----------
        fraction : float, 0 < fraction < 1
            Share of the measurements held out; at least one measurement falls on either side.
        seed : int
        """

    @abstractmethod
    def with_values(self, values: Array) -> Self:
        """The same measurements with other outcomes, shape (m,)."""

    @abstractmethod
    def fill(self, matrix: Array) -> Array:
        """`matrix` (d1, d2) with the entries that were observed directly put in their place."""

    def restored(self, matrix: Array) -> Any:
        """`matrix` after `fill`, in the form in which the data came: a data frame or a DataArray, else an array."""
        filled = self.fill(matrix)
        return filled if self.form is None or self.form.restored is None else self.form.restored(to_host(filled))

    def to_device(self, device: str) -> Observations:
        """The same observations on another device: "cpu" (NumPy arrays), "cuda" or "cuda:N" (CuPy arrays).

        Raises
        ------
        ArgumentError, MissingPackageError, BackendError
            If there is no such device, CuPy is missing, or an operator cannot be moved.
        """
        if check_device(device)[0] == "cpu" and is_numpy(self.values):
            return self
        moved = self._moved(device)
        moved.form = self.form
        return moved

    @abstractmethod
    def _moved(self, device: str) -> Observations:
        """The same observations with arrays from `dmf.arrays.backend.move`."""

    def descent(self, widths: tuple[int, ...]) -> Any:
        """Compiled chunk of descent steps for a network of these inner widths; None where there is none or it does not pay."""
        return None

    def _new(self) -> Self:
        """A copy, of a subclass too, without what was computed of its measurements."""
        other = object.__new__(type(self))
        known = ("mean_square", "largest", "n_distinct", "form")
        vars(other).update({name: value for name, value in vars(self).items() if name not in known})
        return other

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Arrays of a copy or a pickle are read-only, too."""
        vars(self).update({name: frozen(value) if is_numpy(value) else value for name, value in state.items()})

    def __repr__(self) -> str:
        d1, d2 = self.shape
        return f"{type(self).__name__}({d1} x {d2}, {self.n_measurements} measurements, {self.dtype})"


def half_square(residual: Array) -> Array:
    """``1/2 ||residual||^2`` summed in float64."""
    xp = namespace(residual)
    if is_complex(residual):
        return half_square(xp.real(residual)) + half_square(xp.imag(residual))
    residual = xp.astype(residual, xp.float64, copy=False)
    return 0.5 * xp.sum(residual * residual)
