"""Implicit feedback in one call: what is chosen, what comes back, what is refused."""

import numpy as np
import pytest
import scipy.sparse

import dmf
from dmf.errors import ArgumentError, ObservationError
from dmf.models import LowRank
from dmf.recovery.ranking import nearest_columns, ranking_measures, top_columns
from dmf.solvers import Outcome, implicit_feedback


def clicks(rng, shape=(80, 40), kinds=3):
    """Rows and columns are of some kinds, and rows choose mostly from their own."""
    rows, cols = (rng.integers(0, kinds, size) for size in shape)
    return rng.poisson(np.where(rows[:, None] == cols, 0.6, 0.03)).astype(float), cols


def entries(table):
    return dmf.SampledEntries(*np.nonzero(table), table[table > 0], table.shape)


def test_what_is_chosen_ranks_as_well_as_the_best_of_a_grid(rng):
    """Of held-out counts, which only the grid looks at."""
    table, _ = clicks(rng)
    kept, held = entries(table).split(0.2, 0)

    def ndcg(left, right):
        recovery = dmf.recovery.Recovery(
            LowRank.of_factors(left, right), dmf.recovery.Found(1, 0.0, False), Outcome.SOLVED, found.history
        )
        return ranking_measures(recovery, held, 10, kept).ndcg

    found = dmf.complete(kept, feedback="implicit")
    grid = [
        ndcg(*implicit_feedback(kept, rank, confidence=confidence, ridge=ridge).network.factors())
        for rank in (2, 8)
        for confidence in (1.0, 8.0)
        for ridge in (2.0, 8.0)
    ]
    assert ndcg(*found.factors()) > max(grid) - 0.02
    popular = ndcg(np.ones((80, 1)), np.sum(table > 0, axis=0, dtype=float)[None])
    assert ndcg(*found.factors()) > popular + 0.1
    assert found.success and found.weighting.ridge > 0 and np.isnan(found.found.noise)


def test_forms_of_counts_are_one(rng):
    """A sparse matrix, its entries in any order, each event for itself, a table with zeros."""
    table, _ = clicks(rng)
    rows, cols = np.nonzero(table)
    times = table[rows, cols].astype(int)
    order = rng.permutation(times.sum())
    events = np.repeat(rows, times)[order], np.repeat(cols, times)[order], np.ones(times.sum())
    forms = [scipy.sparse.csr_array(table), entries(table), dmf.SampledEntries(*events, table.shape), table]
    products = [dmf.complete(form, feedback="implicit").product() for form in forms]
    for other in products[1:]:
        np.testing.assert_array_equal(other, products[0])


def test_the_held_out_counts_are_measured_by_a_fit_without_them(rng):
    table, _ = clicks(rng)
    found = dmf.complete(entries(table), feedback="implicit", holdout=0.2, seed=3)
    kept, held = entries(table).split(0.2, 3)
    choice = found.weighting
    assert found.ranking.n_rows == np.unique(held.rows).size
    assert 0.1 < found.ranking.ndcg < 1 and found.heldout is None
    first, final = (run for run in found.runs if run.stage == "implicit feedback")
    assert (first.fit, final.fit) == ("hold-out fit", "final fit")
    alone = implicit_feedback(
        kept.with_values(kept.values**choice.power),
        found.found.rank,
        confidence=choice.confidence,
        ridge=choice.ridge,
        iterations=20,
    ).network.factors()
    recovery = dmf.recovery.Recovery(LowRank.of_factors(*alone), found.found, Outcome.SOLVED, found.history)
    assert ranking_measures(recovery, held, 10, kept).ndcg == pytest.approx(found.ranking.ndcg, abs=0.02)
    with pytest.raises(ArgumentError, match="no errors on held-out entries"):
        dmf.prediction_interval(found, np.array([0]), np.array([0]))


def test_a_model_file_holds_all_that_new_rows_need(rng, tmp_path):
    """A new row with the counts of an old one is the old one, as far as the fit had settled; then it is ranked."""
    table, _ = clicks(rng)
    found = dmf.complete(entries(table), feedback="implicit", holdout=0.1)
    found.save(tmp_path / "m.npz")
    loaded = dmf.load(tmp_path / "m.npz")
    assert (loaded.weighting, loaded.ranking) == (found.weighting, found.ranking)
    assert loaded.message == found.message
    new = dmf.new_rows(loaded, entries(table))
    np.testing.assert_allclose(new.product(), found.product(), atol=0.05)
    liked = scipy.sparse.coo_array(table[:1])
    chosen, best, _ = top_columns(new, np.array([0]), 5, dmf.SampledEntries([0], [3], [1.0], new.shape))
    assert 3 not in best and (chosen == 0).all() and liked.nnz > 0
    turned = dmf.new_columns(loaded, entries(table))
    np.testing.assert_allclose(turned.product(), found.product(), atol=0.05)


