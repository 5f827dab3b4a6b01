"""The pipelines: complete, factorize, sense."""

import numpy as np
import pytest
import scipy.sparse

import dmf
from dmf.arrays.backend import to_host

from helpers import LIBRARIES, assert_same_weights


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
    assert recovery.success
    assert error(recovery, matrix) < 1e-12
    filled = recovery.filled()
    seen = ~np.isnan(table)
    np.testing.assert_array_equal(filled[seen], table[seen])
    np.testing.assert_array_equal(filled[~seen], recovery.product()[~seen])
    assert recovery.offsets is None and recovery.found.offsets is False
    assert (recovery.found.rank, recovery.found.noise, recovery.found.exact) == (3, 0.0, True)
    assert (recovery.settings.rank, recovery.settings.seed) == (6, 0)
    assert recovery.network.widths == (3, 3)


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
    assert rmse < 0.05
    assert recovery.found.noise == pytest.approx(0.1, rel=0.2)
    without = dmf.complete(holed(effects, rng), rank=3, offsets=False)
    assert without.offsets is None
    assert (without.found.rank, without.found.exact) == (2, True)


def test_offsets_on_demand(rng):
    """Predictions, parts and the options agree on whether there are offsets."""
    recovery = dmf.complete(holed(low_rank(rng), rng), rank=4, offsets=True)
    assert recovery.offsets is not None and recovery.found.offsets is True
    assert recovery.found.exact is False
    parts = recovery.network.product() + recovery.offsets.factors()[0] @ recovery.offsets.factors()[1]
    np.testing.assert_allclose(recovery.product(), parts, atol=1e-12)


def test_noise_is_not_fitted(rng):
    """On pure noise nothing predicts: the model stays near zero instead of following the samples."""
    noise = rng.standard_normal((60, 50))
    recovery = dmf.complete(holed(noise, rng), rank=10)
    assert recovery.success
    assert np.sqrt(np.mean(recovery.product() ** 2)) < 0.3
    assert recovery.found.noise == pytest.approx(1.0, rel=0.1)


def test_float32_stays_float32(rng):
    matrix = low_rank(rng).astype(np.float32)
    recovery = dmf.complete(holed(matrix, rng), rank=4)
    assert recovery.product().dtype == recovery.filled().dtype == np.float32
    assert error(recovery, matrix) < 1e-5
    assert recovery.found.exact


def test_scale_of_the_data_does_not_matter(rng):
    """In other units the same matrix is found."""
    matrix = low_rank(rng)
    table = holed(matrix, rng)
    for factor in (1e-6, 1e6):
        assert error(dmf.complete(factor * table, rank=4), factor * matrix) < 1e-12


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_the_network_has_the_rank_that_was_found_and_the_depth_asked_for(depth, rng):
    matrix = low_rank(rng)
    network = dmf.complete(holed(matrix, rng)).model.network(depth)
    assert network.widths == (3,) * (depth - 1)
    assert network.depth == depth
    assert error(network, matrix) < 1e-12


def test_a_rank_above_the_first_bound_is_found(rng):
    """Without a bound given, the search begins below 13."""
    matrix = low_rank(rng, 80, 90, 13)
    recovery = dmf.complete(holed(matrix, rng, 0.8))
    assert recovery.found.rank == 13
    assert error(recovery, matrix) < 1e-12


