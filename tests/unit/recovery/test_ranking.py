"""The best columns of each row equal those of a full sort, in any block size, without the seen ones."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.errors import ArgumentError, ObservationError, ShapeError
from dmf.models import LowRank
from dmf.models.offsets import Offsets
from dmf.recovery import Found, Plan, Recovery, ranking
from dmf.solvers import History, Outcome


def recovery_of(left, right, offsets=None, bounds=None, **names):
    history = History({"iteration": [0], "loss": [0.0], "seconds": [0.0]})
    found = Found(left.shape[1], 1.0, False, offsets is not None)
    model = LowRank.of_factors(left, right, offsets)
    return Recovery(model, found, Outcome.SOLVED, history, Plan(bounds=bounds), **names)


def test_bounds_do_not_change_the_order():
    recovery = recovery_of(np.array([[1.0]]), np.array([[3.0, 9.0, 7.0]]), bounds=(-np.inf, 5.0))
    _, columns, values = ranking.top_columns(recovery, np.array([0]), 3)
    assert columns.tolist() == [1, 2, 0]
    np.testing.assert_allclose(values, [5.0, 5.0, 3.0], rtol=1e-15)


@given(data=st.data(), d1=st.integers(1, 6), d2=st.integers(1, 7), block=st.integers(1, 50), count=st.integers(1, 9))
def test_equal_to_a_stable_sort_of_the_whole_matrix(data, d1, d2, block, count, monkeypatch_block):
    """Ties, repeated rows, rows with all columns seen; offsets count."""
    whole = st.integers(-2, 2).map(float)  # so that there are ties
    left = np.array(data.draw(st.lists(whole, min_size=d1, max_size=d1)))[:, None]
    right = np.array(data.draw(st.lists(whole, min_size=d2, max_size=d2)))[None]
    cols = np.array(data.draw(st.lists(whole, min_size=d2, max_size=d2)))
    # Factors of whole numbers: their products are exact in any order, and so are ties.
    exact = LowRank(left, np.ones(1), right, Offsets(1.0, np.zeros(d1), cols))
    recovery = replace(recovery_of(left, right, exact.offsets), model=exact)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=d1 * d2, max_size=d1 * d2))).reshape(d1, d2)
    seen = dmf.SampledEntries(*np.nonzero(mask), np.ones(mask.sum()), (d1, d2)) if mask.any() else None
    rows = np.array(data.draw(st.lists(st.integers(0, d1 - 1), max_size=5)), np.int64)
    expected = []
    for row in rows:
        order = np.argsort(-recovery.product()[row], kind="stable")
        expected += [(row, col) for col in order if not mask[row, col]][:count]
    monkeypatch_block(block)
    found_rows, found_cols, values = ranking.top_columns(recovery, rows, count, seen)
    assert list(zip(found_rows.tolist(), found_cols.tolist(), strict=True)) == expected
    np.testing.assert_array_equal(values, recovery.product()[found_rows, found_cols])


@pytest.fixture(scope="module")
def monkeypatch_block():
    """Sets the number of predictions in a block."""
    before = ranking._BLOCK

    def change(size):
        ranking._BLOCK = size

    yield change
    ranking._BLOCK = before


def test_bad_arguments_are_refused():
    recovery = recovery_of(np.ones((3, 1)), np.ones((1, 4)))
    with pytest.raises(ArgumentError, match="count=0"):
        ranking.top_columns(recovery, np.array([0]), 0)
    for rows in ([3], [-1]):
        with pytest.raises(ObservationError, match=f"rows holds {rows[0]}, but the matrix has 3 rows"):
            ranking.top_columns(recovery, np.array(rows), 1)
    with pytest.raises(ShapeError, match="vector of integers"):
        ranking.top_columns(recovery, np.array([0.5]), 1)
    with pytest.raises(ShapeError, match="seen has the shape"):
        ranking.top_columns(recovery, np.array([0]), 1, dmf.SampledEntries([0], [0], [1.0], (2, 2)))


def test_names_are_positions_in_the_model():
    recovery = recovery_of(np.ones((3, 1)), np.ones((1, 2)), row_ids=("a", "b", "c"), col_ids=("x", "y"))
    np.testing.assert_array_equal(ranking.positions(["c", "a"], recovery.row_ids, 3), [2, 0])
    with pytest.raises(ObservationError, match=r"1 of 2 rows were not in the data .*'z'"):
        ranking.positions(["a", "z"], recovery.row_ids, 3)
    entries = dmf.SampledEntries([0, 0, 1], [0, 1, 1], [1.0, 2.0, 3.0], (2, 2))
    aligned, unknown = ranking.align(recovery, entries, ("c", "z"), ("y", "x"))
    assert unknown == 1
    assert (aligned.rows.tolist(), aligned.cols.tolist(), aligned.values.tolist()) == ([2, 2], [0, 1], [2.0, 1.0])
    assert ranking.align(recovery, entries) == (None, 3)  # rows "0" and "1"
    unnamed = recovery_of(np.ones((3, 1)), np.ones((1, 2)))
    assert ranking.align(unnamed, entries)[1] == 0


def test_measures_equal_those_of_scikit_learn(rng):
    """Gains as `ndcg_score`, precision of the whole order as `average_precision_score`."""
    metrics = pytest.importorskip("sklearn.metrics")
    recovery = recovery_of(rng.standard_normal((12, 3)), rng.standard_normal((3, 20)))
    wanted = rng.random((12, 20)) < 0.3
    wanted[:, 0], wanted[3] = True, False  # a row that has no part in it
    rest = wanted[wanted.any(axis=1)]
    scores = recovery.product()[wanted.any(axis=1)]
    held = dmf.SampledEntries(*np.nonzero(wanted), np.ones(wanted.sum()), wanted.shape)
    few, whole = (ranking.ranking_measures(recovery, held, count) for count in (5, 20))
    each = [metrics.ndcg_score([w], [s], k=5) for w, s in zip(rest, scores, strict=True)]
    assert few.ndcg == pytest.approx(np.mean(each)) and few.n_rows == 11
    assert few.ndcg_error == pytest.approx(np.std(each, ddof=1) / np.sqrt(11))
    best = np.argsort(-scores, axis=1)[:, :5]
    assert few.recall == pytest.approx(np.mean(np.take_along_axis(rest, best, axis=1).sum(axis=1) / rest.sum(axis=1)))
    precision = [metrics.average_precision_score(w, s) for w, s in zip(rest, scores, strict=True)]
    assert whole.average_precision == pytest.approx(np.mean(precision)) and whole.recall == 1
    assert few.coverage == np.unique(best).size / 20


def test_what_was_seen_is_no_candidate():
    """Row 0 prefers its seen column; without that, both held-out ones come first."""
    recovery = recovery_of(np.array([[1.0]]), np.array([[9.0, 8.0, 7.0, 1.0]]))
    seen = dmf.SampledEntries([0], [0], [1.0], (1, 4))
    held = dmf.SampledEntries([0, 0], [1, 2], [1.0, 1.0], (1, 4))
    without = ranking.ranking_measures(recovery, held, 2, seen)
    assert (without.ndcg, without.recall, without.average_precision) == (1.0, 1.0, 1.0)
    assert np.isnan(without.ndcg_error)
    among = ranking.ranking_measures(recovery, held, 2)
    assert (among.recall, among.average_precision, among.coverage) == (0.5, 0.25, 0.5)
    assert among.ndcg == pytest.approx((1 / np.log2(3)) / (1 + 1 / np.log2(3)))


def test_measures_of_another_shape_are_refused():
    recovery = recovery_of(np.ones((2, 1)), np.ones((1, 3)))
    with pytest.raises(ShapeError, match="held has the shape"):
        ranking.ranking_measures(recovery, dmf.SampledEntries([0], [0], [1.0], (3, 3)))


def test_aligned_entries_keep_values_weights_and_times():
    recovery = recovery_of(np.ones((3, 1)), np.ones((1, 2)), row_ids=("a", "b", "c"))
    entries = dmf.SampledEntries([0, 1, 2], [0, 1, 1], [1.0, 2.0, 3.0], (3, 2), weights=[4, 9, 16], times=[7, 8, 9])
    aligned, unknown = ranking.align(recovery, entries, row_ids=("c", "x", "a"))
    assert unknown == 1 and aligned.rows.tolist() == [0, 2]
    for name, expected in (("entries", [3, 1]), ("weights", [16, 4]), ("times", [9, 7])):
        np.testing.assert_array_equal(getattr(aligned, name), expected)
