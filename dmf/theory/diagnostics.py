"""Diagnostics of networks along a run: spectra, alignment with the target, effective rank, stray energy.

For a compressed network nothing of size d1 x d2 is formed: a product of narrow factors is decomposed by two QR
factorisations and one small singular value decomposition, O((d1 + d2) w^2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, namespace, number, to_host
from dmf.arrays.checks import positive_integer
from dmf.arrays.linalg import conjugate_transpose, dense_svd
from dmf.errors import ArgumentError, ShapeError
from dmf.models import DeepLinearNetwork
from dmf.theory.subspaces import InvariantSubspaces

Factors = tuple[Array, Array, Array]


def product_svd(left: Array, right: Array, rank: int) -> Factors:
    """Top singular triplets of ``left @ right``.

    Parameters
    ----------
    left : array, shape (d1, w)
    right : array, shape (w, d2)
    rank : int, 1 <= rank <= min(d1, d2)
        Triplets beyond w have the singular value 0 and are left out.

    Returns
    -------
    U (d1, k), s (k,) descending, V^T (k, d2), with k = min(rank, w, d1, d2)
    """
    xp = namespace(left, right)
    width = left.shape[1]
    if width >= min(left.shape[0], right.shape[1]):
        return dense_svd(left @ right, min(rank, left.shape[0], right.shape[1]))
    q1, r1 = xp.linalg.qr(left)
    q2, r2 = xp.linalg.qr(xp.matrix_transpose(right))
    u, s, vt = xp.linalg.svd(r1 @ xp.matrix_transpose(r2), full_matrices=False)
    k = min(rank, width)
    return q1 @ u[:, :k], s[:k], vt[:k, :] @ xp.matrix_transpose(q2)


def principal_angles(first: Array, second: Array) -> np.ndarray:
    """Principal angles between two subspaces, in radians.

    Small angles come from sines, large ones from cosines, so that both are accurate.

    Parameters
    ----------
    first, second : arrays, shapes (d, j) and (d, k)
        Orthonormal columns.

    Returns
    -------
    float64 array, shape (min(j, k),), ascending

    Raises
    ------
    ShapeError
        If they are not two matrices with one number of rows.

    References
    ----------
    .. [1] Knyazev, Argentati, SIAM J. Sci. Comput. 23 (2002), algorithm 3.1.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[0] != second.shape[0]:
        raise ShapeError(
            f"first and second have shapes {tuple(first.shape)} and {tuple(second.shape)}, but they are bases (d, j) and "
            "(d, k) of subspaces of one space.",
            argument="first, second",
            value=(tuple(first.shape), tuple(second.shape)),
        )
    if first.shape[1] < second.shape[1]:
        first, second = second, first
    xp = namespace(first, second)
    core = conjugate_transpose(first) @ second
    cosines = np.clip(to_host(xp.linalg.svdvals(core)).astype(float), 0, 1)
    sines = np.clip(np.sort(to_host(xp.linalg.svdvals(second - first @ core)).astype(float)), 0, 1)
    return np.where(cosines**2 < 0.5, np.arccos(cosines), np.arcsin(sines))


def effective_rank(values: Array) -> float:
    """Exponential of the entropy of singular values: k for k equal ones, 0 if all vanish.

    Parameters
    ----------
    values : array, shape (n,), >= 0
        Singular values.

    Returns
    -------
    float, from 0 to n

    References
    ----------
    .. [1] Roy, Vetterli, EUSIPCO 2007.
    """
    weights = to_host(values).astype(float)
    total = weights.sum()
    if total == 0:
        return 0.0
    shares = weights[weights > 0] / total
    return float(np.exp(-np.sum(shares * np.log(shares))))


