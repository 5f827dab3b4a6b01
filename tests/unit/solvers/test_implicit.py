"""Implicit feedback: what the sums over counts give is weighted least squares over all cells."""

import numpy as np
import pytest

import dmf
from dmf.errors import ArgumentError, ObservationError
from dmf.solvers import implicit_feedback


def some_counts(rng, shape=(9, 7), dtype=np.float64):
    table = rng.poisson(0.7, shape).astype(dtype)
    table[0, 0] = 1
    return dmf.SampledEntries(*np.nonzero(table), table[table > 0], shape), table


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-3)])
def test_each_factor_is_the_dense_weighted_least_squares_one(dtype, tolerance, rng):
    counts, table = some_counts(rng, dtype=dtype)
    left, right = implicit_feedback(counts, 3, confidence=2.0, ridge=0.3, iterations=4).network.factors()
    assert right.dtype == dtype
    for j in range(7):
        weights = 1 + 2.0 * table[:, j]
        normal = left.T @ (weights[:, None] * left) + 0.3 * np.eye(3)
        np.testing.assert_allclose(
            right[:, j], np.linalg.solve(normal, left.T @ (weights * (table[:, j] > 0))), tolerance, tolerance
        )


def test_a_sweep_lowers_the_sum_over_all_cells(rng):
    counts, table = some_counts(rng)

    def objective(iterations):
        left, right = implicit_feedback(counts, 2, ridge=0.5, iterations=iterations).network.factors()
        error = np.sum((1 + table) * ((table > 0) - left @ right) ** 2)
        return error + 0.5 * (np.sum(left**2) + np.sum(right**2))

    sums = [objective(k) for k in (1, 2, 4, 8)]
    assert all(after < before for before, after in zip(sums, sums[1:], strict=False))


def test_cells_of_count_0_are_as_good_as_none(rng):
    counts, table = some_counts(rng)
    whole = dmf.SampledEntries(*(a.ravel() for a in np.indices(table.shape)), table.ravel(), table.shape)
    one, other = (implicit_feedback(c, 2).network.factors() for c in (counts, whole))
    np.testing.assert_array_equal(one[1], other[1])


def test_events_of_a_cell_add_up(rng):
    counts, table = some_counts(rng)
    times = table[table > 0].astype(int)
    events = dmf.SampledEntries(
        *(np.repeat(index, times) for index in np.nonzero(table)), np.ones(times.sum()), table.shape
    )
    one, other = (implicit_feedback(c, 2).network.factors() for c in (counts, events))
    np.testing.assert_array_equal(one[1], other[1])


def test_who_likes_the_same_is_shown_it():
    """Two groups; a cell that was not chosen within the group ranks before all of the other group."""
    table = np.kron(np.eye(2), np.ones((6, 5)))
    table[0, 4] = 0
    counts = dmf.SampledEntries(*np.nonzero(table), table[table > 0], table.shape)
    left, right = implicit_feedback(counts, 2).network.factors()
    scores = (left @ right)[0]
    assert scores[4] > 0.3 > np.abs(scores[5:]).max()


def test_what_cannot_be_is_refused():
    with pytest.raises(ObservationError, match="from -1 to 2"):
        implicit_feedback(dmf.SampledEntries([0, 1], [0, 1], [-1.0, 2.0], (2, 2)), 1)
    with pytest.raises(ObservationError, match="from 0 to 0"):
        implicit_feedback(dmf.SampledEntries([0], [0], [0.0], (2, 2)), 1)
    with pytest.raises(ArgumentError, match="ridge"):
        implicit_feedback(dmf.SampledEntries([0], [0], [1.0], (2, 2)), 1, ridge=0)
