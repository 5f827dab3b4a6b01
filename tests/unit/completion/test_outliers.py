"""Corrupted entries: found, left out, and told."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dmf
from dmf.errors import ArgumentError
from dmf.solvers import Outcome


def corrupted(seed, shape=(80, 70), rank=3, oversampling=4.0, share=0.08, size=1.0, noise=0.0, dtype=float):
    """Truth, entries, and which of them are corrupted; each row and column keeps more good entries than its rank."""
    rng = np.random.default_rng(seed)
    d1, d2 = shape
    truth = rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, d2))
    count = min(int(oversampling * rank * (d1 + d2 - rank)), d1 * d2)
    while True:
        rows, cols = np.divmod(np.sort(rng.choice(d1 * d2, count, replace=False)), d2)
        bad = np.zeros(count, bool)
        bad[rng.choice(count, int(share * count), replace=False)] = True
        good = [np.bincount(index[~bad], minlength=n).min() for index, n in ((rows, d1), (cols, d2))]
        if min(good) > rank + 1:
            break
    values = truth[rows, cols] + noise * rng.standard_normal(count)
    most = size * np.abs(truth).max()
    values[bad] += rng.uniform(-most, most, bad.sum())
    return truth, dmf.SampledEntries(rows, cols, values.astype(dtype), shape), bad


def flagged(recovery, entries):
    """Which of the entries are outliers of a recovery."""
    width = entries.shape[1]
    places = recovery.outliers.rows * width + recovery.outliers.cols
    return np.isin(entries.rows.astype(int) * width + entries.cols, places)


@settings(max_examples=3)
@given(
    seed=st.integers(0, 10**6),
    size=st.sampled_from([1.0, 10.0]),
    share=st.sampled_from([0.05, 0.1]),
    rank=st.sampled_from([None, 3]),
)
def test_a_matrix_is_found_exactly_beside_its_outliers(seed, size, share, rank):
    """X = L + S with S sparse: both are found, the support of S entry by entry, L to rounding."""
    truth, entries, bad = corrupted(seed, share=share, size=size)
    recovery = dmf.complete(entries, rank, outliers=True)
    assert recovery.found.exact
    np.testing.assert_array_equal(flagged(recovery, entries), bad)
    np.testing.assert_allclose(recovery.filled(), truth, atol=1e-9 * np.abs(truth).max())
    told = recovery.outliers
    np.testing.assert_allclose(
        told.values, entries.values[bad] - truth[told.rows, told.cols], atol=1e-9 * np.abs(truth).max()
    )


@settings(max_examples=2)
@given(seed=st.integers(0, 10**6), noise=st.sampled_from([0.0, 0.05, 0.5]))
def test_without_outliers_nothing_is_lost(seed, noise):
    truth, entries, _ = corrupted(seed, share=0, noise=noise)
    plain, robust = dmf.complete(entries), dmf.complete(entries, outliers=True)
    errors = [np.linalg.norm(r.product() - truth) / np.linalg.norm(truth) for r in (plain, robust)]
    assert errors[1] <= 1.01 * errors[0] + 1e-12
    assert len(robust.outliers) <= 1e-3 * entries.n_measurements
    assert plain.outliers is None


def test_beside_noise_the_error_is_that_of_knowing_the_outliers():
    truth, entries, bad = corrupted(3, noise=0.1, size=10)
    oracle = dmf.complete(entries.chosen(~bad))
    recovery = dmf.complete(entries, outliers=True, holdout=0.1)
    errors = [np.linalg.norm(r.product() - truth) for r in (oracle, recovery)]
    assert errors[1] <= 1.03 * errors[0]
    assert np.mean(flagged(recovery, entries)[bad]) > 0.97
    assert recovery.heldout.rmse < 0.2  # of entries that are no outliers


def test_rows_that_fit_no_more_than_their_rank_are_not_called_exact():
    """Of 4 entries of which one is wrong any 3 fit a row of rank 3: which one, nobody can know."""
    truth, entries, _ = corrupted(0, share=0)
    lone = np.flatnonzero(entries.rows == 7)
    keep = np.ones(entries.n_measurements, bool)
    keep[lone[4:]] = False
    values = entries.values.copy()
    values[lone[0]] += 5
    some = dmf.SampledEntries(entries.rows[keep], entries.cols[keep], values[keep], entries.shape)
    recovery = dmf.complete(some, outliers=True)
    assert recovery.outcome is Outcome.UNDETERMINED
    assert recovery.found.undetermined[0] == (7,)
    others = np.delete(np.arange(entries.shape[0]), 7)
    np.testing.assert_allclose(recovery.product()[others], truth[others], atol=1e-9 * np.abs(truth).max())


@pytest.mark.parametrize("scale", [1e-60, 1e60])
def test_units_do_not_matter(scale):
    truth, entries, bad = corrupted(5)
    recovery = dmf.complete(entries.with_values(scale * entries.values), outliers=True)
    np.testing.assert_array_equal(flagged(recovery, entries), bad)
    np.testing.assert_allclose(recovery.product() / scale, truth, atol=1e-9 * np.abs(truth).max())


def test_weights_and_single_precision():
    truth, entries, bad = corrupted(6, noise=0.05, size=10, dtype=np.float32)
    weights = np.where(np.arange(entries.n_measurements) % 2, 1, 4).astype(np.float32)
    weighted = dmf.SampledEntries(entries.rows, entries.cols, entries.values, entries.shape, weights)
    recovery = dmf.complete(weighted, 3, outliers=True)
    assert recovery.product().dtype == np.float32
    assert np.mean(flagged(recovery, entries) == bad) > 0.99
    assert np.linalg.norm(recovery.product() - truth) < 0.05 * np.linalg.norm(truth)


def test_outliers_survive_a_model_file(tmp_path):
    _, entries, _ = corrupted(1)
    recovery = dmf.complete(entries, outliers=True)
    recovery.save(tmp_path / "m.npz")
    loaded = dmf.load(tmp_path / "m.npz")
    for name in ("rows", "cols", "values"):
        np.testing.assert_array_equal(getattr(loaded.outliers, name), getattr(recovery.outliers, name))
    assert loaded.message == recovery.message
    assert "outliers" in loaded.message


def test_a_callback_ends_the_search():
    _, entries, _ = corrupted(2)

    def stop(snapshot):
        assert snapshot.stage == "outliers"
        if snapshot.iteration == 5:
            raise StopIteration("enough")

    recovery = dmf.complete(entries, outliers=True, callback=stop)
    assert recovery.outcome is Outcome.STOPPED
    assert recovery.nit == 5


def test_a_checkpoint_resumes_to_the_same_bits(tmp_path):
    _, entries, _ = corrupted(4)
    whole = dmf.complete(entries, outliers=True)

    def stop(snapshot):
        if snapshot.iteration == 20:
            raise KeyboardInterrupt

    first = dmf.complete(entries, outliers=True, callback=stop, checkpoint=tmp_path / "c.npz")
    assert first.outcome is Outcome.INTERRUPTED
    second = dmf.complete(entries, outliers=True, checkpoint=tmp_path / "c.npz", resume=True)
    np.testing.assert_array_equal(second.product(), whole.product())


@pytest.mark.parametrize("wrong", [1, "yes", None])
def test_outliers_are_asked_for_by_true_or_false(wrong):
    with pytest.raises(ArgumentError, match="outliers"):
        dmf.complete(corrupted(0)[1], outliers=wrong)


@pytest.mark.parametrize(
    "table", [np.array([[3.0]]), np.ones((4, 3)), np.zeros((3, 3)), np.array([[1.0, np.nan], [np.nan, 2.0]])]
)
def test_tiny_and_constant_tables(table):
    recovery = dmf.complete(table, outliers=True)
    known = ~np.isnan(table)
    np.testing.assert_allclose(recovery.filled()[known], table[known])
    assert len(recovery.outliers) == 0