def test_factorize_equals_the_truncated_svd(rng):
    matrix = low_rank(rng, rank=10) + 0.1 * rng.standard_normal((60, 50))
    u, s, vt = np.linalg.svd(matrix)
    best = (u[:, :4] * s[:4]) @ vt[:4]
    recovery = dmf.factorize(matrix, rank=4)
    np.testing.assert_allclose(recovery.product(), best, atol=1e-12 * s[0])
    np.testing.assert_array_equal(recovery.filled(), matrix)
    assert (recovery.found.rank, recovery.found.exact) == (4, False)
    assert recovery.history.loss[-1] == pytest.approx(np.sum(s[4:] ** 2) / 2 / matrix.size)
    assert recovery.found.noise == pytest.approx(np.sqrt(np.sum(s[4:] ** 2) / matrix.size))


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_factorize_finds_the_rank(noise, rng):
    matrix = low_rank(rng, rank=4)
    recovery = dmf.factorize(matrix + noise * rng.standard_normal(matrix.shape))
    assert recovery.found.rank == 4
    assert recovery.found.exact == (noise == 0)
    assert recovery.found.noise == pytest.approx(noise, rel=0.1)
    assert recovery.success


def test_factorize_of_nothing_but_noise_or_zeros_is_zero(rng):
    for matrix in (rng.standard_normal((30, 20)), np.zeros((4, 3))):
        recovery = dmf.factorize(matrix)
        assert recovery.found.rank == 0
        np.testing.assert_array_equal(recovery.product(), 0)


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
    assert error(dmf.sense(A, np.einsum("mij,ij->m", A, matrix), rank=4), matrix) < 1e-12
    rows, cols = np.nonzero(rng.random(matrix.shape) < 0.8)
    operator = Diagonal(rows, cols, matrix.shape)
    assert error(dmf.sense(operator, 2 * matrix[rows, cols], rank=2, shape=matrix.shape), matrix) < 1e-12
    with pytest.raises(dmf.errors.ShapeError, match="shape is missing"):
        dmf.sense(operator, 2 * matrix[rows, cols], rank=2)
    with pytest.raises(dmf.errors.ShapeError, match="measures"):
        dmf.sense(A, A[:, 0, 0], shape=(12, 15))


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
    np.testing.assert_allclose(back, expected.filled(), atol=1e-8 * np.max(np.abs(matrix)))


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"rank": 0}, dmf.errors.RankError, "rank=0"),
        ({"rank": 51}, dmf.errors.RankError, "from 1 to 50"),
        ({"rank": 2.5}, dmf.errors.RankError, "2.5"),
        ({"rank": True}, dmf.errors.RankError, "True"),
        ({"iterations": -1}, dmf.errors.ArgumentError, "iterations=-1"),
        ({"iterations": 1.5}, dmf.errors.ArgumentError, "iterations=1.5"),
        ({"offsets": "yes"}, dmf.errors.ArgumentError, "offsets='yes'"),
        ({"seed": -3}, dmf.errors.ArgumentError, "seed=-3"),
        ({"holdout": -0.1}, dmf.errors.ArgumentError, "holdout=-0.1"),
        ({"holdout": 1.0}, dmf.errors.ArgumentError, "held-out share"),
        ({"holdout": "0.1"}, dmf.errors.ArgumentError, "holdout='0.1'"),
        ({"bounds": (1, 1)}, dmf.errors.ArgumentError, r"bounds=\(1, 1\)"),
        ({"bounds": (5, 1)}, dmf.errors.ArgumentError, "the first below the second"),
        ({"bounds": (0, float("nan"))}, dmf.errors.ArgumentError, "bounds="),
        ({"bounds": (0,)}, dmf.errors.ArgumentError, "bounds="),
        ({"bounds": ("0", "1")}, dmf.errors.ArgumentError, "bounds="),
        ({"bounds": 3}, dmf.errors.ArgumentError, "bounds=3"),
    ],
)
def test_bad_options(options, kind, words, rng):
    with pytest.raises(kind, match=words):
        dmf.complete(holed(low_rank(rng), rng), **options)


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bounds", [(-0.5, 0.75), (0, np.inf)])
def test_predictions_stay_within_their_bounds(move, dtype, bounds, rng):
    """All that predicts is what it was without bounds, clipped; observed entries and the fit do not change."""
    table = holed(low_rank(rng, 14, 12, 2) + 0.1 * rng.standard_normal((14, 12)), rng, 0.7).astype(dtype)
    few = {"rank": 2, "iterations": 5, "offsets": False}
    plain, bounded = dmf.complete(move(table), **few), dmf.complete(move(table), bounds=bounds, **few)
    rows, cols = np.nonzero(np.isnan(table))
    for find in (
        lambda recovery: recovery.product(),
        lambda recovery: recovery.predict(move(rows), move(cols)),
        lambda recovery: to_host(recovery.filled())[rows, cols],
        lambda recovery: recovery.predict_named([str(i) for i in rows], [str(j) for j in cols])[0],
    ):
        expected = np.clip(to_host(find(plain)), *bounds)
        assert expected.min() == bounds[0]
        np.testing.assert_array_equal(to_host(find(bounded)), expected)
        assert to_host(find(bounded)).dtype == dtype
    seen = ~np.isnan(table)
    np.testing.assert_array_equal(to_host(bounded.filled())[seen], table[seen])
    assert_same_weights(plain, bounded)


