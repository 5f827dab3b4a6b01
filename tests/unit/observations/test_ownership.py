"""Observations keep what they were given: nobody changes it afterwards."""

import pickle

import numpy as np
import pytest

import dmf

from helpers import KINDS, LIBRARIES, observe, to_host


def arrays_of(rng):
    """Sorted entries in the dtypes that are kept: what could be kept without a copy."""
    rows, cols = (index.astype(np.int32) for index in np.nonzero(rng.random((6, 5)) < 0.6))
    return rows, cols, rng.standard_normal(rows.size), rng.uniform(1, 2, rows.size)


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("asked_before", [False, True])
def test_what_the_caller_does_to_his_arrays_changes_nothing(move, weighted, asked_before, rng):
    given = list(map(move, arrays_of(rng)))
    factors = move(rng.standard_normal((6, 2))), move(rng.standard_normal((2, 5)))
    entries = dmf.SampledEntries(*given[:3], (6, 5), *given[3:][:weighted])
    expected = [to_host(a).copy() for a in entries.with_values(entries.values).evaluate(*factors)]
    if asked_before:
        entries.evaluate(*factors)
    for array in given:
        array[...] = 0 * array + 3
    for one, other in zip(entries.evaluate(*factors), expected, strict=True):
        np.testing.assert_array_equal(to_host(one), other)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_numpy_are_read_only(kind):
    observations = observe(kind)
    for one in (observations, observations.split(0.5)[0], pickle.loads(pickle.dumps(observations))):
        with pytest.raises(ValueError, match="read-only"):
            one.values *= 3


def test_with_values_does_not_keep_the_array_of_the_caller(rng):
    rows, cols, values, _ = arrays_of(rng)
    entries = dmf.SampledEntries(rows, cols, values, (6, 5))
    other = entries.with_values(values)
    values *= 3
    np.testing.assert_array_equal(other.values, entries.values)


def test_arrays_that_nobody_can_change_are_not_copied(tmp_path, rng):
    arrays = arrays_of(rng)[:3]
    kept = dmf.SampledEntries(*arrays, (6, 5))
    again = dmf.SampledEntries(kept.rows, kept.cols, kept.values, (6, 5))
    assert np.shares_memory(again.values, kept.values) and np.shares_memory(again.rows, kept.rows)
    np.save(tmp_path / "values.npy", arrays[2])
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")
    assert np.shares_memory(dmf.SampledEntries(*arrays[:2], mapped, (6, 5)).values, mapped)


class Absolute(dmf.SampledEntries):
    """Entries whose large residuals count by their size, with the gradients of that."""

    def evaluate(self, left, right):
        residual = self.predict(left, right) - self.values
        return np.sum(np.abs(residual)), *self.adjoint(np.sign(residual), left, right)


def test_a_loss_of_a_subclass_is_honoured_or_refused(rng):
    entries = Absolute(*arrays_of(rng)[:3], (6, 5))
    start = dmf.spectral_network(entries, 2, scale=0.1)
    run = dmf.gradient_descent(entries, start, 0.01, iterations=5)
    for network, loss in zip((start, run.network), run.history.loss[[0, -1]], strict=True):
        residual = entries.predict(*network.factors()) - entries.values
        np.testing.assert_allclose(loss, np.mean(np.abs(residual)), rtol=1e-12)
    for solver in (dmf.solvers.variational_bayes, dmf.solvers.refine):
        with pytest.raises(dmf.errors.ArgumentError, match="Absolute overrides") as caught:
            solver(entries, start)
        assert (caught.value.argument, caught.value.limit) == ("observations", "SampledEntries")


def test_measurements_that_are_no_entries_are_for_other_calls(rng):
    for kind, call in (("rank one", "sense"), ("linear array", "sense"), ("full", "factorize")):
        with pytest.raises(dmf.errors.ArgumentError, match=f"Use dmf.{call}"):
            dmf.complete(observe(kind))


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
def test_parts_of_rows_and_columns(move, rng):
    """Restricted, counted, multiplied by the pattern, and connected: against a dense matrix; one position is seen twice."""
    rows, cols = np.nonzero(rng.random((7, 6)) < 0.4)
    rows, cols = np.append(rows, rows[3]), np.append(cols, cols[3])
    values, weights = rng.standard_normal(rows.size), rng.uniform(1, 2, rows.size)
    entries = dmf.SampledEntries(*map(move, (rows, cols, values)), (7, 6), move(weights))
    pattern = np.zeros((7, 6))
    np.add.at(pattern, (rows, cols), 1)
    for side in (0, 1):
        np.testing.assert_array_equal(to_host(entries.counts(side)), pattern.sum(axis=1 - side))
        factor = rng.standard_normal((pattern.shape[1 - side], 2))
        product = to_host(entries.pattern_product(side, move(factor)))
        np.testing.assert_allclose(product, (pattern if side == 0 else pattern.T) @ factor, atol=1e-12)
    chosen = np.array([0, 2, 3, 6]), np.array([1, 2, 5])
    part = entries.restricted(*map(move, chosen))
    positions = to_host(entries.rows), to_host(entries.cols)
    inside = np.isin(positions[0], chosen[0]) & np.isin(positions[1], chosen[1])
    assert part.shape == (4, 3)
    np.testing.assert_array_equal(chosen[0][to_host(part.rows)], positions[0][inside])
    np.testing.assert_array_equal(chosen[1][to_host(part.cols)], positions[1][inside])
    for name in ("entries", "weights", "values"):
        np.testing.assert_array_equal(to_host(getattr(part, name)), to_host(getattr(entries, name))[inside])


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
def test_connected_components(move, monkeypatch):
    """Two blocks, joined through a chain; a row and a column without entries are on their own."""
    monkeypatch.setattr("dmf.observations.positions._AT_ONCE", 3)
    rows, cols = np.array([0, 0, 1, 2, 3, 3, 5]), np.array([0, 1, 1, 2, 2, 3, 4])
    entries = dmf.SampledEntries(move(rows), move(cols), move(np.ones(7)), (6, 6))
    by_row, by_col = (to_host(labels).tolist() for labels in entries.connectivity())
    assert by_row[0] == by_row[1] == by_col[0] == by_col[1]
    assert by_row[2] == by_row[3] == by_col[2] == by_col[3]
    assert by_row[5] == by_col[4]
    assert len({by_row[0], by_row[2], by_row[4], by_row[5], by_col[5]}) == 5
