"""The pipelines: complete, factorize, sense."""

import numpy as np
import pytest
import scipy.sparse

import dmf


def low_rank(rng, d1=60, d2=50, rank=3):
    return rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, d2))


def holed(matrix, rng, share=0.5):
    return np.where(rng.random(matrix.shape) < share, matrix, np.nan)


def error(recovery, matrix):
    return np.linalg.norm(recovery.product() - matrix) / np.linalg.norm(matrix)


def test_complete_recovers_and_keeps_what_was_seen(rng):
    matrix = low_rank(rng)
    table = holed(matrix, rng)
    recovery = dmf.complete(table, rank=6)
    assert recovery.status.reason == "converged"
    assert error(recovery, matrix) < 1e-3
    filled = recovery.filled()
    seen = ~np.isnan(table)
    np.testing.assert_array_equal(filled[seen], table[seen])
    np.testing.assert_array_equal(filled[~seen], recovery.product()[~seen])
    assert recovery.offsets is None and recovery.options["offsets"] is False
    assert recovery.options["validation_rmse"] < 1e-3


def test_the_three_forms_of_the_data_are_one(rng):
    table = holed(low_rank(rng), rng)
    rows, cols = np.nonzero(~np.isnan(table))
    entries = dmf.SampledEntries(rows, cols, table[rows, cols], table.shape)
    sparse = scipy.sparse.csr_array((table[rows, cols], (rows, cols)), shape=table.shape)
    products = [dmf.complete(data, rank=4, iterations=300).product() for data in (table, entries, sparse)]
    np.testing.assert_array_equal(products[0], products[1])
    np.testing.assert_array_equal(products[0], products[2])


def test_offsets_are_taken_where_they_predict(rng):
    """A table of row and column effects with noise: offsets explain it, and the prediction is near the noise."""
    effects = 3 + rng.standard_normal((60, 1)) + rng.standard_normal(50)
    recovery = dmf.complete(holed(effects + 0.1 * rng.standard_normal(effects.shape), rng), rank=3)
    assert recovery.offsets is not None
    rmse = np.sqrt(np.mean((recovery.product() - effects) ** 2))
    assert rmse < 0.1
    without = dmf.complete(holed(effects, rng), rank=3, offsets=False)
    assert without.offsets is None


def test_noise_is_not_fitted(rng):
    """On pure noise nothing predicts: the model stays near zero instead of following the samples."""
    noise = rng.standard_normal((60, 50))
    recovery = dmf.complete(holed(noise, rng), rank=10)
    assert recovery.status.reason == "converged"
    assert np.sqrt(np.mean(recovery.product() ** 2)) < 0.3


def test_float32_stays_float32(rng):
    matrix = low_rank(rng).astype(np.float32)
    recovery = dmf.complete(holed(matrix, rng), rank=4)
    assert recovery.product().dtype == recovery.filled().dtype == np.float32
    assert error(recovery, matrix) < 1e-2


def test_scale_of_the_data_does_not_matter(rng):
    """In other units the same matrix is found."""
    matrix = low_rank(rng)
    table = holed(matrix, rng)
    for factor in (1e-6, 1e6):
        assert error(dmf.complete(factor * table, rank=4), factor * matrix) < 1e-3


def test_rank_defaults_to_a_bound_that_fits(rng):
    assert dmf.complete(np.array([[1.0, np.nan], [2.0, 4.0]])).network.widths == (2, 2)
    assert dmf.complete(holed(low_rank(rng), rng), iterations=10).network.widths == (10, 10)


@pytest.mark.parametrize(
    "table", [[[3.0]], [[1.0, np.nan, 2.0]], [[1.0], [np.nan], [4.0]], [[0.0, np.nan], [0.0, 0.0]]]
)
def test_degenerate_tables(table):
    """One entry, one row, one column, zeros: a finite matrix that keeps the entries."""
    table = np.array(table)
    filled = dmf.complete(table).filled()
    seen = ~np.isnan(table)
    assert np.isfinite(filled).all()
    np.testing.assert_array_equal(filled[seen], table[seen])


def test_the_step_is_halved_when_it_diverges(rng, monkeypatch):
    monkeypatch.setattr(dmf.fit, "largest_curvature", lambda *a, **k: 1e-3)  # far below the true one
    matrix = low_rank(rng)
    recovery = dmf.complete(holed(matrix, rng), rank=4)
    assert recovery.status.reason in ("converged", "diverged")
    assert np.isfinite(recovery.product()).all()


def test_a_given_step_that_diverges_is_reported(rng):
    recovery = dmf.complete(holed(low_rank(rng), rng), rank=4, step_size=1e9)
    assert recovery.status.reason == "diverged"
    assert "smaller step_size" in recovery.status.advice
    assert np.isfinite(recovery.product()).all()


def test_interrupted_in_any_phase(rng):
    """Ctrl-C: the pipeline ends at once with a finite model, and does not start its next phase."""
    phases = []

    def interrupt(snapshot):
        phases.append(snapshot.phase)
        if snapshot.iteration >= 100:
            raise KeyboardInterrupt

    recovery = dmf.complete(holed(low_rank(rng), rng), rank=4, callback=interrupt)
    assert recovery.status.reason == "interrupted"
    assert set(phases) == {"choose"}
    assert np.isfinite(recovery.product()).all()


