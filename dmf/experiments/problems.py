"""Problems of the paper: targets, masks and measurements."""

from __future__ import annotations

import numpy as np

from dmf.arrays.checks import check_choice
from dmf.observations import LinearMeasurements, SampledEntries

SPECTRA = ("top", "even")


def paper_target(d: int, rank: int, seed: int, spectrum: str = "top") -> np.ndarray:
    """Matrix of the given rank, made of singular triplets of a Gaussian one.

    Parameters
    ----------
    d : int
        Rows and columns.
    rank : int, 1 <= rank <= d
    seed : int
    spectrum : {"top", "even"}
        Which triplets: the `rank` largest, as in the published figures, or as many evenly spaced in the top half of the
        spectrum, as in the code that was published with them. The second takes 1.8 times as many iterations.

    Returns
    -------
    float64 array, shape (d, d)

    Raises
    ------
    ArgumentError
        If `spectrum` is another word.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), experiments.
    """
    check_choice("spectrum", spectrum, SPECTRA)
    u, s, vt = np.linalg.svd(np.random.default_rng(seed).standard_normal((d, d)))
    even = np.arange(0, d / 2, d / (2 * rank)).astype(int)[:rank]
    chosen = np.arange(rank) if spectrum == "top" else even
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