class Diagnostics:
    """Callback: spectrum of the end-to-end matrix and, against a target, alignment and error.

    Returns for each recorded iteration

    - "singular_values" (count,), descending; 0 beyond the width;
    - "effective_rank", of these values;
    - "layer_singular_values" (L, count), if `layers`; 0 beyond the size of a layer;
    - with a target of rank r, "error" ``||W - M||_F / ||M||_F``; "left_alignment" and "right_alignment" (r,): of each
      singular vector of the target the norm of its projection on the top r singular vectors of W; "left_overlap" and
      "right_overlap" (r,): ``|<u_i, u_i(M)>|``, vector by vector; "left_angles" and "right_angles" (r,): principal angles
      between the top r subspaces in radians, ascending;
    - "left_vectors" (d1, count) and "right_vectors" (d2, count), if `vectors`; zeros beyond the width.

    Parameters
    ----------
    count : int, >= 1, optional
        Number of singular values; r, or without a target 10, at most min(d1, d2), unless given.
    target : (U, s, V^T) or (left, right), optional
        The target by its r top singular triplets, shapes (d1, r), (r,), (r, d2), or as a product of factors.
    layers, vectors : bool
    """

    def __init__(
        self,
        count: int | None = None,
        target: Sequence[Array] | None = None,
        *,
        layers: bool = False,
        vectors: bool = False,
    ) -> None:
        self._count = None if count is None else positive_integer(count, "count")
        self._target: Factors | None = None
        if target is not None:
            parts = tuple(target)
            if len(parts) == 2:
                left, right = parts
                parts = product_svd(left, right, min(left.shape[1], left.shape[0], right.shape[1]))
            if len(parts) != 3:
                raise ArgumentError(
                    f"target has {len(parts)} parts, but it is a triple (U, s, V^T) or a pair of factors (left, right).",
                    argument="target",
                    value=len(parts),
                    limit=(2, 3),
                )
            self._target = parts
        self._layers, self._vectors = layers, vectors

    def __call__(self, snapshot: Any) -> Mapping[str, Any]:
        """Diagnostics of ``snapshot.network``."""
        return self.measure(snapshot.network)

    def measure(self, network: DeepLinearNetwork) -> dict[str, Any]:
        """Diagnostics of a network."""
        rank = 0 if self._target is None else self._target[1].shape[0]
        count = min(self._count or rank or 10, *network.shape)
        left, right = network.factors()
        u, s, vt = product_svd(left, right, max(count, rank))
        values = _padded(to_host(s), count)
        result: dict[str, Any] = {"singular_values": values, "effective_rank": effective_rank(values)}
        if self._layers:
            xp = namespace(*network.weights)
            spectra = [to_host(xp.linalg.svdvals(w)) for w in network.weights]
            result["layer_singular_values"] = np.stack([_padded(spectrum, count) for spectrum in spectra])
        if self._target is not None:
            result.update(self._against_target(left, right, u, vt))
        if self._vectors:
            result["left_vectors"] = _padded(to_host(u), count)
            result["right_vectors"] = _padded(to_host(vt).T, count)
        return result

    def _against_target(self, left, right, u, vt) -> dict[str, Any]:
        assert self._target is not None
        target_u, target_s, target_vt = self._target
        rank = target_s.shape[0]
        xp = namespace(left, target_u)
        difference = _norm(xp.concat([left, -(target_u * target_s)], axis=1), xp.concat([right, target_vt], axis=0))
        result: dict[str, Any] = {"error": difference / number(xp.linalg.vector_norm(target_s))}
        sides = {
            "left": (u[:, :rank], target_u),
            "right": (conjugate_transpose(vt[:rank, :]), conjugate_transpose(target_vt)),
        }
        for side, (vectors, wanted) in sides.items():
            cosines = np.abs(to_host(conjugate_transpose(vectors) @ wanted)).astype(float)
            result[f"{side}_alignment"] = np.linalg.norm(cosines, axis=0)
            result[f"{side}_overlap"] = _padded(np.diagonal(cosines), rank)
            angles = principal_angles(vectors, wanted)
            result[f"{side}_angles"] = np.concatenate([angles, np.full(rank - len(angles), np.pi / 2)])
        return result


