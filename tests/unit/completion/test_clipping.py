"""Values that were clipped: seen where they pile up at an end of the range, and modelled where that predicts no worse."""

import math
from dataclasses import replace

import numpy as np
import pytest

import dmf
from dmf.completion import calls
from dmf.errors import FileError
from dmf.estimators import DeepMatrixCompletion
from dmf.report import page
from dmf.solvers.clipping import as_recorded, ends_of

SHAPE, NOISE = (150, 100), 0.5


def case(ends, seed=0, spoiled=0.0):
    """Noisy entries of a matrix of rank 2 with offsets, clipped at the ends; a share of them is the upper end by accident."""
    truth, values, seen = recorded(ends, seed, spoiled)
    rows, cols = np.nonzero(seen)
    return np.clip(truth, *ends), ~seen, dmf.SampledEntries(rows, cols, values[rows, cols], SHAPE)


def recorded(ends, seed=0, spoiled=0.0):
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((SHAPE[0], 2)) @ rng.standard_normal((2, SHAPE[1])) + rng.standard_normal((SHAPE[0], 1))
    values = np.clip(truth + NOISE * rng.standard_normal(SHAPE), *ends)
    values[rng.random(SHAPE) < spoiled] = ends[1]
    return truth, values, rng.random(SHAPE) < 0.4


@pytest.fixture(scope="module")
def clipped():
    truth, unseen, entries = case((-1.5, 2.0))
    return truth, unseen, entries, dmf.complete(entries, offsets=True)


def test_clipped_values_are_seen_and_predicted_better(clipped, monkeypatch):
    truth, unseen, entries, found = clipped
    assert found.found.clipped == (-1.5, 2.0)
    assert "clipped at -1.5 and at 2" in found.message
    monkeypatch.setattr(calls, "range_of_clipped", lambda *_: None)
    plain = dmf.complete(entries, offsets=True)
    off = [np.sqrt(np.mean((np.clip(r.product(), -1.5, 2) - truth)[unseen] ** 2)) for r in (found, plain)]
    assert off[0] < 0.9 * off[1]
    assert abs(found.found.noise - NOISE) < abs(plain.found.noise - NOISE)
    assert found.found.rank == 2 < plain.found.rank


def test_predictions_are_expected_values_of_what_is_clipped():
    rng, means = np.random.default_rng(0), np.array([[-3, -1.4, 0], [1.9, 2.5, 9]])
    drawn = means + 0.5 * rng.standard_normal((100_000, *means.shape))
    for ends in ((-1.5, 2.0), (-math.inf, 2.0), (-1.5, math.inf)):
        expected = np.mean(np.clip(drawn, *ends), axis=0)
        np.testing.assert_allclose(as_recorded(means, ends, 0.5), expected, rtol=0, atol=0.01)


def test_predictions_stay_in_the_range(clipped):
    *_, found = clipped
    assert found.product().min() >= -1.5
    assert found.product().max() <= 2.0
    assert found.model.product().max() > 2.0


def test_predictions_by_name_are_those_by_position(clipped):
    *_, found = clipped
    rows, cols = np.divmod(np.arange(0, SHAPE[0] * SHAPE[1], 7), SHAPE[1])
    named, known = found.predict_named(rows, cols)
    assert known.all()
    np.testing.assert_array_equal(named, found.predict(rows, cols))
    (stranger,), _ = found.predict_named(["nobody"], [0])
    mean = np.array([found.offsets.mean + found.offsets.col[0]])
    assert stranger == as_recorded(mean, found.found.clipped, found.found.noise)


def test_intervals_hold_what_is_recorded(clipped):
    """90 % of it, near the ends as well."""
    _, unseen, entries, _ = clipped
    found = dmf.complete(entries, offsets=True, holdout=0.2)
    values, (rows, cols) = recorded((-1.5, 2.0))[1][unseen], np.nonzero(unseen)
    low, high = dmf.prediction_interval(found, rows, cols)
    inside, predicted = (low <= values) & (values <= high), found.predict(rows, cols)
    assert low.min() == -1.5 and high.max() == 2.0
    assert all(part.mean() > 0.87 for part in (inside, inside[predicted > 1.5], inside[predicted < -1.0]))


def test_the_unit_does_not_matter(clipped):
    *_, entries, found = clipped
    other = dmf.complete(entries.with_values(1000 * entries.values), offsets=True)
    np.testing.assert_allclose(other.product(), 1000 * found.product(), rtol=0, atol=1e-6)


def test_a_model_file_knows_the_range(clipped, tmp_path):
    clipped[-1].save(tmp_path / "model.npz")
    assert dmf.load(tmp_path / "model.npz").found == clipped[-1].found
    replace(clipped[-1], found=replace(clipped[-1].found, noise=0.0)).save(tmp_path / "model.npz")
    with pytest.raises(FileError, match="no noise"):
        dmf.load(tmp_path / "model.npz")


def test_an_update_knows_the_range_too():
    truth, unseen, entries = case((-1.5, 2.0))
    kept, held = entries.split(0.3, 0)
    refit, updated = dmf.complete(entries, offsets=True), dmf.complete(kept, offsets=True).update(held)
    off = [np.sqrt(np.mean((r.product() - truth)[unseen] ** 2)) for r in (refit, updated)]
    assert off[1] < 1.03 * off[0]
    assert updated.found.noise == pytest.approx(refit.found.noise, rel=0.02)


def test_what_piles_up_without_being_clipped_is_left_as_it_is():
    *_, entries = case((-math.inf, 5.0), spoiled=0.1)
    assert ends_of(entries) == (-math.inf, 5.0)
    assert dmf.complete(entries, offsets=True).found.clipped is None