def test_factorize_equals_the_truncated_svd(rng):
    matrix = low_rank(rng, rank=10) + 0.1 * rng.standard_normal((60, 50))
    u, s, vt = np.linalg.svd(matrix)
    best = (u[:, :4] * s[:4]) @ vt[:4]
    recovery = dmf.factorize(matrix, rank=4)
    np.testing.assert_allclose(recovery.product(), best, atol=1e-4 * s[0])
    np.testing.assert_array_equal(recovery.filled(), matrix)


class Diagonal:
    """Operator object without a shape: some entries of the matrix, doubled."""

    def __init__(self, rows, cols, shape):
        self._rows, self._cols, self._matrix_shape = rows, cols, shape

    def forward(self, matrix):
        return 2 * matrix[self._rows, self._cols]

    def adjoint(self, weights):
        result = np.zeros(self._matrix_shape)
        np.add.at(result, (self._rows, self._cols), 2 * weights)
        return result


def test_sense_with_an_array_and_with_an_operator(rng):
    matrix = low_rank(rng, 15, 12, 2)
    A = rng.standard_normal((300, 15, 12))
    assert error(dmf.sense(A, np.einsum("mij,ij->m", A, matrix), rank=4), matrix) < 1e-3
    rows, cols = np.nonzero(rng.random(matrix.shape) < 0.8)
    operator = Diagonal(rows, cols, matrix.shape)
    assert error(dmf.sense(operator, 2 * matrix[rows, cols], rank=2, shape=matrix.shape), matrix) < 1e-2
    with pytest.raises(dmf.ShapeError, match="shape is missing"):
        dmf.sense(operator, 2 * matrix[rows, cols], rank=2)
    with pytest.raises(dmf.ShapeError, match="measures"):
        dmf.sense(A, A[:, 0, 0], shape=(12, 15))


def test_sense_with_noise_stops_by_held_out_measurements(rng):
    matrix = low_rank(rng, 15, 12, 2)
    A = rng.standard_normal((400, 15, 12))
    y = np.einsum("mij,ij->m", A, matrix) + 2 * rng.standard_normal(400)
    held = dmf.sense(A, y, rank=12, validation=0.2)
    assert "validation_rmse" in held.options
    assert error(held, matrix) < error(dmf.sense(A, y, rank=12), matrix)


def test_other_array_libraries(rng):
    strict = pytest.importorskip("array_api_strict")
    matrix = low_rank(rng, 20, 16, 2)
    table = holed(matrix, rng, 0.7)
    moved = strict.asarray(table, device=strict.Device("device1"))
    recovery = dmf.complete(moved, rank=3, iterations=200)
    filled = recovery.filled()
    assert type(filled) is type(moved) and filled.device == moved.device
    expected = dmf.complete(table, rank=3, iterations=200)
    back = np.asarray(filled.to_device(strict.Device("CPU_DEVICE")))
    np.testing.assert_allclose(back, expected.filled(), atol=1e-8)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"rank": 0}, dmf.RankError, "rank=0"),
        ({"rank": 51}, dmf.RankError, "from 1 to 50"),
        ({"rank": 2.5}, dmf.RankError, "2.5"),
        ({"rank": True}, dmf.RankError, "True"),
        ({"depth": 0}, dmf.ArgumentError, "depth=0"),
        ({"scale": -1.0}, dmf.ArgumentError, "scale=-1.0"),
        ({"outer_scale": 0}, dmf.ArgumentError, "outer_scale=0"),
        ({"step_size": float("nan")}, dmf.ArgumentError, "step_size=nan"),
        ({"iterations": -1}, dmf.ArgumentError, "iterations=-1"),
        ({"iterations": 1.5}, dmf.ArgumentError, "iterations=1.5"),
        ({"validation": 1.0}, dmf.ArgumentError, "validation=1.0"),
        ({"offsets": "yes"}, dmf.ArgumentError, "offsets='yes'"),
        ({"seed": -3}, dmf.ArgumentError, "seed=-3"),
    ],
)
def test_bad_options(options, kind, words, rng):
    with pytest.raises(kind, match=words):
        dmf.complete(holed(low_rank(rng), rng), **options)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (np.full((3, 3), np.nan), dmf.ObservationError, "no entry is observed"),
        (np.array([[1.0, np.inf]]), dmf.ObservationError, "infinite"),
        (np.ones(3), dmf.ShapeError, "1 dimensions"),
        (np.empty((0, 3)), dmf.ShapeError, "shape"),
        (np.array([["a", "b"]]), dmf.DTypeError, "numbers are needed"),
        (np.ones((2, 2), complex), dmf.DTypeError, "complex"),
        (np.ones((2, 2), np.float16), dmf.DTypeError, "float16"),
        ([[1, 2], [3]], dmf.DTypeError, "rectangular"),
    ],
)
def test_bad_data(data, kind, words):
    with pytest.raises(kind, match=words):
        dmf.complete(data)
