"""Whole calls on other arrays than NumPy's: no implicit conversion, devices passed on.

They find what they find on NumPy arrays. What the suites in tests/contracts run over every library is not repeated here.
"""

import numpy as np
import pytest
from low_rank_cases import low_rank_case

import dmf
from dmf.arrays.backend import namespace, to_host
from dmf.recovery.ranking import align, top_columns
from dmf.theory import learning_times

from helpers import LIBRARIES, OTHERS, observe, start


@pytest.fixture(scope="module", params=OTHERS)
def moves(request):
    """To NumPy and to another library."""
    return LIBRARIES["numpy"], LIBRARIES[request.param]


def entries_in(moves, rows, cols, values, shape):
    """The same entries in each library."""
    return [dmf.SampledEntries(move(rows), move(cols), move(values), shape) for move in moves]


def rating_entries(moves, seed=0, shape=(30, 25)):
    """Row and column offsets, a component and noise."""
    rng = np.random.default_rng(seed)
    table = 3 + rng.standard_normal(shape[0])[:, None] + rng.standard_normal(shape[1])
    table += np.outer(rng.standard_normal(shape[0]), rng.standard_normal(shape[1]))
    rows, cols = np.nonzero(rng.random(shape) < 0.6)
    return entries_in(moves, rows, cols, table[rows, cols] + 0.1 * rng.standard_normal(rows.size), shape)


def assert_same(one, other, tolerance=1e-6):
    """Of two recoveries, the first in NumPy: matrices and what was found; the second in the other library, on its device."""
    assert all(part.device == other.observations.values.device for part in other.factors())
    size = np.max(np.abs(one.product()))
    np.testing.assert_allclose(to_host(other.product()), one.product(), rtol=0, atol=tolerance * size)
    assert [getattr(one.found, key) for key in ("rank", "exact", "offsets")] == [
        getattr(other.found, key) for key in ("rank", "exact", "offsets")
    ]


@pytest.fixture(scope="module")
def exact(moves):
    case = low_rank_case(0, (24, 20), rank=2, oversampling=3.0)
    data = entries_in(moves, case.rows, case.cols, case.values, case.matrix.shape)
    return [dmf.complete(entries, offsets=False) for entries in data]


@pytest.fixture(scope="module")
def noisy(moves):
    """Recoveries with offsets, and the entries that they have not seen."""
    parts = [entries.split(0.2) for entries in rating_entries(moves)]
    return [dmf.complete(kept, rank=2, offsets=True) for kept, _ in parts], [held for _, held in parts]


def test_complete(exact, noisy):
    assert exact[0].found.exact
    assert_same(*exact)
    assert noisy[0][0].found.offsets
    assert_same(*noisy[0], tolerance=1e-4)


def test_factorize_and_sense(moves, rng):
    matrix = rng.standard_normal((12, 3)) @ rng.standard_normal((3, 10))
    assert_same(*(dmf.factorize(move(matrix)) for move in moves))
    operator = rng.standard_normal((100, 12, 10))
    values = operator.reshape(100, -1) @ matrix.ravel()
    assert_same(*(dmf.sense(move(operator), move(values)) for move in moves))


def test_filled_and_predicted(exact, moves):
    one, other = exact
    np.testing.assert_allclose(to_host(other.filled()), one.filled(), atol=1e-9)
    index = np.array([3, 0, 5])
    found = other.predict(*(moves[1](index),) * 2)
    assert found.device == other.observations.values.device
    np.testing.assert_allclose(to_host(found), one.predict(index, index), atol=1e-9)
    np.testing.assert_allclose(other.predict_named(["3"], ["0"])[0], one.predict_named(["3"], ["0"])[0], atol=1e-9)


def test_intervals(noisy, moves):
    """Calibration holds numbers of the host; an interval lies where its positions are."""
    calibrated = [dmf.calibrate(recovery, held) for recovery, held in zip(*noisy, strict=True)]
    np.testing.assert_allclose(*(c.heldout.quantiles for c in calibrated), atol=1e-3)
    assert all(isinstance(q, float) for q in calibrated[1].heldout.quantiles)
    index = np.arange(5)
    low, high = dmf.prediction_interval(calibrated[1], *(moves[1](index),) * 2)
    assert low.device == high.device == noisy[0][1].observations.values.device
    np.testing.assert_allclose(to_host(low), dmf.prediction_interval(calibrated[0], index, index)[0], atol=1e-3)


def test_ranking(noisy, moves):
    """Columns come as NumPy arrays, as what follows is a list for people."""
    (one, other), (held, held_there) = noisy
    for seen in (False, True):
        found, expected = (
            top_columns(r, index, 4, h if seen else None)
            for r, index, h in ((other, moves[1](np.arange(3)), held_there), (one, np.arange(3), held))
        )
        np.testing.assert_array_equal(found[1], expected[1])
    aligned, unknown = align(other, held_there)
    assert unknown == 0
    np.testing.assert_array_equal(aligned.rows, held.rows)


def test_new_rows_of_a_model_with_offsets(noisy, moves):
    new = rating_entries(moves, seed=1, shape=(7, 25))
    folded = [dmf.new_rows(recovery, entries) for recovery, entries in zip(noisy[0], new, strict=True)]
    assert_same(*folded, tolerance=1e-4)


def test_rank_path(moves):
    paths = [dmf.completion.rank_path(entries, most=2, offsets=True) for entries in rating_entries(moves)]
    assert paths[0].best == paths[1].best == 1
    np.testing.assert_allclose(*([s.heldout_rmse for s in path.steps] for path in paths), rtol=1e-3)


def test_callbacks_may_measure_on_the_device(moves):
    """What a callback returns becomes a column of the history, wherever it lies."""
    observations = observe("entries", move=moves[1])
    run = dmf.gradient_descent(
        observations,
        start(observations),
        0.01,
        iterations=3,
        callback=lambda at: {"sums": namespace(observations.values).sum(at.network.product(), axis=0)},
    )
    assert run.history["sums"].shape == (4, 5)
    np.testing.assert_allclose(run.history["sums"][-1], to_host(run.network.product()).sum(axis=0), rtol=1e-12)


def test_theory_takes_values_of_any_library(moves):
    values = np.array([3.0, 2.0, 1.0])
    times = [learning_times(move(values), depth=3, scale=0.1, step_size=0.01) for move in moves]
    np.testing.assert_array_equal(*times)


def test_the_largest_matrix_is_bounded_by_memory(moves, monkeypatch):
    """The size is that of the product, the limit that of the memory where its factors lie."""
    recovery = dmf.complete(observe("entries", move=moves[1]), 2, iterations=1)
    monkeypatch.setattr("dmf.recovery.results.free_memory", lambda like: 239 if like is recovery.model.s else None)
    with pytest.raises(dmf.errors.ArgumentError, match="6 x 5 matrix takes") as caught:
        recovery.product()
    assert (caught.value.value, caught.value.limit) == (240, 239)
