"""What the theorems on the original network assume of target and start, checked; errors say what fails and by how much."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dmf.arrays.backend import Array, as_array, floating, namespace, number, to_host
from dmf.arrays.checks import check_kind
from dmf.arrays.linalg import chain_product, gaussian
from dmf.errors import ArgumentError, DTypeError, RankError, ShapeError
from dmf.models import DeepLinearNetwork
from dmf.observations.checks import check_finite, check_rank

_PROBES = 8
_SKETCH = 64  # ranks below this are found without a singular value decomposition of the whole matrix


def checked_target(target: Array, network: DeepLinearNetwork) -> Array:
    """`target` as an array of the shape, dtype, library and device of the network; errors if it is not, or not finite."""
    check_kind("network", network, DeepLinearNetwork, "Pass the wide start, for example orthogonal_network(...).")
    target = floating(as_array(target, "target"), "target")
    namespace(target, network.weights[0])
    if tuple(target.shape) != network.shape:
        raise ShapeError(
            f"target has shape {tuple(target.shape)}, but the network is of shape {network.shape}.",
            argument="target",
            value=tuple(target.shape),
            limit=network.shape,
        )
    if target.dtype != network.dtype:
        raise DTypeError(
            f"target has dtype {target.dtype} and the network {network.dtype}, but one call computes in one dtype. Convert "
            "one of them; a start takes its dtype from orthogonal_network(like=...).",
            argument="target",
            value=str(target.dtype),
            limit=str(network.dtype),
        )
    check_finite(target, "target")
    return target


def normalised_layers(network: DeepLinearNetwork) -> tuple[tuple[Array, ...], np.ndarray]:
    """Q_l and eps_l of a start ``eps_l Q_l``; ArgumentError unless every Q_l is semi-orthogonal."""
    xp = namespace(*network.weights)
    layers, scales = [], []
    limit = 1e4 * float(xp.finfo(network.dtype).eps)
    for k, weight in enumerate(network.weights, start=1):
        small = min(weight.shape)
        scale = number(xp.linalg.vector_norm(weight)) / small**0.5
        layer = weight / scale if scale > 0 else weight
        # ||(Q^T Q - I) x|| for random x has the Frobenius norm as its root mean square: no product of d x d matrices.
        probes = gaussian((small, _PROBES), k, weight)
        tall = layer if weight.shape[0] >= weight.shape[1] else xp.matrix_transpose(layer)
        residual = xp.matrix_transpose(tall) @ (tall @ probes) - probes
        defect = number(xp.linalg.vector_norm(residual)) / (_PROBES * small) ** 0.5
        if not defect <= limit:
            raise ArgumentError(
                f"W_{k} = eps Q with ||Q^T Q - I||_F / sqrt({small}) = {defect:.2g} at its best scale eps = {scale:.3g}, but the "
                f"claim needs a start with (semi-)orthogonal layers: at most {limit:.1g} in {network.dtype}. Start from "
                'orthogonal_network(..., distribution="orthogonal").',
                argument="network",
                value=defect,
                limit=limit,
            )
        layers.append(layer)
        scales.append(scale)
    return tuple(layers), np.array(scales)


def bottom_of_valley(sizes: Sequence[int], layers: Sequence[Array]) -> int:
    """The l at which n_l is least; ArgumentError if the sizes n_0, ..., n_L rise and then fall."""
    rises = [b > a for a, b in zip(sizes, sizes[1:], strict=False)]
    falls = [b < a for a, b in zip(sizes, sizes[1:], strict=False)]
    if True in rises and True in falls[rises.index(True) :]:
        xp = namespace(*layers)
        values = to_host(xp.linalg.svdvals(chain_product(layers[::-1])))
        defect = float(np.max(np.minimum(values, np.abs(1 - values))))
        raise ArgumentError(
            f"the sizes (d2, w_1, ..., d1) = {tuple(sizes)} rise and then fall. The claim needs them to fall first: singular "
            f"values of the start's product are then 0 or its scale, here they are off both by up to {defect:.2g} of it. "
            f"Start from a width of at most max(d1, d2) = {max(sizes[0], sizes[-1])}.",
            argument="network",
            value=defect,
            limit=0,
        )
    return int(np.argmin(sizes))


def checked_rank(target: Array, rank: int | None, sizes: Sequence[int]) -> int:
    """`rank`, or the numerical rank of `target`; RankError unless 2 rank < min(sizes)."""
    given = rank is not None
    rank = numerical_rank(target) if rank is None else rank
    rank = check_rank(rank, (target.shape[0], target.shape[1]))
    if 2 * rank >= min(sizes):
        what = f"rank={rank}" if given else f"the target has numerical rank {rank}"
        raise RankError(
            f"{what}, but descent moves in 2 * rank = {2 * rank} dimensions and the narrowest of the sizes {tuple(sizes)} has "
            f"only {min(sizes)}, so no direction is left over. The claim needs rank <= {(min(sizes) - 1) // 2}"
            + ("." if given else "; for a noisy matrix pass the rank of what is below the noise."),
            argument="rank",
            value=rank,
            limit=(min(sizes) - 1) // 2,
        )
    return rank


def numerical_rank(target: Array) -> int:
    """Number of singular values above the rounding errors of the largest; at least 1."""
    xp = namespace(target)
    eps, core = float(xp.finfo(target.dtype).eps), target
    if min(target.shape) > 4 * _SKETCH:
        basis = xp.linalg.qr(target @ gaussian((target.shape[1], _SKETCH), 0, target)).Q
        sketch = xp.matrix_transpose(basis) @ target
        rest = number(xp.linalg.vector_norm(target - basis @ sketch))
        if rest <= 100 * eps * number(xp.linalg.vector_norm(target)):  # the basis holds all of it
            core = sketch
    values = to_host(xp.linalg.svdvals(core))
    return max(1, int(np.sum(values > max(target.shape) * eps * values[0])))


def spectral_norm(matrix: Array) -> float:
    """Largest singular value to a few per cent: power iteration."""
    xp = namespace(matrix)
    block = gaussian((matrix.shape[1], 1), 0, matrix)
    value = 0.0
    for _ in range(20):
        size = number(xp.linalg.vector_norm(block))
        if size == 0:
            return 0.0
        image = matrix @ (block / size)
        value = number(xp.linalg.vector_norm(image))
        block = xp.matrix_transpose(matrix) @ image
    return value