def test_new_rows_are_the_dense_weighted_least_squares_ones(rng):
    table, _ = clicks(rng, (30, 12))
    found = dmf.complete(entries(table), 3, feedback="implicit")
    right, how = found.model.halves()[1], found.weighting
    weights = 1 + how.confidence * np.where(table > 0, table, 1) ** how.power * (table > 0)
    new = dmf.new_rows(found, entries(table)).product()
    for i in range(30):
        normal = (right * weights[i]) @ right.T + how.ridge * np.eye(len(right))
        expected = right.T @ np.linalg.solve(normal, right @ (weights[i] * (table[i] > 0)))
        np.testing.assert_allclose(new[i], expected, atol=1e-9)


def test_neighbours_are_of_the_same_kind(rng):
    table, kinds = clicks(rng)
    found = dmf.complete(entries(table), feedback="implicit")
    columns, others, cosines = nearest_columns(found, np.arange(40), 3)
    assert columns.size == 120 and (columns != others).all()
    assert np.mean(kinds[columns] == kinds[others]) > 0.9
    vectors = found.model.halves()[1]
    vectors = vectors / np.linalg.norm(vectors, axis=0)
    np.testing.assert_allclose(cosines, np.sum(vectors[:, columns] * vectors[:, others], axis=0), atol=1e-12)
    with pytest.raises(ObservationError, match="columns holds 40, but the matrix has 40 columns"):
        nearest_columns(found, np.array([40]), 1)


def test_few_counts_and_a_bound_on_the_rank(rng):
    few = dmf.complete(dmf.SampledEntries([0, 1], [0, 1], [1.0, 2.0], (2, 2)), feedback="implicit")
    assert few.product()[0, 0] > few.product()[0, 1] and len(few.runs) == 1
    table, _ = clicks(rng)
    assert dmf.complete(entries(table), 2, feedback="implicit").found.rank <= 2


def test_a_callback_ends_the_whole(rng):
    table, _ = clicks(rng)

    def stop(snapshot):
        assert snapshot.model.shape == table.shape
        if snapshot.iteration == 2:
            raise StopIteration("enough")

    found = dmf.complete(entries(table), feedback="implicit", holdout=0.1, callback=stop)
    assert found.outcome is Outcome.STOPPED and len(found.runs) == 1 and "enough" in found.message


def test_a_fit_goes_on_from_its_checkpoint_to_the_same_bits(rng, tmp_path):
    table, _ = clicks(rng)
    whole = dmf.complete(entries(table), feedback="implicit", checkpoint=tmp_path / "c.npz")
    again = dmf.complete(entries(table), feedback="implicit", checkpoint=tmp_path / "c.npz", resume=True)
    np.testing.assert_array_equal(again.product(), whole.product())
    with pytest.raises(ArgumentError, match="checkpoint"):
        dmf.complete(entries(table), checkpoint=tmp_path / "c.npz", resume=True)


def test_what_goes_with_values_alone_is_refused(rng):
    counts = entries(clicks(rng)[0])
    for name, value in (("offsets", True), ("bounds", (1, 5)), ("outliers", True)):
        with pytest.raises(ArgumentError, match=f'{name}=.* with feedback="implicit"'):
            dmf.complete(counts, feedback="implicit", **{name: value})
    weighted = dmf.SampledEntries([0], [0], [1.0], (1, 1), [2.0])
    with pytest.raises(ArgumentError, match="weights"):
        dmf.complete(weighted, feedback="implicit")
    with pytest.raises(ArgumentError, match="feedback='clicks'"):
        dmf.complete(counts, feedback="clicks")
    with pytest.raises(ObservationError, match="from -2 to -1"):
        dmf.complete(dmf.SampledEntries([0, 1], [0, 1], [-1.0, -2.0], (2, 2)), feedback="implicit")
    with pytest.raises(ArgumentError, match="not updated"):
        dmf.complete(counts, feedback="implicit").update(counts)
    with pytest.raises(ArgumentError, match="no counts to fill in"):
        dmf.complete(counts, feedback="implicit").filled()


def test_entries_that_are_all_one_point_to_it(rng):
    """To explicit values they hold no ranking, and the message says what does."""
    table = (clicks(rng)[0] > 0).astype(float)
    assert 'feedback="implicit"' in dmf.complete(entries(table)).message


@pytest.mark.parametrize("beside", ["weights", "times"])
def test_counts_of_new_rows_have_neither_weights_nor_times(rng, beside):
    table, _ = clicks(rng)
    found = dmf.complete(entries(table), feedback="implicit")
    new = dmf.SampledEntries([0], [0], [1.0], (1, table.shape[1]), **{beside: [2.0]})
    with pytest.raises(ArgumentError, match=f"have {beside}"):
        dmf.new_rows(found, new)
    with pytest.raises(ArgumentError, match="no errors"):
        dmf.calibrate(found, entries(table))
