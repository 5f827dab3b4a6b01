"""Held-out errors and conformal intervals."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.recovery import Plan
from dmf.recovery.intervals import check_coverage, half_width
from dmf.solvers import Outcome

from helpers import examples


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


@examples(12)
@given(st.integers(1, 40), st.floats(0.01, 0.999))
def test_the_half_width_is_the_conformal_order_statistic(count, coverage):
    """The ceil((n + 1) coverage)-th smallest of n residuals; more coverage than n supports is an error."""
    recovery, held, _ = recovered()
    some = dmf.SampledEntries(held.rows[:count], held.cols[:count], held.values[:count], held.shape)
    calibrated = dmf.calibrate(recovery, some)
    sizes = np.sort(np.abs(recovery.predict(some.rows, some.cols) - some.values))
    place = int(np.ceil((count + 1) * coverage - 1e-9))
    if place > count:
        with pytest.raises(dmf.errors.ArgumentError, match="coverage") as caught:
            half_width(calibrated, coverage)
        assert caught.value.limit == count / (count + 1)
    else:
        assert half_width(calibrated, coverage) == sizes[place - 1]


def test_errors_on_held_out_entries(tmp_path):
    recovery, held, _ = recovered()
    calibrated = dmf.calibrate(recovery, held)
    residual = recovery.predict(held.rows, held.cols) - held.values
    np.testing.assert_allclose(calibrated.heldout.rmse, np.sqrt(np.mean(residual**2)))
    assert calibrated.heldout.count == residual.size
    calibrated.save(tmp_path / "model.npz")
    assert half_width(dmf.load(tmp_path / "model.npz")) == half_width(calibrated)
    with pytest.raises(dmf.errors.ArgumentError, match="calibrate"):
        half_width(recovery)
    with pytest.raises(dmf.errors.ShapeError):
        dmf.calibrate(recovery, dmf.SampledEntries([0], [0], [1.0], (3, 3)))


@pytest.mark.parametrize("coverage", [0.0, -1.0, 1.0, float("nan")])
def test_bad_coverage(coverage):
    recovery, held, _ = recovered()
    with pytest.raises(dmf.errors.ArgumentError, match="coverage"):
        half_width(dmf.calibrate(recovery, held), coverage)


def test_complete_with_a_hold_out_fits_all_entries_and_keeps_the_errors_of_a_fit_without():
    """The recovery is that of `complete` without a hold-out; its errors are what calibrating by hand gives."""
    _, held, others = recovered()
    entries = dmf.SampledEntries(
        *(np.concatenate([getattr(part, name) for part in (held, others)]) for name in ("rows", "cols", "values")),
        held.shape,
    )
    found = dmf.complete(entries, 2, holdout=0.2, seed=3)
    np.testing.assert_array_equal(found.product(), dmf.complete(entries, 2, seed=3).product())
    assert found.observations is entries
    kept, out = entries.split(0.2, 3)
    by_hand = dmf.calibrate(dmf.complete(kept, 2, seed=3), out)
    np.testing.assert_array_equal(found.heldout.residuals, by_hand.heldout.residuals)
    for name in ("rmse", "standard_error", "count", "quantiles"):
        assert getattr(found.heldout, name) == getattr(by_hand.heldout, name)


def test_intervals_of_the_fit_to_all_entries_cover_too():
    """As those without a refit do, up to 4 standard errors, and never less: the fit to all knows more."""
    shares = []
    for seed in range(20):
        _, held, others = recovered(seed)
        found = dmf.complete(held, 2, offsets=False, holdout=0.3, seed=seed)
        low, high = dmf.prediction_interval(found, others.rows, others.cols, 0.9)
        shares.append(np.mean((low <= others.values) & (others.values <= high)))
    assert np.mean(shares) >= 0.9 - 4 * np.sqrt(0.09 * (1 / 270 + 1 / 900) / 20)


@pytest.mark.parametrize("at", [1, 2])
def test_a_hold_out_that_is_broken_off_returns_the_first_fit(at):
    """Ended by the callback in the first fit, or in the second."""
    _, held, _ = recovered()
    kept, _ = held.split(0.2)
    starts = 0

    def callback(snapshot):
        nonlocal starts
        starts += snapshot.iteration == 0 and snapshot.stage == "noise"
        if starts == at and snapshot.iteration == 2:
            raise StopIteration

    found = dmf.complete(held, 2, offsets=False, holdout=0.2, callback=callback)
    assert found.observations is held and found.outcome is Outcome.STOPPED
    assert found.heldout.count == held.n_measurements - kept.n_measurements
    if at == 2:
        np.testing.assert_array_equal(found.product(), dmf.complete(kept, 2, offsets=False).product())


def test_intervals_end_at_the_bounds():
    recovery, held, others = recovered()
    whole = dmf.calibrate(recovery, held)
    cut = dmf.calibrate(replace(recovery, settings=Plan(bounds=(-1.0, 1.5))), held)
    assert cut.heldout.rmse != whole.heldout.rmse  # of what it predicts
    low, high = dmf.prediction_interval(cut, others.rows, others.cols)
    centre, half = np.clip(recovery.predict(others.rows, others.cols), -1, 1.5), half_width(cut)
    np.testing.assert_array_equal(low, np.clip(centre - half, -1, 1.5))
    np.testing.assert_array_equal(high, np.clip(centre + half, -1, 1.5))


@examples(12)
@given(st.integers(2, 300), st.integers(0, 9))
def test_coverage_is_checked_on_the_half_that_did_not_calibrate(count, seed):
    """Against the definition, for residuals all different: the smallest interval of conformal prediction, counted."""
    residuals = np.random.default_rng(seed).standard_normal(count)
    claimed = np.array([0.1, 0.5, 0.9, 0.99])
    shares, errors = check_coverage(residuals, claimed, seed)
    sizes = np.random.default_rng(seed).permutation(np.abs(residuals))
    one, other = np.sort(sizes[: count // 2]), sizes[count // 2 :]
    for share, error, claim in zip(shares, errors, claimed, strict=True):
        inside = [size for size in other if np.sum(one < size) < int(np.ceil((len(one) + 1) * claim))]
        assert share == pytest.approx(len(inside) / len(other))
        assert 0 < error < 1
    with pytest.raises(dmf.errors.ArgumentError, match="two halves"):
        check_coverage(residuals[:1], claimed)
