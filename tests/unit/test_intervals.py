"""Held-out errors and conformal intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dmf
from dmf.intervals import half_width


def recovered(seed=0, noise=0.3, size=60):
    """A recovery from noisy entries, entries for calibration, and others."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((size, 2)) @ rng.standard_normal((2, size)) + noise * rng.standard_t(4, (size, size))
    rows, cols = np.divmod(rng.permutation(size * size), size)
    known = dmf.SampledEntries(rows, cols, matrix[rows, cols], matrix.shape)
    fitted, rest = known.split(0.5, seed)
    held, others = rest.split(0.5, seed + 1)
    return dmf.complete(fitted, 2, offsets=False), held, others


def test_intervals_cover_what_they_claim():
    """Over 40 draws, 36,000 entries: the mean coverage is within 4 standard errors of the claim.

    Given the calibration set of n = 900, coverage c has a standard deviation of sqrt(c (1 - c) / (n + 2)); other entries add
    as much.
    """
    for coverage in (0.5, 0.9, 0.98):
        shares = []
        for seed in range(40):
            recovery, held, others = recovered(seed)
            low, high = dmf.prediction_interval(dmf.calibrate(recovery, held), others.rows, others.cols, coverage)
            shares.append(np.mean((low <= others.values) & (others.values <= high)))
        error = np.sqrt(coverage * (1 - coverage) * 2 / 900 / len(shares))
        assert abs(np.mean(shares) - coverage) <= 4 * error + 1 / 900


@settings(max_examples=30)
@given(st.integers(1, 40), st.floats(0.01, 0.999))
def test_the_half_width_is_the_conformal_order_statistic(count, coverage):
    """The ceil((n + 1) coverage)-th smallest of n residuals; more coverage than n supports is an error."""
    recovery, held, _ = recovered()
    some = dmf.SampledEntries(held.rows[:count], held.cols[:count], held.values[:count], held.shape)
    calibrated = dmf.calibrate(recovery, some)
    sizes = np.sort(np.abs(recovery.predict(some.rows, some.cols) - some.values))
    place = int(np.ceil((count + 1) * coverage - 1e-9))
    if place > count:
        with pytest.raises(dmf.ArgumentError, match="coverage") as caught:
            half_width(calibrated, coverage)
        assert caught.value.limit == count / (count + 1)
    else:
        assert half_width(calibrated, coverage) == sizes[place - 1]


def test_errors_on_held_out_entries(tmp_path):
    recovery, held, _ = recovered()
    calibrated = dmf.calibrate(recovery, held)
    residual = recovery.predict(held.rows, held.cols) - held.values
    np.testing.assert_allclose(calibrated.options["heldout_rmse"], np.sqrt(np.mean(residual**2)))
    assert calibrated.options["n_heldout"] == residual.size
    calibrated.save(tmp_path / "model.npz")
    assert half_width(dmf.load(tmp_path / "model.npz")) == half_width(calibrated)
    with pytest.raises(dmf.ArgumentError, match="calibrate"):
        half_width(recovery)
    with pytest.raises(dmf.ShapeError):
        dmf.calibrate(recovery, dmf.SampledEntries([0], [0], [1.0], (3, 3)))


@pytest.mark.parametrize("coverage", [0.0, -1.0, 1.0, float("nan")])
def test_bad_coverage(coverage):
    recovery, held, _ = recovered()
    with pytest.raises(dmf.ArgumentError, match="coverage"):
        half_width(dmf.calibrate(recovery, held), coverage)
