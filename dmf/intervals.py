"""Errors on held-out entries, and prediction intervals from them that hold whatever the model (split conformal prediction)."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from dmf.backend import Array, to_host
from dmf.errors import ArgumentError, ShapeError
from dmf.observations import SampledEntries
from dmf.results import Recovery

_MOST = 999  # order statistics kept: coverages up to 99.9 %


def calibrate(recovery: Recovery, held: SampledEntries) -> Recovery:
    """The recovery, with its errors on entries that it was not fitted to.

    Parameters
    ----------
    recovery : Recovery
    held : SampledEntries
        Entries of the same matrix that `recovery` never saw, as ``observations.split`` holds out.

    Returns
    -------
    Recovery
        Its ``options`` also hold "heldout_rmse", "heldout_standard_error" (by the delta method), "n_heldout", and
        "residual_quantiles", from which `prediction_interval` follows; all are saved in model files.

    Raises
    ------
    ShapeError
        If `held` is of another matrix shape.
    """
    if held.shape != recovery.shape:
        raise ShapeError(
            f"held entries are of a {held.shape} matrix, but the recovery is of a {recovery.shape} one.",
            argument="held",
            value=held.shape,
            limit=recovery.shape,
        )
    sizes = np.sort(np.abs(to_host(recovery.predict(held.rows, held.cols) - held.values).astype(np.float64)))
    squares, count = sizes**2, sizes.shape[0]
    rmse = math.sqrt(float(np.mean(squares)))
    # Quantile k of `levels`: the residual that a new one exceeds with probability at most 1 - k / (levels + 1).
    levels = min(count, _MOST)
    at = np.ceil((count + 1) * np.arange(1, levels + 1) / (levels + 1)).astype(int) - 1
    found = {
        "heldout_rmse": rmse,
        "heldout_standard_error": float(np.std(squares) / (2 * max(rmse, 1e-300) * math.sqrt(count))),
        "n_heldout": count,
        "residual_quantiles": sizes[at].tolist(),
    }
    return replace(recovery, options=recovery.options | found)


def half_width(recovery: Recovery, coverage: float = 0.9) -> float:
    """Half the width of the intervals of `prediction_interval`."""
    quantiles = recovery.options.get("residual_quantiles")
    if not quantiles:
        raise ArgumentError(
            "the recovery has no errors on held-out entries, which intervals follow from. Fit to a part of the entries "
            "(observations.split) and pass the rest to `calibrate`; on the command line --holdout does it.",
            argument="recovery",
        )
    levels = len(quantiles)
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


def prediction_interval(recovery: Recovery, rows: Array, cols: Array, coverage: float = 0.9) -> tuple[Array, Array]:
    """Intervals that hold the entries at (rows, cols).

    An interval holds a new entry with a probability of at least `coverage`, and of hardly more, if the new entry and the
    held-out ones are drawn alike; nothing is assumed about the noise or the model. The probability is one over all
    entries: those of rows seldom seen are missed more often.

    Parameters
    ----------
    recovery : Recovery
        From `calibrate`.
    rows, cols : integer arrays, shape (n,)
    coverage : float, 0 < coverage <= n / (n + 1) for n held-out entries, at most 0.999

    Returns
    -------
    low, high : arrays, shape (n,)

    Raises
    ------
    ArgumentError
        If the recovery is not calibrated, or the held-out entries are too few for this coverage.

    References
    ----------
    .. [1] Gui, Barber, Ma, Conformalized matrix completion, NeurIPS 2023 (arXiv 2305.10637).
    """
    half = half_width(recovery, coverage)
    predicted = recovery.predict(rows, cols)
    return predicted - half, predicted + half