def test_unknown_rows_and_columns_get_mean_and_offsets_within_bounds(rng):
    table = holed(low_rank(rng) + 0.2 * rng.standard_normal((60, 50)) + 3 * rng.standard_normal((1, 50)), rng)
    recovery = dmf.complete(table, offsets=True, bounds=(-1, 1))
    values, known = recovery.predict_named(["0", "x", "x", "0"], ["0", "0", "y", "y"])
    offsets = recovery.offsets
    expected = [
        recovery.predict([0], [0])[0],
        offsets.mean + offsets.col[0],
        offsets.mean,
        offsets.mean + offsets.row[0],
    ]
    np.testing.assert_allclose(values, np.clip(expected, -1, 1))
    assert known.tolist() == [True, False, False, False]
    assert abs(offsets.mean + offsets.col[np.argmax(np.abs(offsets.col))]) > 1  # the bounds matter
    values, known = dmf.complete(table, offsets=False).predict_named(["x", "1"], ["0", "2"])
    assert np.isnan(values).tolist() == [True, False] and known.tolist() == [False, True]


def test_names_are_numbers_or_texts():
    """100, 100.0 and "100" are one name; where nothing is known, that is an error and no row of means."""
    plain = dmf.factorize(np.outer(np.arange(1.0, 4.0), np.ones(3)))
    named = plain.with_ids(range(100, 103), ["7", "007", "b.0"])
    expected = plain.predict([0, 2], [0, 1])
    for rows, cols in (
        ([100, 102], ["7", "007"]),
        (["100", "102.0"], [7.0, "007"]),
        (np.array([100, 102]), ["7.0", "007"]),
        (np.array([b"100", b"102"]), [b"7", "007"]),
    ):
        np.testing.assert_array_equal(named.predict_named(rows, cols)[0], expected)
    np.testing.assert_array_equal(plain.predict_named([0, 2], [0, 1])[0], expected)
    with pytest.raises(dmf.errors.ObservationError, match=r"none of 2 pairs has .* names, such as '100'"):
        named.predict_named([0, 1], [0, 1])
    with pytest.raises(dmf.errors.ArgumentError, match="it is a sequence of names"):
        named.predict_named("100", "7")


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (np.full((3, 3), np.nan), dmf.errors.ObservationError, "no entry is observed"),
        (np.array([[1.0, np.inf]]), dmf.errors.ObservationError, "infinite"),
        (np.ones(3), dmf.errors.ShapeError, "1 dimensions"),
        (np.empty((0, 3)), dmf.errors.ShapeError, "shape"),
        (np.array([["a", "b"]]), dmf.errors.DTypeError, "numbers are needed"),
        (np.ones((2, 2), complex), dmf.errors.DTypeError, "complex"),
        ([[1, 2], [3]], dmf.errors.DTypeError, "rectangular"),
    ],
)
def test_bad_data(data, kind, words):
    with pytest.raises(kind, match=words):
        dmf.complete(data)
