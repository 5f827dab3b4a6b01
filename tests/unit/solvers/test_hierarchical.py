"""Prior means from the pattern of what was observed: they help where it tells, and only there."""

import numpy as np
import pytest

import dmf
from dmf.observations.design import Design
from dmf.solvers import hierarchical
from dmf.solvers.hierarchical import HierarchicalBayes
from dmf.solvers.loop import run
from dmf.solvers.outcomes import Outcome


def table(rng, chosen, shape=(600, 300), share=0.06, noise=1.0):
    """Entries with offsets. Rows that like the same look into the same columns, if these are `chosen`; else into any."""
    groups = 6
    row, col = rng.integers(groups, size=shape[0]), rng.integers(groups, size=shape[1])
    likes = rng.standard_normal((groups, 3))[row] + rng.standard_normal((shape[0], 3)) / 4
    values = likes @ rng.standard_normal((3, shape[1])) + rng.standard_normal((shape[0], 1)) / 2
    odds = np.where(row[:, None] == col, 2 * groups, 0.5) if chosen else np.ones(shape)
    rows, cols = np.nonzero(rng.random(shape) < share * odds / odds.mean())
    return dmf.SampledEntries(rows, cols, values[rows, cols] + noise * rng.standard_normal(rows.size), shape)


def error(entries):
    """Root mean square on a fifth that is held out."""
    kept, held = entries.split(0.2, 0)
    predicted = dmf.complete(kept, offsets=True).predict(held.rows, held.cols)
    return np.sqrt(np.mean((predicted - held.values) ** 2))


@pytest.fixture
def both(monkeypatch):
    """Error with the implicit term, and without it."""

    def errors(entries):
        found, whole = error(entries), hierarchical.designs
        with monkeypatch.context() as patch:
            patch.setattr(
                hierarchical, "designs", lambda *a: tuple(Design(d.columns[:, :2], (1, 1)) for d in whole(*a))
            )
            return found, error(entries)

    return errors


@pytest.mark.parametrize("seed", range(2))
def test_what_was_chosen_tells_what_is_liked(both, seed):
    found, without = both(table(np.random.default_rng(seed), chosen=True))
    assert found < 0.97 * without


@pytest.mark.parametrize("seed", range(2))
def test_a_random_pattern_tells_nothing_and_does_no_harm(both, seed):
    found, without = both(table(np.random.default_rng(seed), chosen=False))
    assert found < 1.005 * without


def test_the_order_of_the_entries_does_not_matter(rng):
    entries = table(rng, chosen=True, shape=(60, 50), share=0.3)
    order = rng.permutation(entries.n_measurements)
    shuffled = dmf.SampledEntries(*(a[order] for a in (entries.rows, entries.cols, entries.values)), entries.shape)
    np.testing.assert_array_equal(*(dmf.complete(e, offsets=True).product() for e in (entries, shuffled)))


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_neither_order_nor_seed_move_predictions(seed):
    """By more than a tenth of their error; random starts found other ranks, and moved them by a third to a half."""
    rng = np.random.default_rng(seed)
    truth = 3.5 + 0.5 * (rng.standard_normal((120, 1)) + rng.standard_normal((1, 80)))
    truth += 0.4 * rng.standard_normal((120, 4)) @ rng.standard_normal((4, 80))
    seen = rng.random(truth.shape) < 0.2
    stars = np.where(seen, np.clip(np.round(truth + 0.5 * rng.standard_normal(truth.shape)), 1, 5), np.nan)
    order = rng.permutation(80)
    found, other = (dmf.complete(stars, seed=seed).product() for seed in (0, 1))
    moved = dmf.complete(stars[:, order]).product()[:, np.argsort(order)]
    off = np.sqrt(np.mean((found - truth)[~seen] ** 2))
    assert all(np.sqrt(np.mean((again - found) ** 2)) < 0.1 * off for again in (other, moved))


def test_held_out_entries_are_no_part_of_the_pattern(rng):
    entries = table(rng, chosen=True, shape=(80, 60), share=0.3)
    kept, held = entries.split(0.2, 0)
    afresh = dmf.SampledEntries(kept.rows, kept.cols, kept.values, entries.shape)
    errors = dmf.complete(afresh, offsets=True).predict(held.rows, held.cols) - held.values
    told = dmf.complete(entries, offsets=True, holdout=0.2).heldout.rmse
    assert told == pytest.approx(np.sqrt(np.mean(errors**2)), rel=1e-9)


@pytest.mark.parametrize("chosen", [True, False])
def test_what_prior_means_explain(rng, chosen):
    entries = table(rng, chosen)
    found, without = (
        run(HierarchicalBayes(4, implicit=implicit), entries, None, iterations=200).findings["explained"]
        for implicit in (True, False)
    )
    assert 0 <= without < (0.05 if chosen else 0.03)  # where rows look into what they like, counts say a little
    assert found > 0.1 if chosen else found < 0.03


def test_a_fit_noisier_than_it_may_be_ends_there(rng):
    """If its noise rises steadily; where it rises and falls again, as that of few components that are there, it goes on."""
    values = np.round(2 * rng.standard_normal((60, 40)))  # no components at all, in many
    seen = rng.random(values.shape) < 0.5
    entries = dmf.SampledEntries(*np.nonzero(seen), values[seen], values.shape)
    whole, level = run(HierarchicalBayes(8), entries, None, iterations=200), 1.9
    bound = run(HierarchicalBayes(8, most_noise=level), entries, None, iterations=200)
    assert bound.outcome is Outcome.NOISIER and not bound.success and bound.findings["noise"] > level
    np.testing.assert_array_equal(bound.history["noise"], whole.history["noise"][: bound.nit + 1])
    assert bound.nit < whole.nit
    few = table(rng, chosen=False)
    whole = run(HierarchicalBayes(4), few, None, iterations=200)
    level = 1.01 * whole.findings["noise"]
    assert max(whole.history["noise"]) > level
    assert run(HierarchicalBayes(4, most_noise=level), few, None, iterations=200).outcome is Outcome.NOISE_SETTLED