def energy_outside(update: Array, left: Array, right: Array) -> float:
    """Share of a matrix outside of a pair of subspaces: ``||D - P D Q||_F^2 / ||D||_F^2``.

    Parameters
    ----------
    update : array, shape (d1, d2)
        D.
    left, right : arrays, shapes (d1, j) and (d2, k)
        Orthonormal columns; P and Q project on their spans.

    Returns
    -------
    float, from 0 to 1
        0 for a matrix of zeros.
    """
    xp = namespace(update, left, right)
    total = number(xp.linalg.vector_norm(update))
    if total == 0:
        return 0.0
    rest = update - left @ (conjugate_transpose(left) @ update @ right) @ conjugate_transpose(right)
    return (number(xp.linalg.vector_norm(rest)) / total) ** 2


class EnergyOutside:
    """Callback: share of each layer's update outside the subspace in which the theorem lets it move.

    Returns "energy_outside", float64 array (L,): ``||D - P D Q||_F^2 / ||D||_F^2`` for the update ``D = W_l(t) - W_l(0)``
    less its predicted passive part ``(rho_l(t) - eps_l) V_{l+1,2} V_{l,2}^T``, with P and Q the projections on V_{l+1,1} and
    V_{l,1} (and less the decay of the frozen part, if any). 0 up to rounding for full observation; for completion and
    sensing it measures how far they are from that. 0 for an update that is nothing but rounding.

    Parameters
    ----------
    subspaces : InvariantSubspaces
    step_size, outer_scale, weight_decay, reduction
        Of the descent, for the recursion of rho.
    """

    def __init__(
        self,
        subspaces: InvariantSubspaces,
        step_size: float,
        outer_scale: float = 1.0,
        weight_decay: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        self._subspaces = subspaces
        self._rates, self._shrink = subspaces.coefficients(step_size, outer_scale, weight_decay, reduction)

    def __call__(self, snapshot: Any) -> Mapping[str, np.ndarray]:
        """Shares of ``snapshot.network`` at ``snapshot.iteration``."""
        s = self._subspaces
        rho = s.rho_at(np.array([snapshot.iteration]), self._rates, self._shrink)[-1].tolist()
        xp = namespace(*s.layers)
        shares = []
        for k, weight in enumerate(snapshot.network.weights):
            eps = float(s.scales[k])
            update = weight - eps * s.layers[k] - (rho[k] - eps) * s.passive_maps[k]
            if s.frozen_maps is not None:
                update = update - eps * (self._shrink**snapshot.iteration - 1) * s.frozen_maps[k]
            rounding = 100 * float(xp.finfo(weight.dtype).eps) * number(xp.linalg.vector_norm(weight))
            moved = number(xp.linalg.vector_norm(update)) > rounding
            shares.append(energy_outside(update, s.active[k + 1], s.active[k]) if moved else 0.0)
        return {"energy_outside": np.array(shares)}


def combined(*callbacks: Callable[[Any], Mapping[str, Any] | None]) -> Callable[[Any], dict[str, Any]]:
    """One callback that calls several and returns all of their columns.

    Parameters
    ----------
    *callbacks : callables
        As of a solver.

    Returns
    -------
    callable
        Maps a snapshot to the columns of all of them.

    Raises
    ------
    ArgumentError
        When called, if two of them return the same name.
    """

    def call(snapshot: Any) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for callback in callbacks:
            found = callback(snapshot) or {}
            twice = sorted(result.keys() & found.keys())
            if twice:
                raise ArgumentError(
                    f"two callbacks return {', '.join(twice)}, but a column has one meaning. Drop one of them.",
                    argument="callbacks",
                    value=twice,
                )
            result.update(found)
        return result

    return call


def _norm(left: Array, right: Array) -> float:
    """||left @ right||_F without cancellation, by QR of narrow factors."""
    xp = namespace(left, right)
    if left.shape[1] >= min(left.shape[0], right.shape[1]):
        return number(xp.linalg.vector_norm(left @ right))
    core = xp.linalg.qr(left).R @ xp.matrix_transpose(xp.linalg.qr(xp.matrix_transpose(right)).R)
    return number(xp.linalg.vector_norm(core))


def _padded(array: np.ndarray, count: int) -> np.ndarray:
    """The first `count` numbers along the last axis, as float64, zeros where there are fewer."""
    kept = array[..., :count].astype(float)
    return np.pad(kept, [(0, 0)] * (array.ndim - 1) + [(0, count - kept.shape[-1])])
