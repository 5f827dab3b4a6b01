"""The fullest rows and columns as a problem of their own, and fits that start from theirs."""

import numpy as np
import pytest

import dmf
from dmf.completion import submatrix
from dmf.completion.submatrix import dense_core
from dmf.models import LowRank
from dmf.models.offsets import Offsets
from dmf.solvers import Outcome

from helpers import stages


@pytest.fixture
def small_cores(monkeypatch):
    """Tables of test size count as large."""
    monkeypatch.setattr(submatrix, "LARGE_TABLE", 1)


def popular(seed=0, d1=400, d2=300, rank=3, count=12_000, noise=0.3):
    """Ratings of which few rows and columns hold most, and some not seen by any solver."""
    generator = np.random.default_rng(seed)
    shares = [generator.permutation((np.arange(d) + 5.0) ** -1) for d in (d1, d2)]
    rows, cols = (generator.choice(d, 2 * count, p=p / p.sum()) for d, p in zip((d1, d2), shares, strict=True))
    u, v = generator.standard_normal((d1, rank)), generator.standard_normal((d2, rank))
    values = 3 + generator.standard_normal(d1)[rows] + np.sum(u[rows] * v[cols], axis=1)
    values += noise * generator.standard_normal(values.size)
    seen = dmf.SampledEntries(rows[:count], cols[:count], values[:count], (d1, d2))
    return seen, (rows[count:], cols[count:], values[count:])


@pytest.mark.usefixtures("small_cores")
def test_a_core_holds_few_entries_but_more_for_each_row_and_column():
    seen, _ = popular()
    core = dense_core(seen)
    inside = np.isin(seen.rows, core.rows) & np.isin(seen.cols, core.cols)
    entries = core.observations
    assert 0 < entries.n_measurements == np.sum(inside) <= 0.2 * seen.n_measurements
    assert entries.n_measurements / sum(entries.shape) >= seen.n_measurements / sum(seen.shape)
    np.testing.assert_array_equal(core.rows[entries.rows], seen.rows[inside])
    np.testing.assert_array_equal(core.cols[entries.cols], seen.cols[inside])
    np.testing.assert_array_equal(entries.values, seen.values[inside])
    counts = np.bincount(seen.rows, minlength=400)
    assert counts[core.rows].min() >= np.delete(counts, core.rows).max()


@pytest.mark.usefixtures("small_cores")
def test_uniform_positions_have_no_core():
    generator = np.random.default_rng(0)
    index = generator.permutation(200 * 200)[:8_000]
    assert dense_core(dmf.SampledEntries(index // 200, index % 200, np.ones(8_000), (200, 200))) is None


def test_small_tables_have_no_core():
    assert dense_core(popular()[0]) is None


@pytest.mark.usefixtures("small_cores")
def test_a_widened_model_is_that_of_the_core_and_the_mean_elsewhere():
    seen, _ = popular()
    core = dense_core(seen)
    generator = np.random.default_rng(1)
    left, right = (generator.standard_normal((d, 3)) for d in core.observations.shape)
    offsets = Offsets(2.5, *(generator.standard_normal(d) for d in core.observations.shape))
    model = LowRank.of_factors(left, right.T, offsets)
    product = core.widened(model).product()
    np.testing.assert_allclose(product[np.ix_(core.rows, core.cols)], model.product(), atol=1e-12)
    others = np.ix_(np.delete(np.arange(400), core.rows), np.delete(np.arange(300), core.cols))
    np.testing.assert_allclose(product[others], np.mean(seen.values))


def test_a_fit_that_starts_from_its_core_predicts_as_well(monkeypatch):
    seen, (rows, cols, values) = popular()
    shapes = []

    def look(snapshot):
        shapes.append(snapshot.model.shape)

    errors = []
    for large in (10**9, 1):
        monkeypatch.setattr(submatrix, "LARGE_TABLE", large)
        recovery = dmf.complete(seen, 4, offsets=True, callback=look)
        errors.append(np.sqrt(np.mean((recovery.predict(rows, cols) - values) ** 2)))
    assert stages(recovery) == ["offsets of the dense core", "offsets of all"] and set(shapes) == {seen.shape}
    assert errors[1] < 1.03 * errors[0] < np.std(values)


@pytest.mark.usefixtures("small_cores")
@pytest.mark.parametrize("budget", [0, 3, 8])
def test_budgets_bind_over_the_core_and_all(budget):
    recovery = dmf.complete(popular()[0], 4, offsets=True, iterations=budget)
    assert recovery.nit == budget == recovery.history.iteration[-1]
    assert recovery.outcome is Outcome.BUDGET and recovery.shape == (400, 300)
