"""Where gradient descent of the original network can move: the invariant subspaces of Yaras et al.

Let every layer start as ``W_l(0) = eps_l Q_l`` with Q_l semi-orthogonal, and let the target M have rank r. If the sizes
d2 = n_0, n_1, ..., n_L = d1 first do not rise and then do not fall (a valley; n_l constant in the square case, and with the
usual width max(d1, d2) for every d1 and d2), each space R^{n_l} splits into three orthogonal parts that gradient descent
on ``1/2 ||W_L...W_1 - M||_F^2`` never mixes, for any step size, rates of the layers and weight decay:

- active, V_{l,1}: 2r-dimensional at the bottom of the valley; every rise of the sizes on the way up (or of the reversed
  sizes on the way down) by k adds min(r, k) dimensions. M acts only between the active parts of R^{n_0} and R^{n_L};
- passive, V_{l,2}: n = min(n_l) - 2r dimensions that every layer passes on, ``W_l(t) V_{l,2} = rho_l(t) V_{l+1,2}``;
- frozen: the rest, which some layer maps to 0; there W_l(t) = (1 - eta lambda)^t W_l(0). Empty if all n_l are equal.

Why a valley: a passive direction needs ``W_l(0)^T W_l(0) v = eps_l^2 v`` at every layer it passes. Wide layers (on the way
down) lose some directions, tall ones keep all that reach them. After a rise, what a falling layer keeps is at a random angle
to what came from below, the product W_L...W_1 is no multiple of a partial isometry, and no direction is passive.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from dmf.arrays.backend import Array, namespace, number, to_host
from dmf.arrays.linalg import dense_svd
from dmf.models import DeepLinearNetwork
from dmf.theory.assumptions import bottom_of_valley, checked_rank, checked_target, normalised_layers, spectral_norm
from dmf.theory.checks import descent_coefficients, recorded_iterations
from dmf.theory.recursions import scalar_descent


@dataclass(frozen=True, eq=False)
class InvariantSubspaces:
    """The parts of each space R^{n_l} that descent from one start never mixes; see `invariant_subspaces`.

    Attributes
    ----------
    active : tuple of L + 1 arrays, shapes (n_l, k_l)
        Orthonormal bases V_{1,1}, ..., V_{L+1,1}, input side first.
    layers : tuple of L arrays, shapes (n_l, n_{l-1})
        Q_l = W_l(0) / eps_l.
    scales : float64 array, shape (L,)
        eps_l.
    rank : int
        r.
    bottom : int
        The l at which n_l is least.
    tail : float
        ``||M - M_r||_F / ||M||_F``, 0 up to rounding for a target of rank r. If it is not, the claims are approximate.
    missed, missed_value : float
        Frobenius norm and largest singular value of the part of M outside the active spaces.
    exact : bool
        Whether that part is nothing but rounding.
    """

    active: tuple[Array, ...]
    layers: tuple[Array, ...]
    scales: np.ndarray
    rank: int
    bottom: int
    tail: float
    missed: float
    missed_value: float
    exact: bool

    @property
    def depth(self) -> int:
        """Number L of layers."""
        return len(self.layers)

    @property
    def shape(self) -> tuple[int, int]:
        """(d1, d2) of the end-to-end matrix."""
        return self.layers[-1].shape[0], self.layers[0].shape[1]

    @property
    def n_passive(self) -> int:
        """Dimension n of the passive parts."""
        return min(v.shape[0] for v in self.active) - 2 * self.rank

    @cached_property
    def passive(self) -> tuple[Array, ...]:
        """Orthonormal bases V_{1,2}, ..., V_{L+1,2}, shapes (n_l, n), with V_{l+1,2} = Q_l V_{l,2}; O(L d^2 n) to form."""
        xp = namespace(*self.active)
        bottom = self.active[self.bottom]
        basis = xp.linalg.qr(bottom, mode="complete").Q[:, bottom.shape[1] :]
        up, down = [basis], [basis]
        for layer in self.layers[self.bottom :]:
            up.append(layer @ up[-1])
        for layer in reversed(self.layers[: self.bottom]):
            down.append(xp.matrix_transpose(layer) @ down[-1])
        return (*down[:0:-1], *up)

    @cached_property
    def passive_maps(self) -> tuple[Array, ...]:
        """``V_{l+1,2} V_{l,2}^T`` for l = 1..L, shapes (n_l, n_{l-1})."""
        xp = namespace(*self.active)
        if self.is_square:  # the complement of the active part, without a basis of it
            pairs = zip(self.layers, self.active[1:], self.active, strict=False)
            return tuple(q - above @ xp.matrix_transpose(below) for q, above, below in pairs)
        return tuple(b @ xp.matrix_transpose(a) for a, b in zip(self.passive, self.passive[1:], strict=False))

    @cached_property
    def frozen_maps(self) -> tuple[Array, ...] | None:
        """Q_l restricted to the frozen part, for l = 1..L; None if all sizes are equal and nothing is frozen."""
        if self.is_square:
            return None
        xp = namespace(*self.active)
        triples = zip(self.layers, self.active, self.passive_maps, strict=False)
        return tuple(q - (q @ a) @ xp.matrix_transpose(a) - passive for q, a, passive in triples)

    @property
    def is_square(self) -> bool:
        """Whether all sizes n_l are equal."""
        return len({v.shape[0] for v in self.active}) == 1

    def rho(
        self,
        iterations: int,
        step_size: float,
        outer_scale: float = 1.0,
        weight_decay: float = 0.0,
        reduction: str = "mean",
        record_every: int = 1,
    ) -> np.ndarray:
        """The factors rho_l(t) by which layers pass passive directions on.

        ``rho_l(0) = eps_l``, ``rho_l(t+1) = rho_l(t) (1 - eta lambda - eta_l prod_{k != l} rho_k(t)^2)``.

        Parameters
        ----------
        iterations, step_size, outer_scale, weight_decay, reduction, record_every
            As of `dmf.gradient_descent`.

        Returns
        -------
        float64 array, shape (n, L)
            At iterations 0, `record_every`, ... and the last; fewer if the recursion overflows.

        References
        ----------
        .. [1] Yaras et al., ICML 2024 (arXiv 2406.04112), theorem 2.1; 2023 (arXiv 2306.01154), theorem 1.
        """
        rates, shrink = self.coefficients(step_size, outer_scale, weight_decay, reduction)
        return self.rho_at(recorded_iterations(iterations, record_every), rates, shrink)

    def rho_at(
        self, steps: np.ndarray, rates: np.ndarray, shrink: float, start: np.ndarray | None = None
    ) -> np.ndarray:
        """`rho` at given iterations, from `start` (L,): descent of scalars with the target 0."""
        start = self.scales if start is None else start
        return scalar_descent(start[:, None], np.zeros(1), rates, shrink, steps)[:, :, 0]

    def coefficients(self, step_size, outer_scale=1.0, weight_decay=0.0, reduction="mean") -> tuple[np.ndarray, float]:
        """Rate of each layer for the summed loss, and the factor by which weights shrink in each step."""
        d1, d2 = self.shape
        return descent_coefficients(self.depth, step_size, outer_scale, weight_decay, reduction, d1 * d2)

    def deviations(
        self, network: DeepLinearNetwork, rho: np.ndarray, shrunk: float = 1.0, *, ranks: bool = True
    ) -> dict[str, np.ndarray]:
        """How far a network is from each claim, layer by layer, relative to ``||W_l||_F``.

        Parameters
        ----------
        network : DeepLinearNetwork
            Of the sizes of the start.
        rho : array, shape (L,)
            rho_l at its iteration t.
        shrunk : float
            ``(1 - eta lambda)^t``.
        ranks : bool
            Whether to include "excess_rank", which costs a singular value decomposition of each layer.

        Returns
        -------
        dict of float64 arrays, shape (L,)
            "invariance": ``||W_l V_{l,2} - rho_l V_{l+1,2}||_F``. "leakage": ``||V_{l+1,2}^T W_l - rho_l V_{l,2}^T||_F``, which
            holds what leaks from V_{l,1} into V_{l+1,2}. "outside": all of ``W_l`` except the predicted parts and the active
            block. "excess_rank": the singular value number min(k_{l-1}, k_l) + 1 of
            ``W_l - W_l(0) - (rho_l - eps_l) V_{l+1,2} V_{l,2}^T`` (less the frozen part's decay), 0 if its rank is within the
            claim; relative to the larger of ``||W_l||_F`` and ``||W_l(0)||_F``.
        """
        xp = namespace(*self.active)
        result: dict[str, list[float]] = {"invariance": [], "leakage": [], "outside": []}
        if ranks:
            result["excess_rank"] = []
        for k, (weight, factor) in enumerate(zip(network.weights, rho.tolist(), strict=True)):
            size = number(xp.linalg.vector_norm(weight))
            below, above = self.passive[k], self.passive[k + 1]
            predicted = factor * self.passive_maps[k]
            if self.frozen_maps is not None:
                predicted = predicted + float(self.scales[k] * shrunk) * self.frozen_maps[k]
            a, b = self.active[k], self.active[k + 1]
            rest = weight - predicted
            block = xp.matrix_transpose(b) @ rest @ a
            kept = b @ block @ xp.matrix_transpose(a)
            claims = {
                "invariance": weight @ below - factor * above,
                "leakage": xp.matrix_transpose(weight) @ above - factor * below,
                "outside": rest - kept,
            }
            for name, difference in claims.items():
                result[name].append(number(xp.linalg.vector_norm(difference)) / size)
            if ranks:
                start = float(self.scales[k]) * (self.layers[k] - self.passive_maps[k])
                if self.frozen_maps is not None:
                    start = start - float(self.scales[k]) * self.frozen_maps[k]
                values = to_host(xp.linalg.svdvals(rest - start))
                bound = min(a.shape[1], b.shape[1])
                largest = max(size, float(self.scales[k]) * min(weight.shape) ** 0.5)  # W_l(0) may be the larger
                result["excess_rank"].append(float(values[bound]) / largest if bound < values.size else 0.0)
        return {name: np.array(values) for name, values in result.items()}

    def checker(
        self,
        step_size: float,
        outer_scale: float = 1.0,
        weight_decay: float = 0.0,
        reduction: str = "mean",
        *,
        ranks: bool = True,
    ) -> InvarianceChecker:
        """Checker of a trajectory that starts at `layers` times `scales`, usable as the callback of a solver.

        Parameters
        ----------
        step_size, outer_scale, weight_decay, reduction
            As of the `dmf.gradient_descent` that is checked.
        ranks : bool
            See `deviations`.
        """
        rates, shrink = self.coefficients(step_size, outer_scale, weight_decay, reduction)
        return InvarianceChecker(self, rates, shrink, ranks)


class InvarianceChecker:
    """Largest deviation of a running or finished trajectory from each claim on the invariant subspaces.

    Called with a solver's snapshot (anything with `iteration` and `network`), returns `InvariantSubspaces.deviations` and
    rho_l, which become columns of the history; `worst` holds the largest so far. Made by `InvariantSubspaces.checker`.

    Parameters
    ----------
    subspaces : InvariantSubspaces
        Of the start.
    rates : array, shape (L,)
        Step size of each layer for the summed loss.
    shrink : float
        Factor of the weights in each step, ``1 - eta lambda``.
    ranks : bool
        See `InvariantSubspaces.deviations`.

    Attributes
    ----------
    worst : dict of float64 arrays, shape (L,)
        For each claim and layer.
    """

    def __init__(self, subspaces: InvariantSubspaces, rates: np.ndarray, shrink: float, ranks: bool = True) -> None:
        self.subspaces, self.rates, self.shrink, self.ranks = subspaces, rates, shrink, ranks
        self.worst: dict[str, np.ndarray] = {}
        self._last: tuple[int, np.ndarray] = (0, subspaces.scales)

    def __call__(self, snapshot: Any) -> Mapping[str, np.ndarray]:
        """Deviations of ``snapshot.network`` at ``snapshot.iteration``."""
        return self.measure(snapshot.iteration, snapshot.network)

    def measure(self, iteration: int, network: DeepLinearNetwork) -> dict[str, np.ndarray]:
        """Deviations of one iterate; iterations may come in any order, ascending is cheapest."""
        at, rho = self._last if self._last[0] <= iteration else (0, self.subspaces.scales)
        rho = self.subspaces.rho_at(np.array([iteration - at]), self.rates, self.shrink, rho)[-1]
        self._last = iteration, rho
        found = self.subspaces.deviations(network, rho, self.shrink**iteration, ranks=self.ranks)
        for name, values in found.items():
            self.worst[name] = np.maximum(self.worst.get(name, 0.0), values)
        return {**found, "rho": rho}

    def check(self, trajectory: Iterable[tuple[int, DeepLinearNetwork]]) -> dict[str, np.ndarray]:
        """`worst` over a finished trajectory of pairs (iteration, network)."""
        for iteration, network in trajectory:
            self.measure(iteration, network)
        return self.worst


def invariant_subspaces(target: Array, network: DeepLinearNetwork, rank: int | None = None) -> InvariantSubspaces:
    """Split the spaces between the layers into parts that gradient descent on the whole target never mixes.

    Parameters
    ----------
    target : array, shape (d1, d2)
        M, of the library, dtype and device of the network.
    network : DeepLinearNetwork
        The start: each layer a positive multiple of a semi-orthogonal matrix, as `orthogonal_network` gives. Its sizes
        d2, w_1, ..., w_{L-1}, d1 fall first and rise then (either may be missing), as with any width <= max(d1, d2).
    rank : int, 1 <= rank < min(sizes) / 2, optional
        r; the numerical rank of M unless given. If M has a larger rank (noise), its best approximation of this rank
        takes its place, and the claims hold approximately: see ``InvariantSubspaces.tail`` and ``CompressedTrajectory.bend``.

    Returns
    -------
    InvariantSubspaces

    Raises
    ------
    ArgumentError
        If a layer is not semi-orthogonal, or the sizes rise before they fall: the message says by how much the claim fails.
    RankError
        If 2 rank >= min(sizes), so that nothing is passive.
    ShapeError, DTypeError, BackendError, ObservationError
        If the target does not fit the network, or is not finite.

    References
    ----------
    .. [1] Yaras et al., ICML 2024 (arXiv 2406.04112), section 2: square layers.
    .. [2] Yaras et al., 2023 (arXiv 2306.01154), theorem 1.
    """
    target = checked_target(target, network)
    layers, scales = normalised_layers(network)
    sizes = [network.shape[1], *network.widths, network.shape[0]]
    bottom = bottom_of_valley(sizes, layers)
    rank = checked_rank(target, rank, sizes)
    xp = namespace(target)
    with threadpool_limits(1, "blas"):  # threads do not help matrices of a few columns, and wait where cores are shared
        u, s, vt = dense_svd(target, rank)
        active = _active(layers, bottom, xp.matrix_transpose(vt), u)
    right, left = active[0], xp.matrix_transpose(active[-1])
    core = left @ target @ right
    outside = target - active[-1] @ core @ xp.matrix_transpose(right)
    size, missed = number(xp.linalg.vector_norm(target)), number(xp.linalg.vector_norm(outside))
    within = number(xp.linalg.vector_norm(core - ((left @ u) * s) @ (vt @ right)))  # of M - M_r
    tail = math.hypot(within, missed) / size if size else 0.0
    exact = missed <= 100 * float(xp.finfo(target.dtype).eps) * size
    return InvariantSubspaces(
        active, layers, scales, rank, bottom, tail, missed, missed if exact else spectral_norm(outside), exact
    )


def _active(layers: Sequence[Array], bottom: int, right: Array, left: Array) -> tuple[Array, ...]:
    """Bases of the smallest spaces that hold `right` (input side) and `left` (output side) and that the layers keep.

    At the bottom both images fit into 2r dimensions. Away from it, tall layers carry this space along and add what
    they cannot reach of `left` (on the input side, transposed: of `right`).
    """
    xp = namespace(left)
    ahead, behind = [right], [left]
    for layer in layers:
        ahead.append(layer @ ahead[-1])
    for layer in reversed(layers):
        behind.insert(0, xp.matrix_transpose(layer) @ behind[0])
    middle = xp.linalg.qr(xp.concat([ahead[bottom], behind[bottom]], axis=1)).Q
    up, down = [middle], [middle]
    for layer, wanted in zip(layers[bottom:], behind[bottom + 1 :], strict=True):
        up.append(_carried(layer, up[-1], wanted))
    for layer, wanted in zip(reversed(layers[:bottom]), reversed(ahead[:bottom]), strict=True):
        down.append(_carried(xp.matrix_transpose(layer), down[-1], wanted))
    return (*down[:0:-1], *up)


def _carried(tall: Array, basis: Array, wanted: Array) -> Array:
    """Basis ``[tall basis, new]`` of `basis` carried by an isometry and of the part of `wanted` out of its reach."""
    carried = tall @ basis
    if tall.shape[0] == tall.shape[1]:
        return carried
    xp = namespace(tall)

    def beyond(block: Array) -> Array:
        return block - tall @ (xp.matrix_transpose(tall) @ block)

    u, s, _ = xp.linalg.svd(beyond(wanted), full_matrices=False)
    count = int(xp.sum(xp.astype(s > 100 * float(xp.finfo(tall.dtype).eps), xp.int64)))
    # Dividing by small singular values has enlarged their rounding errors, so project again.
    return xp.concat([carried, xp.linalg.qr(beyond(u[:, :count])).Q], axis=1) if count else carried
