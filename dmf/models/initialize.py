"""Starts: the original wide network, narrow ones, and the compressed network in the singular subspaces of the data."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, device, from_host, is_complex, namespace
from dmf.arrays.checks import check_choice, check_option, positive_integer, random_generator
from dmf.arrays.linalg import identity
from dmf.errors import ArgumentError
from dmf.models.deep_linear import DeepLinearNetwork
from dmf.observations.checks import check_rank

DISTRIBUTIONS = ("orthogonal", "normal", "uniform")


def orthogonal_network(
    shape: tuple[int, int],
    depth: int = 3,
    scale: float = 1e-2,
    width: int | None = None,
    distribution: str = "orthogonal",
    seed: int = 0,
    like: Array | None = None,
    residual: bool = False,
) -> DeepLinearNetwork:
    """Start a network with random layers: the paper's original network, or with a small `width` the narrow one.

    Parameters
    ----------
    shape : (int, int)
        (d1, d2) of the end-to-end matrix.
    depth : int, >= 1
        Number L of layers.
    scale : float, > 0
        Every layer is `scale` times a random (semi-)orthogonal matrix, in units of X to the power 1/L.
    width : int, >= 1, optional
        Inner width; max(d1, d2) unless given.
    distribution : {"orthogonal", "normal", "uniform"}
        "orthogonal": uniform (Haar) over semi-orthogonal matrices; "normal" and "uniform": independent entries, scaled so
        that the expected squared Frobenius norm is that of the orthogonal layer.
    seed : int
    like : array, optional
        The layers get its library, dtype and device; NumPy float64 unless given. Of a complex dtype they are (semi-)unitary, or
        their real and imaginary parts independent.
    residual : bool
        Add the identity to each layer (of rectangular ones, ones on the diagonal): a deep linear residual network, whose layers
        ``I + A_l`` have the random A_l as branches. The gradient of a layer is that of its branch, so that nothing else changes
        in descent, but for weight decay, which shrinks the layer.

    Returns
    -------
    DeepLinearNetwork

    Raises
    ------
    ArgumentError
        If an argument is out of range.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), section 2 and the ablations.
    .. [2] Hardt, Ma, ICLR 2017 (arXiv 1611.04231), section 2 (residual layers).
    """
    check_choice("distribution", distribution, DISTRIBUTIONS)
    check_depth_and_scale(depth, scale)
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        raise ArgumentError(
            f"shape={shape!r}, but a matrix has two dimensions. Pass (rows, columns).",
            argument="shape",
            value=shape,
            limit=2,
        )
    d1, d2 = (positive_integer(n, "shape") for n in shape)
    inner = max(d1, d2) if width is None else positive_integer(width, "width")
    sizes = [d2, *[inner] * (depth - 1), d1]
    generator = random_generator(seed)
    layers = []
    for columns, rows in zip(sizes, sizes[1:], strict=False):
        layer = scale * _random_layer(rows, columns, distribution, generator, like is not None and is_complex(like))
        if residual:
            layer = layer + np.eye(rows, columns)
        layers.append(layer if like is None else namespace(like).astype(from_host(layer, like), like.dtype))
    return DeepLinearNetwork(layers)


def _random_layer(
    rows: int, columns: int, distribution: str, generator: np.random.Generator, of_complex: bool
) -> np.ndarray:
    def drawn(draw: Callable[..., Any], *shape: int) -> np.ndarray:
        return (draw(size=shape) + 1j * draw(size=shape)) / 2**0.5 if of_complex else draw(size=shape)

    small = min(rows, columns)
    if distribution == "normal":
        return drawn(generator.standard_normal, rows, columns) * np.sqrt(small / (rows * columns))
    if distribution == "uniform":
        return drawn(partial(generator.uniform, -1, 1), rows, columns) * np.sqrt(3 * small / (rows * columns))
    q, r = np.linalg.qr(drawn(generator.standard_normal, max(rows, columns), small))
    diagonal = np.diag(r)
    q *= np.where(diagonal == 0, 1.0, diagonal) / np.where(diagonal == 0, 1.0, np.abs(diagonal))  # makes it uniform
    return q if rows >= columns else q.T.copy()


def spectral_network(
    observations: Any, rank: int, depth: int = 3, scale: float = 1e-2, seed: int = 0, exact: bool = False
) -> DeepLinearNetwork:
    """Start a compressed network in the top singular subspaces of the surrogate ``A^T(y)``.

    Parameters
    ----------
    observations : Observations
        What is known of the (d1, d2) matrix X: the map A and the measurements y, in the units of X.
    rank : int, 1 <= rank <= min(d1, d2)
        Width of the compressed layers; any upper bound on rank(X) will do.
    depth : int, >= 1
        Number L of layers W_1 (rank, d2), L - 2 inner ones (rank, rank), W_L (d1, rank).
    scale : float, > 0
        Scale of each layer, in units of X to the power 1/L, as the product starts at scale**L.
    seed : int
        Seed of the randomised singular value decomposition.
    exact : bool
        Take the singular vectors to rounding, at the cost of a singular value decomposition of a dense d1 x d2 matrix. The
        randomised ones miss where singular values around the cut are close together: with 30, 10 and 5 % of the entries of a
        matrix of rank 5 seen, the largest principal angle between both subspaces was 3e-4 (d = 100, rank 10), 0.02 (d = 300,
        rank 10) and 0.3 (d = 1,000, rank 20).

    Returns
    -------
    DeepLinearNetwork
        W_L = scale U, inner layers scale I, W_1 = scale V^T, in the library, dtype and device of the observations.

    Raises
    ------
    RankError, ArgumentError
        If an argument is out of range.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), section 3.
    """
    check_depth_and_scale(depth, scale)
    scale = float(scale)  # a NumPy number would change the dtype
    u, s, vt = _surrogate_triplets(observations, rank) if exact else observations.surrogate_svd(rank, seed)
    unit = balanced_network(u, 0 * s + 1, vt, depth)
    return DeepLinearNetwork(scale * w for w in unit.weights)  # scale**depth may be below the smallest number


def _surrogate_triplets(observations: Any, rank: int) -> tuple[Array, Array, Array]:
    """Top singular triplets of the surrogate, up to its scale, to rounding."""
    check_rank(rank, observations.shape)
    d1, d2 = observations.shape
    like = observations.like
    xp = namespace(like)
    some = xp.zeros((d1, d2), dtype=like.dtype, device=device(like))
    surrogate, _ = observations.adjoint(observations.values, some, identity(d2, like))
    u, s, vt = xp.linalg.svd(surrogate, full_matrices=False)
    return u[:, :rank], s[:rank], vt[:rank, :]


def balanced_network(u: Array, s: Array, vt: Array, depth: int, balance: float = 0.0) -> DeepLinearNetwork:
    """Network with product ``u diag(s) vt`` whose layers share each singular value equally: ``s^(1/L)`` in every layer.

    Of two layers, also one whose layers share it unequally, which learns lazily the larger `balance` is.

    Parameters
    ----------
    u : array, shape (d1, r)
        Orthonormal columns.
    s : array, shape (r,)
        Not negative.
    vt : array, shape (r, d2)
        Orthonormal rows.
    depth : int, >= 1
    balance : float
        lambda in ``W_2^T W_2 - W_1 W_1^T = lambda I``, which gradient flow conserves; 0 unless the depth is 2.

    Raises
    ------
    ArgumentError
        If `balance` is not 0 at another depth, or not finite.

    References
    ----------
    .. [1] Domine et al., ICLR 2025 (arXiv 2409.14623): lambda-balanced initialisation.
    """
    if balance:
        if depth != 2 or not math.isfinite(balance):
            raise ArgumentError(
                f"balance={balance!r} with depth={depth}, but it is a finite number for networks of two layers. Pass depth=2, or "
                "balance=0.",
                argument="balance",
                value=balance,
                limit=0,
            )
        xp = namespace(s)
        half = 0.5 * balance
        large = xp.sqrt(abs(half) + xp.sqrt(half * half + s * s))
        upper, lower = (large, s / large) if balance > 0 else (s / large, large)
        return DeepLinearNetwork([lower[:, None] * vt, u * upper])
    roots = s ** (1.0 / depth)
    if depth == 1:
        return DeepLinearNetwork([(u * roots) @ vt])
    inner = identity(s.shape[0], u) * roots
    return DeepLinearNetwork([roots[:, None] * vt, *[inner] * (depth - 2), u * roots])


def check_depth_and_scale(depth: int, scale: float) -> None:
    """Raise ArgumentError unless depth is an integer of at least 1 and 0 < scale < infinity."""
    positive_integer(depth, "depth")
    check_option(
        "scale", scale, strictly=True, hint="A network of zeros never moves: pass the default, or a small number."
    )
