"""Convolutional layers compressed at ranks that variational Bayes finds.

A kernel K, (out, in, h, w), is factored along its two channel modes (Tucker-2), K = U x C x V^T: a 1 x 1 convolution by V^T into
few channels, an h x w convolution by the core C among these, and a 1 x 1 convolution by U out of them. It is the compressed block
of Kwon et al. (two outer frames, a small core) for tensors. The number of channels between is the number of singular values of
each unfolding that stand out of noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, as_array, floating, from_host, to_host
from dmf.completion.visible_rank import visible_rank
from dmf.errors import ArgumentError, ShapeError
from dmf.observations.checks import check_finite, check_rank

_SWEEPS, _STILL = 50, 1e-12  # of alternating singular value decompositions; relative gain of one that ends them


@dataclass(frozen=True, eq=False)
class CompressedConvolution:
    """Three small kernels in place of one; arrays in the library, dtype and device of the kernel.

    Attributes
    ----------
    outer : array, shape (out, r_out)
        U, orthonormal columns.
    core : array, shape (r_out, r_in, h, w)
        C; with as many axes as the kernel.
    inner : array, shape (in, r_in)
        V, orthonormal columns.
    noise : float
        Root mean square of the kernel less `merged`: what was taken for noise.
    """

    outer: Array
    core: Array
    inner: Array
    noise: float

    @property
    def ranks(self) -> tuple[int, int]:
        """(r_out, r_in)."""
        return self.core.shape[0], self.core.shape[1]

    @property
    def factors(self) -> tuple[Array, Array, Array]:
        """Kernels of the three convolutions, in their order: shapes (r_in, in, 1, 1), that of `core`, (out, r_out, 1, 1)."""
        ones = (1,) * (self.core.ndim - 2)
        inner, outer = to_host(self.inner).T, to_host(self.outer)
        first, last = (np.ascontiguousarray(m).reshape(*m.shape, *ones) for m in (inner, outer))
        return from_host(first, self.core), self.core, from_host(last, self.core)

    @property
    def n_parameters(self) -> int:
        """Numbers in the three kernels."""
        return sum(int(np.prod(array.shape)) for array in (self.outer, self.core, self.inner))

    def merged(self) -> Array:
        """The one kernel that the three stand for, shape (out, in, h, w)."""
        core = np.tensordot(to_host(self.outer), to_host(self.core), (1, 0))
        return from_host(np.moveaxis(np.tensordot(to_host(self.inner), core, (1, 1)), 0, 1), self.core)


def compress_convolution(kernel: Array, rank: Any = "vb") -> CompressedConvolution:
    """Factor the kernel of a convolutional layer into three small ones.

    Parameters
    ----------
    kernel : array, shape (out, in, h, w), or (out, in, ...) for convolutions along any number of axes
        float32 or float64; of a PyTorch layer, ``layer.weight.detach()``.
    rank : "vb" or (int, int)
        (r_out, r_in), numbers of channels between. "vb": of singular values of either unfolding that stand out of noise, by
        variational Bayes; 1 if none does.

    Returns
    -------
    CompressedConvolution
        ``factors`` are the kernels to use: strides and paddings belong to the second.

    Raises
    ------
    ArgumentError, RankError, ShapeError, DTypeError, ObservationError
        If the kernel has fewer than 3 axes or is not finite, or ranks are out of range.

    References
    ----------
    .. [1] Hernandez et al., arXiv 2408.16289 (variational Bayes ranks of convolutional layers).
    .. [2] Kim et al., ICLR 2016 (arXiv 1511.06530) (Tucker-2 of kernels, ranks of the unfoldings).
    .. [3] Nakajima, Sugiyama, Babacan, Tomioka, JMLR 14 (2013), theorems 2 and 3 (the rank).
    .. [4] De Lathauwer, De Moor, Vandewalle, SIAM J. Matrix Anal. Appl. 21 (2000) (higher-order orthogonal iteration).
    """
    kernel = floating(as_array(kernel, "kernel"), "kernel")
    if kernel.ndim < 3 or min(kernel.shape) < 1:
        raise ShapeError(
            f"kernel has shape {tuple(kernel.shape)}, but that of a convolution is (out, in, h, w). A matrix is factored by "
            "dmf.factorize.",
            argument="kernel",
            value=tuple(kernel.shape),
            limit=3,
        )
    check_finite(kernel, "kernel")
    host = to_host(kernel)
    ranks = _checked_ranks(host, rank)
    inner = _frame(host, 1, ranks[1])
    last = np.inf
    for _ in range(_SWEEPS):  # each frame in turn is the best for the other
        outer = _frame(np.tensordot(host, inner, (1, 0)), 0, ranks[0])
        inner = _frame(np.tensordot(host, outer, (0, 0)), 0, ranks[1])
        core = np.moveaxis(np.tensordot(np.tensordot(host, outer, (0, 0)), inner, (0, 0)), (-2, -1), (0, 1))
        rest = float(np.sum(host.astype(float) ** 2) - np.sum(core.astype(float) ** 2))
        if not rest < (1 - _STILL) * last:
            break
        last = rest
    outer, core, inner = (from_host(np.ascontiguousarray(a), kernel) for a in (outer, core, inner))
    return CompressedConvolution(outer, core, inner, float(np.sqrt(max(rest, 0.0) / host.size)))


def _checked_ranks(kernel: np.ndarray, rank: Any) -> tuple[int, int]:
    most = kernel.shape[0], kernel.shape[1]
    if isinstance(rank, str) and rank == "vb":
        found = []
        for mode in (0, 1):
            unfolding = _unfolded(kernel, mode)
            values = np.linalg.svd(unfolding, compute_uv=False)
            found.append(max(visible_rank(values, (unfolding.shape[0], unfolding.shape[1]))[0], 1))
    elif isinstance(rank, (tuple, list)) and len(rank) == 2:
        found = [check_rank(r, (size, kernel.size // size)) for r, size in zip(rank, most, strict=True)]
    else:
        raise ArgumentError(
            f'rank={rank!r}, but it is "vb" or a pair (r_out, r_in).', argument="rank", value=rank, limit=("vb", most)
        )
    # A core (r_out, r_in, ...) has no more independent slices along one axis than numbers in each along the others.
    window = kernel.size // (most[0] * most[1])
    return min(found[0], found[1] * window), min(found[1], found[0] * window)


def _unfolded(tensor: np.ndarray, mode: int) -> np.ndarray:
    """Matrix with the axis `mode` along its rows."""
    return np.moveaxis(tensor, mode, 0).reshape(tensor.shape[mode], -1)


def _frame(tensor: np.ndarray, mode: int, rank: int) -> np.ndarray:
    """Top left singular vectors of an unfolding."""
    return np.linalg.svd(_unfolded(tensor, mode), full_matrices=False)[0][:, :rank]
