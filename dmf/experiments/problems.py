"""Problems of the paper: targets, masks and measurements."""

from __future__ import annotations

import numpy as np

from dmf.observations import LinearMeasurements, SampledEntries


def paper_target(d: int, rank: int, seed: int) -> np.ndarray:
    """Matrix (d, d) of the given rank whose singular values lie evenly in the top half of a Gaussian matrix's spectrum.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), experiments.
    """
    u, s, vt = np.linalg.svd(np.random.default_rng(seed).standard_normal((d, d)))
    chosen = np.arange(0, d / 2, d / (2 * rank)).astype(int)[:rank]
    return (u[:, chosen] * s[chosen]) @ vt[chosen]


def sample_entries(target: np.ndarray, share: float, seed: int) -> tuple[SampledEntries, SampledEntries]:
    """A share of the entries of `target`, drawn without replacement, and the others."""
    order = np.random.default_rng([seed, 1]).permutation(target.size)
    count = round(share * target.size)

    def entries(index):
        rows, cols = np.divmod(index, target.shape[1])
        return SampledEntries(rows, cols, target[rows, cols], target.shape)

    return entries(order[:count]), entries(order[count:])


def gaussian_measurements(target: np.ndarray, count: int, seed: int) -> LinearMeasurements:
    """Inner products of `target` with `count` matrices of independent standard normal entries over `count`."""
    matrices = np.random.default_rng([seed, 2]).standard_normal((count, *target.shape))
    matrices /= count
    return LinearMeasurements(matrices, matrices.reshape(count, -1) @ target.ravel())
