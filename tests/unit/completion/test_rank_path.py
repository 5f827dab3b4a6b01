"""The rank path: the true rank of noisy and exact matrices, offsets alone, where it ends, what it refuses."""

import numpy as np
import pytest
from low_rank_cases import low_rank_case

import dmf
from dmf.errors import ArgumentError, RankError
from dmf.io.forms import Form
from dmf.solvers.hierarchical import HierarchicalBayes

from helpers import ctrl_c_at


def samples(seed, shape, rank, oversampling, noise):
    """Entries of a matrix with Gaussian factors whose entries have root mean square 1."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1])) / np.sqrt(rank)
    count = round(oversampling * rank * (sum(shape) - rank))
    rows, cols = np.divmod(rng.choice(matrix.size, count, replace=False), shape[1])
    return dmf.SampledEntries(rows, cols, matrix[rows, cols] + noise * rng.standard_normal(count), shape)


@pytest.mark.parametrize(
    "shape, rank, oversampling",
    [((60, 80), 2, 6), ((60, 80), 3, 3), pytest.param((150, 120), 5, 3, marks=pytest.mark.slow)],
)
def test_the_rank_of_noisy_matrices_is_found(shape, rank, oversampling):
    """At 20 dB; `benchmarks/rank_choice.py` counts over more seeds."""
    found = [
        dmf.completion.rank_path(samples(seed, shape, rank, oversampling, 0.1), seed=seed).best for seed in range(4)
    ]
    assert found == [rank] * 4


def test_an_exact_fit_ends_the_path():
    entries = samples(0, (60, 50), 3, 4, 0.0)
    path = dmf.completion.rank_path(entries)
    assert path.best == path.lowest == 3 == path.steps[-1].rank
    assert path.steps[3].heldout_rmse < 1e-12 and path.steps[3].noise == 0
    assert path.refit().found.exact
    assert str(path).startswith("rank 3: held-out RMSE")


def test_the_numbers_are_those_of_the_fits():
    """Each step is what `complete` gives on the kept entries; errors are on the others."""
    entries = samples(1, (40, 50), 2, 5, 0.1)
    seen = []
    path = dmf.completion.rank_path(entries, 4, 0.2, offsets=False, seed=3, callback=seen.append)
    assert sorted(seen, key=lambda step: step.rank) == list(path.steps)
    kept, held = entries.split(0.2, 3)
    assert path.n_heldout == held.n_measurements
    for step in path.steps:
        fit = dmf.complete(kept, step.rank, offsets=False, seed=3).predict if step.rank else lambda rows, _: 0 * rows
        for part, rmse in ((held, step.heldout_rmse), (kept, step.train_rmse)):
            expected = np.sqrt(np.mean((fit(part.rows, part.cols) - part.values) ** 2))
            np.testing.assert_allclose(rmse, expected, rtol=1e-12)
    assert len(path.steps) <= 5 and not path.offsets


def weighted_samples(scale):
    """Entries of a matrix of rank 2, nine in ten with noise 0.1, the others with 100 times that and weights to match."""
    entries = samples(2, (40, 50), 2, 5, 0.1)
    rng = np.random.default_rng(2)
    bad = rng.random(entries.n_measurements) < 0.1
    values = entries.values + bad * 10 * rng.standard_normal(bad.size)
    return dmf.SampledEntries(entries.rows, entries.cols, values, entries.shape, scale * np.where(bad, 1e-4, 1.0))


def test_errors_and_ranks_do_not_depend_on_the_scale_of_weights():
    """Errors are in the unit of the data, and the few bad entries, known as such, drown nothing."""
    one, other = (dmf.completion.rank_path(weighted_samples(scale), offsets=False) for scale in (1.0, 2.0**-26))
    assert one.best == other.best == 2
    for a, b in zip(one.steps[:3], other.steps[:3], strict=True):
        for name in ("heldout_rmse", "standard_error", "train_rmse"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-6)
        np.testing.assert_allclose(2.0**13 * b.noise, a.noise, rtol=1e-6)
    kept, held = weighted_samples(1.0).split(0.1, 0)
    fit = dmf.complete(kept, 2, offsets=False)
    for part, rmse in ((held, one.steps[2].heldout_rmse), (kept, one.steps[2].train_rmse)):
        errors = fit.predict(part.rows, part.cols) - part.entries
        np.testing.assert_allclose(rmse, np.sqrt(np.average(errors**2, weights=part.weights)), rtol=1e-9)
    assert 0.08 < one.steps[2].heldout_rmse < 0.2


@pytest.mark.parametrize("offsets", [True, False])
def test_rank_zero_where_there_is_nothing_but_offsets_or_noise(offsets):
    rng = np.random.default_rng(0)
    matrix = 3 + rng.standard_normal((40, 1)) + rng.standard_normal(30) if offsets else np.zeros((40, 30))
    noisy = np.where(rng.random((40, 30)) < 0.6, matrix + 0.1 * rng.standard_normal((40, 30)), np.nan)
    path = dmf.completion.rank_path(noisy)
    assert path.best == 0 and path.offsets == offsets
    recovery = path.refit()
    assert recovery.found.rank == 0 and (recovery.offsets is not None) == offsets
    assert np.sqrt(np.mean((recovery.product() - matrix) ** 2)) < 0.06


@pytest.mark.parametrize("constant", [5.0, 0.1])
def test_of_a_constant_table_offsets_are_all_and_names_are_kept(constant):
    """The same from `refit` as from `complete`; 0.1 is no sum of powers of 2, so that its mean is rounded."""
    table = np.full((20, 25), constant)
    table[np.random.default_rng(0).random(table.shape) < 0.2] = np.nan
    named = dmf.SampledEntries.from_dense(table)
    named.form = Form(tuple(f"r{k}" for k in range(20)), tuple(f"c{k}" for k in range(25)))
    path = dmf.completion.rank_path(named, offsets=True)
    assert path.best == 0
    for recovery in (path.refit(), dmf.complete(named, offsets=True)):
        assert (recovery.found.rank, recovery.found.noise, recovery.found.exact) == (0, 0.0, True)
        assert recovery.message.startswith("rank 0 and offsets, no noise: the offsets fit all measurements.")
        assert recovery.row_ids == named.form.row_ids and recovery.col_ids == named.form.col_ids
        np.testing.assert_allclose(recovery.product(), constant, rtol=1e-14)
    assert path.refit().found.oversampling == named.n_distinct / (20 + 25 - 1)
    apart = np.where(np.kron(np.eye(2), np.ones((5, 5))) > 0, constant, np.nan)  # two blocks: offsets may differ
    assert not dmf.complete(apart, offsets=True).found.exact


def test_bad_arguments_are_refused():
    entries = samples(0, (20, 20), 1, 3, 0.1)
    with pytest.raises(ArgumentError, match=r"holds out 12, but ranks are compared on at least 20. Raise holdout"):
        dmf.completion.rank_path(entries)
    with pytest.raises(RankError, match="rank=21"):
        dmf.completion.rank_path(entries, 21, 0.3)
    with pytest.raises(ArgumentError, match="fraction"):
        dmf.completion.rank_path(entries, holdout=1.5)


def test_ctrl_c_in_a_fit_ends_the_comparison(monkeypatch):
    """`complete` ends a fit at its last good state; here that is no fit to compare."""
    calls = ctrl_c_at(monkeypatch, 3, HierarchicalBayes)
    rng = np.random.default_rng(0)
    table = np.where(rng.random((40, 30)) < 0.5, np.nan, rng.standard_normal((40, 30)))
    with pytest.raises(KeyboardInterrupt):
        dmf.completion.rank_path(table, 3, 0.2, offsets=True)
    assert len(calls) == 3


@pytest.mark.parametrize("unit", [4.0**-166, 4.0**149])
def test_the_unit_of_the_data_changes_no_digit(unit):
    """Nor do the standard errors on held-out entries vanish or overflow; with offsets and with weights, too."""
    case = low_rank_case(0, (30, 25), 2, noise=0.1)
    weights = np.random.default_rng(0).uniform(0.5, 2, case.values.size)
    usual, far = (
        dmf.SampledEntries(case.rows, case.cols, factor * (case.values + 3), (30, 25), weights) for factor in (1, unit)
    )
    paths = dmf.completion.rank_path(usual, 2), dmf.completion.rank_path(far, 2)
    assert paths[0].best == paths[1].best and paths[0].offsets == paths[1].offsets
    for one, other in zip(*(path.steps for path in paths), strict=True):
        assert other.heldout_rmse / unit == pytest.approx(one.heldout_rmse)
        assert other.standard_error / unit == pytest.approx(one.standard_error)
        assert other.noise / unit == pytest.approx(one.noise)
    heldout = [dmf.complete(entries, 2, offsets=True, holdout=0.1).heldout for entries in (usual, far)]
    assert heldout[1].rmse / unit == pytest.approx(heldout[0].rmse)
    assert heldout[1].standard_error / unit == pytest.approx(heldout[0].standard_error)
