"""The original network's trajectory from a network of width 2r: exact, at a cost that does not depend on d.

In the bases of `dmf.theory.invariant_subspaces` gradient descent of the wide network is gradient descent of a small
network on the active parts, next to the scalar recursion of rho:

    W_l(t)      = V_{l+1,1} C_l(t) V_{l,1}^T + rho_l(t) V_{l+1,2} V_{l,2}^T + (1 - eta lambda)^t frozen_l,
    W_L...W_1(t) = V_{L+1,1} C_L...C_1(t) V_{1,1}^T + prod_l rho_l(t) V_{L+1,2} V_{1,2}^T,

with C_l(0) = V_{l+1,1}^T W_l(0) V_{l,1} and the target V_{L+1,1}^T M V_{1,1}. Square: all C_l are 2r x 2r and nothing is
frozen. Sizes d1 != d2 and widths below max(d1, d2): see the condition in `dmf.theory.invariant_subspaces`; then some C_l
are up to 3r wide. Verified there and here to rounding (4e-15 over 2,000 steps, tests/paper/test_theory_compression.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dmf.arrays.backend import Array, from_host, namespace, number, to_host
from dmf.arrays.linalg import chain_product
from dmf.errors import ArgumentError
from dmf.models import DeepLinearNetwork
from dmf.theory.assumptions import checked_target
from dmf.theory.checks import recorded_iterations
from dmf.theory.recursions import matrix_descent, scalar_descent
from dmf.theory.subspaces import InvariantSubspaces, invariant_subspaces


@dataclass(frozen=True, eq=False)
class ExactCompression:
    """The small network that carries the whole trajectory of a wide one; see `exact_compression`.

    Attributes
    ----------
    subspaces : InvariantSubspaces
    network : DeepLinearNetwork
        The small start, layers (k_l, k_{l-1}); 2r x 2r and eps_l I in the square case.
    target : array, shape (k_L, k_0)
        V_{L+1,1}^T M V_{1,1}.
    missed : float
        ``||M||_F^2`` less that of `target`: 0 up to rounding for a target of rank r.
    overlap : float
        ``<M, V_{L+1,2} V_{1,2}^T>``, likewise.
    """

    subspaces: InvariantSubspaces
    network: DeepLinearNetwork
    target: Array
    missed: float
    overlap: float

    def trajectory(
        self,
        step_size: float,
        outer_scale: float = 1.0,
        weight_decay: float = 0.0,
        reduction: str = "mean",
        iterations: int = 10_000,
        record_every: int = 1,
    ) -> CompressedTrajectory:
        """Run gradient descent of the wide network on the small one, in float64 on the host.

        Parameters
        ----------
        step_size, outer_scale, weight_decay, reduction, iterations, record_every
            As of `dmf.gradient_descent`, whose trajectory on ``FullMatrix(M)`` from the wide start this is.

        Returns
        -------
        CompressedTrajectory
            Ends before the first recorded iteration at which the loss is not finite.
        """
        steps = recorded_iterations(iterations, record_every)
        rates, shrink = self.subspaces.coefficients(step_size, outer_scale, weight_decay, reduction)
        d1, d2 = self.subspaces.shape
        with np.errstate(over="ignore", invalid="ignore"):
            start = [to_host(w) for w in self.network.weights]
            weights, _ = matrix_descent(start, to_host(self.target), rates, shrink, steps)
            rho = self.subspaces.rho_at(steps, rates, shrink)
            bend = scalar_descent(
                self.subspaces.scales[:, None], np.array([self.subspaces.missed_value]), rates, shrink, steps
            )[:, :, 0]
        count = min(len(rho), len(weights[0]), len(bend))
        return CompressedTrajectory(
            self,
            steps[:count],
            tuple(w[:count] for w in weights),
            rho[:count],
            shrink ** steps[:count],
            1.0 if reduction == "sum" else 1.0 / (d1 * d2),
            np.prod(bend[:count], axis=1) - np.prod(rho[:count], axis=1),
        )

    def lift(self, weights: Sequence[np.ndarray], rho: Sequence[float], shrunk: float = 1.0) -> DeepLinearNetwork:
        """The wide network of a small one.

        Parameters
        ----------
        weights : sequence of L arrays, shapes (k_l, k_{l-1})
            C_l(t).
        rho : sequence of L floats
            rho_l(t).
        shrunk : float
            ``(1 - eta lambda)^t``, which scales the frozen part.

        Returns
        -------
        DeepLinearNetwork
            In the library, dtype and device of the start.
        """
        s = self.subspaces
        layers = []
        for k, (small, factor) in enumerate(zip(weights, rho, strict=True)):
            layer = self._wide(small, k, k + 1) + float(factor) * s.passive_maps[k]
            if s.frozen_maps is not None:
                layer = layer + float(s.scales[k] * shrunk) * s.frozen_maps[k]
            layers.append(layer)
        return DeepLinearNetwork(layers)

    def lift_product(self, product: np.ndarray, rho_product: float) -> Array:
        """The wide end-to-end matrix (d1, d2) of the small one (k_L, k_0) and of ``prod_l rho_l``."""
        return self._wide(product, 0, -1) + float(rho_product) * self._passive_product

    def square_error(self, product: np.ndarray, rho_product: np.ndarray) -> np.ndarray:
        """``||W_L...W_1 - M||_F^2`` of wide networks.

        Parameters
        ----------
        product : float64 array, shape (..., k_L, k_0)
            End-to-end matrices of small ones.
        rho_product : float64 array, shape (...)
            ``prod_l rho_l``.

        Returns
        -------
        float64 array, shape (...)
        """
        squares = np.sum((product - to_host(self.target)) ** 2, axis=(-2, -1))
        passive = self.subspaces.n_passive * rho_product**2 - 2 * rho_product * self.overlap
        return np.maximum(squares + passive + self.missed, 0.0)

    def _wide(self, small: np.ndarray, below: int, above: int) -> Array:
        like, active = self.target, self.subspaces.active
        xp = namespace(like)
        core = xp.astype(from_host(np.ascontiguousarray(small), like), like.dtype)
        return active[above] @ core @ xp.matrix_transpose(active[below])

    @cached_property
    def _passive_product(self) -> Array:
        """``V_{L+1,2} V_{1,2}^T``."""
        s, xp = self.subspaces, namespace(self.target)
        if not s.is_square:
            return s.passive[-1] @ xp.matrix_transpose(s.passive[0])
        return chain_product(s.layers[::-1]) - s.active[-1] @ xp.matrix_transpose(s.active[0])


@dataclass(frozen=True, eq=False)
class CompressedTrajectory:
    """The trajectory of a wide network, held by a small one; n recorded iterations.

    Attributes
    ----------
    compression : ExactCompression
    iteration : int array, shape (n,)
    weights : tuple of L float64 arrays, shapes (n, k_l, k_{l-1})
        C_l.
    rho : float64 array, shape (n, L)
    shrunk : float64 array, shape (n,)
        ``(1 - eta lambda)^t``.
    divisor : float
        Factor of the summed loss: 1 or 1/(d1 d2).
    bend : float64 array, shape (n,)
        Estimate of the error in the wide product, in the spectral norm, where M is not of rank r: how far a passive
        direction would move if the largest singular value left out were aligned with it. 0 up to rounding for an exact rank.
        It is no bound: over 30 x 30 matrices with noise of 1e-4 to 1e-2, depths 2 to 4 and scales 0.03 to 0.3, errors were
        0.8 to 1.5 times this in the median and at the end, but up to 180 times while a component was being learned, because
        noise also shifts the time of that.
    """

    compression: ExactCompression
    iteration: np.ndarray
    weights: tuple[np.ndarray, ...]
    rho: np.ndarray
    shrunk: np.ndarray
    divisor: float
    bend: np.ndarray

    def __len__(self) -> int:
        return len(self.iteration)

    def network(self, index: int) -> DeepLinearNetwork:
        """The wide network at record `index`; O(L d^2 r)."""
        return self.compression.lift([w[index] for w in self.weights], self.rho[index], self.shrunk[index])

    def product(self, index: int) -> Array:
        """The wide end-to-end matrix (d1, d2) at record `index`; O(d^2 r), and once O(L d^3)."""
        return self.compression.lift_product(self.small_products[index], np.prod(self.rho[index]))

    @cached_property
    def small_products(self) -> np.ndarray:
        """C_L...C_1, float64 array (n, k_L, k_0)."""
        product = self.weights[0]
        for weight in self.weights[1:]:
            product = weight @ product
        return product

    @cached_property
    def square_errors(self) -> np.ndarray:
        """``||W_L...W_1 - M||_F^2`` of the wide network, float64 array (n,), from the small one alone."""
        return self.compression.square_error(self.small_products, np.prod(self.rho, axis=1))

    @property
    def loss(self) -> np.ndarray:
        """Training loss, as of `dmf.gradient_descent`, float64 array (n,)."""
        return 0.5 * self.divisor * self.square_errors

    @property
    def error(self) -> np.ndarray:
        """``||W_L...W_1 - M||_F / ||M||_F``, float64 array (n,)."""
        c = self.compression
        return np.sqrt(self.square_errors / (c.missed + float(np.sum(to_host(c.target).astype(float) ** 2))))

    def singular_values(self, count: int) -> np.ndarray:
        """The `count` largest singular values of the wide end-to-end matrix, float64 array (n, count), descending."""
        most = min(self.compression.subspaces.shape)
        if not 1 <= count <= most:
            raise ArgumentError(
                f"count={count}, but the matrix has from 1 to {most} singular values.",
                argument="count",
                value=count,
                limit=(1, most),
            )
        active = np.linalg.svd(self.small_products, compute_uv=False)
        repeats = min(self.compression.subspaces.n_passive, count)
        passive = np.repeat(np.abs(np.prod(self.rho, axis=1))[:, None], repeats, axis=1)
        every = -np.sort(-np.concatenate([active, passive], axis=1), axis=1)
        padding = max(count - every.shape[1], 0)  # of the frozen directions the product keeps none
        return np.pad(every, ((0, 0), (0, padding)))[:, :count]

    def history(self, count: int | None = None) -> Mapping[str, np.ndarray]:
        """Columns "iteration", "loss", "error" and "singular_values" (r unless `count` is given), as a run records them."""
        values = self.singular_values(self.compression.subspaces.rank if count is None else count)
        return {"iteration": self.iteration, "loss": self.loss, "error": self.error, "singular_values": values}


def exact_compression(target: Array, network: DeepLinearNetwork, rank: int | None = None) -> ExactCompression:
    """Compress the original network without error, for gradient descent on the whole target.

    Parameters
    ----------
    target : array, shape (d1, d2)
        M, of the library, dtype and device of the network.
    network : DeepLinearNetwork
        The wide start, with (semi-)orthogonal layers times scales; for the sizes see `invariant_subspaces`.
    rank : int, 1 <= rank < min(sizes) / 2, optional
        r; the numerical rank of M unless given. With a rank below that of M (noise) the compression is approximate, by
        about ``CompressedTrajectory.bend``.

    Returns
    -------
    ExactCompression

    Raises
    ------
    ArgumentError, RankError, ShapeError, DTypeError, BackendError, ObservationError
        As `invariant_subspaces`.

    References
    ----------
    .. [1] Yaras et al., ICML 2024 (arXiv 2406.04112), section 2.
    """
    subspaces = invariant_subspaces(target, network, rank)
    xp = namespace(*network.weights)
    right, left = subspaces.active[0], subspaces.active[-1]
    target = checked_target(target, network)
    small = xp.matrix_transpose(left) @ target @ right
    weights = [
        float(scale) * (xp.matrix_transpose(above) @ (layer @ below))
        for scale, layer, below, above in zip(
            subspaces.scales, subspaces.layers, subspaces.active, subspaces.active[1:], strict=False
        )
    ]
    compression = ExactCompression(subspaces, DeepLinearNetwork(weights), small, subspaces.missed**2, 0.0)
    if subspaces.exact:  # then the overlap is rounding, and the product of the dense layers can wait
        return compression
    outside = target - left @ small @ xp.matrix_transpose(right)
    overlap = number(xp.sum(xp.astype(outside * compression._passive_product, xp.float64)))
    return ExactCompression(subspaces, compression.network, small, compression.missed, overlap)
