"""Rows and columns without entries, with few of them, and entries that say the same thing again."""

import numpy as np
import pytest
from low_rank_cases import low_rank_case

import dmf
from dmf.completion.submatrix import occupied_part

SPACINGS = {"twelfth": (12, 12), "twentieth row": (20, 1), "third column": (1, 3)}


def spaced(case, apart, values=None, weights=None):
    """The entries of a case in every `apart`-th row and column of a larger matrix."""
    shape = tuple(n * step for n, step in zip(case.matrix.shape, apart, strict=True))
    values = case.values if values is None else values
    arguments = case.rows * apart[0], case.cols * apart[1], values, shape
    return dmf.SampledEntries(*arguments, weights)


def part_of(array, apart):
    return array[:: apart[0], :: apart[1]]


@pytest.fixture(params=SPACINGS.values(), ids=SPACINGS)
def apart(request):
    return request.param


@pytest.fixture
def case():
    return low_rank_case(0, (40, 35), 3, oversampling=3.5)


def test_a_bound_above_the_size_of_the_part(case):
    run = dmf.complete(spaced(case, (2, 2)), 60)
    assert run.found.exact and run.found.rank == 3 and run.settings.rank == 60


@pytest.mark.parametrize("rank", [None, 3])
def test_an_exact_matrix_is_found_between_empty_rows_and_columns(case, apart, rank):
    alone, among = dmf.complete(case.observations, rank), dmf.complete(spaced(case, apart), rank)
    assert among.found.exact and among.found.rank == 3 and among.settings.rank == rank
    product = among.product()
    np.testing.assert_allclose(part_of(product, apart), alone.product(), rtol=0, atol=1e-10)
    rows, cols = (
        tuple(np.flatnonzero(np.arange(size) % step)) for size, step in zip(product.shape, apart, strict=True)
    )
    known = np.delete(np.delete(product, rows, axis=0), cols, axis=1)
    mean_row, mean_col = known.mean(axis=0), known.mean(axis=1)  # of what the others have
    np.testing.assert_allclose(np.delete(product, cols, axis=1)[rows, :], np.tile(mean_row, (len(rows), 1)), atol=1e-12)
    np.testing.assert_allclose(
        np.delete(product, rows, axis=0)[:, cols], np.tile(mean_col[:, None], len(cols)), atol=1e-12
    )
    np.testing.assert_allclose(product[np.ix_(rows, cols)], known.mean(), atol=1e-12)
    assert among.found.undetermined == (rows, cols) and alone.found.undetermined == ((), ())
    assert all(f"{len(index)} " in among.message for index in (rows, cols) if index)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("offsets", [False, True])
def test_a_fit_to_noise_is_that_without_the_empty_ones(case, apart, offsets, weighted, rng):
    noisy = case.values + 0.1 * rng.standard_normal(case.values.size) + (5 if offsets else 0)
    weights = rng.uniform(0.5, 2, noisy.size) if weighted else None
    alone, among = (dmf.complete(spaced(case, step, noisy, weights), offsets=offsets) for step in ((1, 1), apart))
    (left, right), whole = among.factors(), alone.factors()
    np.testing.assert_allclose(part_of(left @ right, apart), whole[0] @ whole[1], rtol=0, atol=1e-12)
    assert among.found.noise == alone.found.noise and among.message.startswith(alone.message)
    assert any(among.found.undetermined) and "without any entry" in among.message


def test_callbacks_see_the_whole_matrix(case, apart):
    shapes = []
    run = dmf.complete(
        spaced(case, apart), callback=lambda snapshot: shapes.append((snapshot.stage, snapshot.model.shape))
    )
    assert {shape for _, shape in shapes} == {run.shape} and all(stage for stage, _ in shapes)


def test_there_is_no_part_of_a_matrix_without_gaps(case):
    assert occupied_part(case.observations) is None


@pytest.mark.parametrize("copies", [2])
def test_copies_of_noise_are_no_exact_matrix(copies, rng):
    rows, cols = np.nonzero(rng.random((15, 12)) < 0.4)
    entries = (np.tile(a, copies) for a in (rows, cols, rng.standard_normal(rows.size)))
    assert not dmf.complete(dmf.SampledEntries(*entries, (15, 12)), 3).found.exact


def test_copies_of_measurements_are_no_exact_matrix(rng):
    operator, values = rng.standard_normal((30, 10, 10)), rng.standard_normal(30)
    sensed = dmf.sense(np.tile(operator, (4, 1, 1)), np.tile(values, 4), 2)
    assert sensed.observations.n_distinct == 30 and not sensed.found.exact


@pytest.mark.parametrize("others", [10, 200])
def test_rows_seen_once_do_not_look_like_noise(others):
    """Of 60 rows with 20 entries each, found to 5 % (3.1 to 4 % without the others), and noise of 0.1."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((60 + others, 3)) @ rng.standard_normal((3, 50))
    seen = rng.random(truth.shape) < 0.4
    seen[60:] = False
    seen[np.arange(60, 60 + others), rng.integers(0, 50, others)] = True
    rows, cols = np.nonzero(seen)
    values = truth[rows, cols] + 0.1 * rng.standard_normal(rows.size)
    run = dmf.complete(dmf.SampledEntries(rows, cols, values, truth.shape))
    assert np.linalg.norm(run.product()[:60] - truth[:60]) < 0.05 * np.linalg.norm(truth[:60])
    assert run.found.rank == 3 and 0.09 < run.found.noise < 0.15


@pytest.mark.parametrize(("change", "constant"), [(0.0, True), (0.5, False)])
def test_entries_that_are_all_the_same_hold_no_ranking(change, constant, rng):
    """Clicks, of which only those that happened are given: every prediction is the same."""
    rows, cols = np.nonzero(rng.random((60, 30)) < 0.3)
    values = np.full(rows.size, 3.0) + change * (rows % 2)
    found = dmf.complete(dmf.SampledEntries(rows, cols, values, (60, 30)))
    assert found.found.exact and found.found.constant == constant and ("no ranking" in found.message) == constant


def test_of_one_entry_the_mean_is_known():
    one = dmf.complete([[3.5]])
    assert one.found.rank == 0 and one.product().tolist() == [[3.5]]
    seen = np.full((4, 3), np.nan)
    seen[2, 1] = 3.5
    np.testing.assert_array_equal(dmf.complete(seen).predict([2], [1]), [3.5])