def test_ends_are_those_at_which_different_values_pile_up():
    *_, entries = case((-1.5, math.inf))
    assert ends_of(entries) == (-1.5, math.inf)
    rounded = entries.with_values(np.round(entries.values))
    weighted = dmf.SampledEntries(entries.rows, entries.cols, entries.values, SHAPE, np.ones(entries.n_measurements))
    same = entries.with_values(np.ones(entries.n_measurements))
    whole = case((-math.inf, math.inf))[-1]
    assert [ends_of(e) for e in (rounded, weighted, same, whole)] == [None] * 4


@pytest.mark.parametrize(("side", "fold_in"), [(0, dmf.new_rows), (1, dmf.new_columns)])
def test_new_rows_and_columns_are_clipped_too(clipped, side, fold_in):
    """Of entries of which many lie at the ends, what is expected there makes a better fit than the ends do."""
    *_, found = clipped
    rng, (left, right), offsets = np.random.default_rng(5), found.model.halves(), found.offsets
    fixed, other = (right.T, offsets.col) if side == 0 else (left, offsets.row)
    truth = 1.5 * rng.standard_normal((60, fixed.shape[1])) @ fixed.T + offsets.mean + other
    values = np.clip(truth + NOISE * rng.standard_normal(truth.shape), -1.5, 2.0)
    seen = rng.random(truth.shape) < 0.4
    entries = dmf.SampledEntries(*np.nonzero(seen)[:: 1 - 2 * side], values[seen], truth.shape[:: 1 - 2 * side])
    off = []
    for ends in (found.found.clipped, None):
        new = fold_in(replace(found, found=replace(found.found, clipped=ends)), entries).model.product()
        off.append(np.sqrt(np.mean(((new if side == 0 else new.T) - truth)[~seen] ** 2)))
    assert off[0] < 0.4 * off[1]


def test_ranks_are_compared_by_what_is_recorded(clipped):
    """Beyond the range a better model is further from what was recorded."""
    entries = clipped[2]
    path = dmf.completion.rank_path(entries, most=3, offsets=True)
    kept, held = entries.split(0.1, 0)
    expected = dmf.calibrate(dmf.complete(kept, 2, offsets=True), held).heldout.rmse
    assert path.steps[2].heldout_rmse == pytest.approx(expected) and path.best == 2
    assert path.steps[2].train_rmse < expected


def test_weights_make_the_noise_of_clipped_values_smaller():
    """What is expected of an entry of weight w at an end is that of one whose noise variance is a wth."""
    rows, cols, weights = np.arange(3), np.zeros(3, int), np.array([1.0, 4.0, 0.25])
    entries = dmf.SampledEntries(rows, cols, np.array([2.0, 2.0, -1.0]), (3, 1), weights)
    factors = np.array([[1.7], [2.4], [-0.8]]), np.ones((1, 1))
    found, variance = entries.clipped((-1.0, 2.0), entries).expected(entries, *factors, 0.25)
    total = 0.0
    for k, weight in enumerate(weights):
        one = dmf.SampledEntries([0], [0], entries.entries[k : k + 1], (1, 1))
        alone, more = one.clipped((-1.0, 2.0), one).expected(one, factors[0][k : k + 1], factors[1], 0.25 / weight)
        assert found.entries[k] == pytest.approx(alone.entries[0])
        total += weight * more
    assert variance == pytest.approx(total)


def test_new_rows_with_weights_of_one_are_those_without(clipped):
    *_, entries, found = clipped
    new = entries.restricted(np.arange(5), np.arange(SHAPE[1]))
    weighted = dmf.SampledEntries(new.rows, new.cols, new.entries, new.shape, np.ones(new.n_measurements))
    np.testing.assert_allclose(dmf.new_rows(found, weighted).product(), dmf.new_rows(found, new).product(), atol=1e-9)


def test_the_excess_of_outliers_is_over_what_is_predicted():
    *_, entries = case((-1.5, 2.0))
    values = entries.values.copy()
    values[::500] += 40.0
    found = dmf.complete(entries.with_values(values), outliers=True, offsets=True)
    assert found.found.clipped == (-1.5, 2.0)
    out = found.outliers
    observed = dict(zip(zip(entries.rows.tolist(), entries.cols.tolist(), strict=True), values, strict=True))
    there = [observed[place] for place in zip(out.rows.tolist(), out.cols.tolist(), strict=True)]
    np.testing.assert_allclose(out.values, there - found.predict(out.rows, out.cols), atol=1e-9)


def test_the_estimator_fills_rows_without_entries_as_others_and_stays_in_the_range(clipped):
    table = np.full(SHAPE, np.nan)
    table[clipped[2].rows, clipped[2].cols] = clipped[2].entries
    estimator = DeepMatrixCompletion(offsets=True, holdout=0.2).fit(table)
    assert estimator.recovery_.found.clipped == (-1.5, 2.0)
    empty = np.full((2, SHAPE[1]), np.nan)
    alone = estimator.transform(empty)
    empty[1, 0] = 0.5
    np.testing.assert_allclose(alone[0], estimator.transform(empty)[0], atol=1e-9)
    low, high = estimator.intervals(table[:20])
    assert low.min() == -1.5 and high.max() == 2.0


def test_a_report_tells_what_is_left_of_what_was_recorded(clipped, tmp_path, monkeypatch):
    *_, entries, found = clipped
    drawn = []
    monkeypatch.setattr(page, "draw_residuals", lambda axis, residuals, name: drawn.append(residuals))
    page.write_report(tmp_path / "report.html", found, {})
    np.testing.assert_allclose(drawn[0], entries.entries - found.predict(entries.rows, entries.cols), atol=1e-9)
