"""Errors on held-out entries, and prediction intervals from them that hold whatever the model (split conformal prediction)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, to_host
from dmf.arrays.checks import check_kind, check_option, random_generator
from dmf.errors import ArgumentError, ShapeError
from dmf.observations import Entries, SampledEntries
from dmf.recovery.names import check_order
from dmf.recovery.results import Recovery
from dmf.recovery.values import HeldOut

_QUANTILES = 999  # of the residuals, kept at most: coverages up to 99.9 %


def calibrate(recovery: Recovery, held: Entries) -> Recovery:
    """The recovery, with its errors on entries that it was not fitted to.

    Parameters
    ----------
    recovery : Recovery
    held : Entries
        Entries of the same matrix that `recovery` never saw, as ``observations.split`` holds out. Each counts alike,
        whatever its weight.

    Returns
    -------
    Recovery
        With these errors as its ``heldout``, from which `prediction_interval` follows.

    Raises
    ------
    ArgumentError, ShapeError, ObservationError
        If the recovery is one of implicit feedback, or `held` are no entries, of another matrix shape or order of names, or have
        no times where the recovery holds drift.
    """
    check_kind("held", held, Entries, "Pass SampledEntries, as observations.split holds out.")
    if recovery.weighting is not None:
        raise ArgumentError(
            "the recovery is one of implicit feedback, whose scores are no counts, so that there are no errors. Use "
            "dmf.recovery.ranking.ranking_measures for how well it ranks what was held out.",
            argument="recovery",
        )
    if held.shape != recovery.shape:
        raise ShapeError(
            f"held entries are of a {held.shape} matrix, but the recovery is of a {recovery.shape} one.",
            argument="held",
            value=held.shape,
            limit=recovery.shape,
        )
    check_order(held.form, (recovery.row_ids, recovery.col_ids), "held")
    values = held.product(*recovery.factors())
    if recovery.drift is not None:
        if held.times is None:
            raise ArgumentError(
                "held entries have no times, but the recovery holds drift. Pass SampledEntries with times, or complete entries "
                "without.",
                argument="held",
                value=None,
                limit="times",
            )
        assert isinstance(held, SampledEntries)
        values = recovery.drifted(values, held.rows, held.cols, held.times)
    residuals = held.entries - recovery.predicted(values)
    sizes = np.sort(np.abs(to_host(residuals).astype(np.float64)))
    count = sizes.shape[0]
    # Quantile k of `levels`: the residual that a new one exceeds with probability at most 1 - k / (levels + 1).
    levels = min(count, _QUANTILES)
    at = np.ceil((count + 1) * np.arange(1, levels + 1) / (levels + 1)).astype(int) - 1
    rmse, error = root_mean_square(sizes)
    return replace(recovery, heldout=HeldOut(rmse, error, count, tuple(sizes[at].tolist()), residuals))


def root_mean_square(sizes: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    """Root mean square of numbers, and its standard error by the delta method.

    Parameters
    ----------
    sizes : float64 array, shape (n,)
        Of any size: they are squared, and squared again, in a unit of their own.
    weights : float64 array, shape (n,), optional
        Of mean 1.
    """
    most = float(np.max(np.abs(sizes)))
    if most == 0:
        return 0.0, 0.0
    mean, error = mean_and_error((sizes / most) ** 2, weights)
    return most * math.sqrt(mean), most * error / (2 * math.sqrt(mean))


def mean_and_error(numbers: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    """Mean with weights of mean 1, and its standard error: that of a ratio, as the weights are a sample, too."""
    weights = np.ones(numbers.size) if weights is None else weights
    mean = float(np.mean(weights * numbers))
    return mean, math.sqrt(float(np.mean((weights * (numbers - mean)) ** 2)) / numbers.size)


def half_width(recovery: Recovery, coverage: float = 0.9, timed: bool = False) -> float:
    """Half the width of the intervals of `prediction_interval`, before bounds; `timed`: of predictions for known times."""
    if recovery.drift is not None and not timed:
        raise ArgumentError(
            "the recovery holds drift, and its held-out errors are those of predictions for known times. Pass times (on the "
            "command line --time), or complete entries without.",
            argument="times",
            value=None,
        )
    if recovery.heldout is None:
        raise ArgumentError(
            "the recovery has no errors on held-out entries, which intervals follow from. Hold some out "
            "(complete(..., holdout=0.1), on the command line --holdout), or pass entries that it never saw to `calibrate`.",
            argument="recovery",
        )
    quantiles = recovery.heldout.quantiles
    levels = len(quantiles)
    coverage = check_option("coverage", coverage, strictly=True, hint="Pass a share, such as 0.9.")
    if not 0 < coverage <= levels / (levels + 1):
        raise ArgumentError(
            f"coverage={coverage!r}, but {levels} residuals of held-out entries support 0 < coverage <= "
            f"{levels / (levels + 1):.4g}. Hold more out or ask for less.",
            argument="coverage",
            value=coverage,
            limit=levels / (levels + 1),
        )
    rounding = 1e-9  # of coverage times an integer
    return float(quantiles[max(math.ceil(coverage * (levels + 1) - rounding), 1) - 1])


def check_coverage(residuals: Array, coverages: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Shares of residuals within intervals that they had no part in: calibrated on a random half, checked on the other.

    Parameters
    ----------
    residuals : array, shape (n,)
        Of entries held out.
    coverages : array, shape (k,)
        Shares claimed, between 0 and 1. A half that is too small for one is all within it.
    seed : int
        Of the halves.

    Returns
    -------
    shares, standard_errors : arrays, shape (k,)
        The errors are those that a share has by chance, where the claim is right.

    Raises
    ------
    ArgumentError
        If there are fewer than 2 residuals.
    """
    sizes = np.abs(to_host(residuals).astype(np.float64))
    if sizes.size < 2:
        raise ArgumentError(
            f"residuals holds {sizes.size} number, but two halves are compared. Hold more entries out.",
            argument="residuals",
            value=sizes.size,
            limit=2,
        )
    sizes = random_generator(seed).permutation(sizes)
    one, other = np.sort(sizes[: sizes.size // 2]), sizes[sizes.size // 2 :]
    places = np.ceil((one.size + 1) * coverages).astype(int)
    reach = np.append(one, np.inf)[np.clip(places, 1, one.size + 1) - 1]
    shares = np.mean(other[:, None] <= reach, axis=0)
    return shares, np.sqrt(coverages * (1 - coverages) * (1 / (one.size + 2) + 1 / other.size))


def prediction_interval(
    recovery: Recovery, rows: Array, cols: Array, coverage: float = 0.9, times: Any = None
) -> tuple[Array, Array]:
    """Intervals that hold the entries at (rows, cols).

    An interval reaches as far as a share `coverage` of the held-out residuals, on both sides of the prediction, but not
    beyond the bounds of the recovery. It holds a new entry with a probability of at least `coverage`, and of hardly more, if
    the new entry and the held-out ones are drawn alike; nothing is assumed about the noise or the model. The probability is
    one over all entries: those of rows seldom seen are missed more often. After ``complete(..., holdout=...)`` the residuals
    are of a fit without the held-out entries, and the predictions of one with them, so that intervals are a little wide.

    Parameters
    ----------
    recovery : Recovery
        From `calibrate`, or from `complete` with a hold-out.
    rows, cols : integer arrays, shape (n,)
    coverage : float, 0 < coverage <= n / (n + 1) for n held-out entries, at most 0.999
    times : array, shape (n,), optional
        As in `Recovery.predict`; needed where the recovery holds drift.

    Returns
    -------
    low, high : arrays, shape (n,)

    Raises
    ------
    ArgumentError
        If the recovery is not calibrated, the held-out entries are too few for this coverage, or times are missing.

    References
    ----------
    .. [1] Gui, Barber, Ma, Conformalized matrix completion, NeurIPS 2023 (arXiv 2305.10637).
    """
    return interval_around(recovery, recovery.predict(rows, cols, times), coverage, times is not None)


def interval_around(
    recovery: Recovery, predicted: Array, coverage: float = 0.9, timed: bool = False
) -> tuple[Array, Array]:
    """`prediction_interval` for predictions (n,) that are there already; `timed`: for known times."""
    half = half_width(recovery, coverage, timed)
    return recovery.bounded(predicted - half), recovery.bounded(predicted + half)
