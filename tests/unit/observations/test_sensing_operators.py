"""Operators of matrix sensing beyond a dense array: each against the dense array that it stands for, and what they refuse."""

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import dmf
from dmf import errors
from dmf.arrays.backend import to_host

from helpers import DTYPES, LIBRARIES, dense_form, like, on_device1, seeds

EPS = np.finfo(float).eps
sizes = st.integers(1, 7)


def assert_same(one, other, left, right):
    """Predictions, gradients, loss, and the parts of a split are equal up to 1,000 roundings of the terms of their sums."""
    terms = np.abs(dense_form(other)) @ np.abs(left @ right).ravel() + np.abs(to_host(other.values))
    loss = float(terms @ terms)
    gradient = np.max(np.abs(dense_form(other))) * np.sum(terms) * max(np.sum(np.abs(left)), np.sum(np.abs(right)))
    left, right = like(one, left), like(one, right)
    matrix = dense_form(other)
    np.testing.assert_allclose(dense_form(one), matrix, rtol=0, atol=1e3 * EPS * np.max(np.abs(matrix)))
    found, known = one.evaluate(left, right), other.evaluate(left, right)
    for actual, expected, size in zip(found, known, (loss, gradient, gradient), strict=True):
        np.testing.assert_allclose(to_host(actual), to_host(expected), rtol=0, atol=1e3 * EPS * size)


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
@given(d1=sizes, d2=sizes, m=st.integers(1, 20), seed=seeds)
def test_rank_one_measurements_are_those_of_their_outer_products(move, d1, d2, m, seed):
    """Oracle: the dense array of all a_i b_i^T."""
    rng = np.random.default_rng(seed)
    a, b, values = rng.standard_normal((m, d1)), rng.standard_normal((m, d2)), rng.standard_normal(m)
    one = dmf.RankOneMeasurements(move(a), move(b), move(values))
    other = dmf.LinearMeasurements(move(a[:, :, None] * b[:, None, :]), move(values))
    assert one.shape == other.shape == (d1, d2)
    assert_same(one, other, rng.standard_normal((d1, 2)), rng.standard_normal((2, d2)))
    if m > 1:  # the same measurements are held out
        for part, expected in zip(one.split(0.4, 1), other.split(0.4, 1), strict=True):
            assert_same(part, expected, rng.standard_normal((d1, 2)), rng.standard_normal((2, d2)))


def test_the_surrogate_of_rank_one_measurements_is_scaled_to_the_matrix(rng):
    """Its expectation is X: its singular value is off by about sqrt(d / m) = 1 %, its vectors likewise."""
    u, v = (vector / np.linalg.norm(vector) for vector in (rng.standard_normal(20), rng.standard_normal(15)))
    a, b = rng.standard_normal((200_000, 20)), rng.standard_normal((200_000, 15))
    left, size, right = dmf.RankOneMeasurements(a, b, 3 * (a @ u) * (b @ v)).surrogate_svd(1)
    assert abs(float(size[0]) - 3) < 0.1
    assert abs(left[:, 0] @ u) > 0.99
    assert abs(right[0] @ v) > 0.99


def test_rank_one_measurements_of_a_large_matrix_need_no_dense_one(rng):
    """100,000 x 90,000 numbers would be 72 GB."""
    a, b = rng.standard_normal((20, 100_000)), rng.standard_normal((20, 90_000))
    observations = dmf.RankOneMeasurements(a, b, rng.standard_normal(20))
    left, right = rng.standard_normal((100_000, 2)), rng.standard_normal((2, 90_000))
    _, by_row, by_col = observations.evaluate(left, right)
    assert by_row.shape == left.shape
    assert by_col.shape == right.shape
    u, s, vt = observations.surrogate_svd(3)
    assert u.shape == (100_000, 3)
    assert vt.shape == (3, 90_000)
    assert np.all(np.diff(s) <= 0)


@pytest.mark.parametrize("seed", range(3))
def test_a_matrix_is_recovered_from_rank_one_measurements(seed):
    """Rank 2 of size 20: 76 degrees of freedom, 300 measurements, alternating minimisation from the surrogate."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((20, 2)) @ rng.standard_normal((2, 20))
    a, b = rng.standard_normal((2, 300, 20))
    observations = dmf.RankOneMeasurements(a, b, np.sum((a @ truth) * b, axis=1))
    recovery = dmf.solvers.alternating_minimization(observations, 2, iterations=50, seed=seed)
    assert np.linalg.norm(recovery.network.product() - truth) <= 1e-6 * np.linalg.norm(truth)


def test_a_dense_array_may_stay_on_disk(tmp_path, rng):
    matrices, values = rng.standard_normal((40, 6, 5)), rng.standard_normal(40)
    np.save(tmp_path / "matrices.npy", matrices)
    mapped = dmf.LinearMeasurements(np.load(tmp_path / "matrices.npy", mmap_mode="r"), values)
    assert isinstance(mapped.operator._flat, np.memmap)
    left, right = rng.standard_normal((6, 2)), rng.standard_normal((2, 5))
    expected = dmf.LinearMeasurements(matrices, values).evaluate(left, right)
    for one, two in zip(mapped.evaluate(left, right), expected, strict=True):
        np.testing.assert_array_equal(one, two)


def cosines(size):
    """Rows: the orthonormal basis of the cosine transform of type II."""
    k, n = np.arange(size)[:, None], np.arange(size)[None, :]
    basis = np.cos(np.pi * k * (2 * n + 1) / (2 * size)) * np.sqrt(2 / size)
    basis[0] /= np.sqrt(2)
    return basis


def sines(size):
    """Rows: the orthonormal basis of the sine transform of type II."""
    k, n = np.arange(1, size + 1)[:, None], np.arange(size)[None, :]
    basis = np.sin(np.pi * k * (2 * n + 1) / (2 * size)) * np.sqrt(2 / size)
    basis[-1] /= np.sqrt(2)
    return basis


@pytest.mark.parametrize(("transform", "basis"), [("dct", cosines), ("dst", sines)])
@pytest.mark.parametrize("signs", [False, True])
@given(d1=sizes, d2=sizes, seed=seeds, data=st.data())
def test_a_subsampled_transform_is_rows_of_the_transform(transform, basis, signs, d1, d2, seed, data):
    """Oracle: products of the basis vectors by their definition, times the signs, as a dense array."""
    rng = np.random.default_rng(seed)
    index = rng.permutation(d1 * d2)[: data.draw(st.integers(1, d1 * d2))]
    operator = dmf.SubsampledTransform(index, (d1, d2), transform=transform, signs=signs, seed=seed % 1_000)
    dense = np.kron(basis(d1), basis(d2))[index].reshape(-1, d1, d2)
    if signs:
        assert set(np.unique(operator.signs)) <= {-1, 1}
        dense = dense * operator.signs
    values = rng.standard_normal(index.size)
    one, other = dmf.LinearMeasurements(operator, values), dmf.LinearMeasurements(dense, values)
    assert_same(one, other, rng.standard_normal((d1, 2)), rng.standard_normal((2, d2)))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_the_rows_of_a_subsampled_transform_are_orthonormal_and_keep_the_dtype(dtype, rng):
    operator = dmf.SubsampledTransform.random(70, (9, 11), seed=2)
    weights = rng.standard_normal(70).astype(dtype)
    again = operator.forward(operator.adjoint(weights))
    assert again.dtype == operator.adjoint(weights).dtype == dtype
    np.testing.assert_allclose(again, weights, rtol=0, atol=20 * np.finfo(dtype).eps)
    assert repr(operator) == "SubsampledTransform(70 of 9 x 11 dct after random signs)"


def test_random_coefficients_depend_on_the_seed_only():
    one, same, other = (dmf.SubsampledTransform.random(30, (8, 9), seed=seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(one.index, same.index)
    np.testing.assert_array_equal(one.signs, same.signs)
    assert not np.array_equal(one.index, other.index)
    assert one.n_measurements == 30
    everything = dmf.SubsampledTransform.random(72, (8, 9))
    np.testing.assert_array_equal(everything.index, np.arange(72))


@pytest.mark.parametrize("seed", range(3))
def test_a_matrix_is_recovered_from_coefficients_after_random_signs(seed):
    """Rank 2 of size 30: 116 degrees of freedom, 400 of 900 coefficients."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((30, 2)) @ rng.standard_normal((2, 30))
    operator = dmf.SubsampledTransform.random(400, truth.shape, seed=seed)
    recovery = dmf.sense(operator, operator.forward(truth), rank=4, seed=seed)
    assert np.linalg.norm(recovery.product() - truth) <= 1e-3 * np.linalg.norm(truth)


@pytest.mark.parametrize("form", ["coo_array", "csr_matrix", "csc_array", "lil_array", "bsr_array", "dok_matrix"])
def test_every_sparse_matrix_is_its_dense_array(form, rng):
    dense = rng.standard_normal((9, 12)) * (rng.random((9, 12)) < 0.3)
    one = dmf.LinearMeasurements(getattr(scipy.sparse, form)(dense), np.ones(9), (3, 4))
    other = dmf.LinearMeasurements(dense.reshape(9, 3, 4), np.ones(9))
    assert_same(one, other, rng.standard_normal((3, 2)), rng.standard_normal((2, 4)))


def test_a_sparse_matrix_of_integers_becomes_float64(rng):
    observations = dmf.LinearMeasurements(scipy.sparse.eye_array(6, dtype=int), np.arange(6), (2, 3))
    assert observations.dtype == np.float64
    np.testing.assert_array_equal(dense_form(observations), np.eye(6))


def test_a_linear_operator_is_its_dense_array(rng):
    """Also one made of functions and sums, as users compose them."""
    dense = rng.standard_normal((2, 9, 12))
    composed = aslinearoperator(dense[0]) + 2 * LinearOperator(
        (9, 12), matvec=lambda x: dense[1] @ x, rmatvec=lambda z: z @ dense[1], dtype=float
    )
    one = dmf.LinearMeasurements(composed, np.ones(9), (3, 4))
    other = dmf.LinearMeasurements((dense[0] + 2 * dense[1]).reshape(9, 3, 4), np.ones(9))
    assert_same(one, other, rng.standard_normal((3, 2)), rng.standard_normal((2, 4)))


class OneWay(LinearOperator):
    """Knows no transposed map."""

    def __init__(self):
        super().__init__(np.dtype(float), (2, 6))

    def _matvec(self, x):
        return np.ravel(x)[:2]


A, B, Y = np.ones((2, 3)), np.ones((2, 4)), np.ones(2)
WHOLE = dmf.RankOneMeasurements(A, B, Y)
NAN = float("nan")
SPARSE = scipy.sparse.csr_array(np.ones((2, 6)))
BAD = {
    "vectors of one dimension": (
        lambda: dmf.RankOneMeasurements(A[0], B, Y), errors.ShapeError, "a", (3,), (2, "d1"), "one vector in each row",
    ),
    "fewer vectors than values": (
        lambda: dmf.RankOneMeasurements(A, B[:1], Y), errors.ShapeError, "b", (1, 4), (2, "d2"), "one vector in each row",
    ),
    "no rank-one measurement": (
        lambda: dmf.RankOneMeasurements(A[:0], B[:0], []), errors.ShapeError, "values", (0,), None, "at least 1 number",
    ),
    "vectors of length 0": (
        lambda: dmf.RankOneMeasurements(A[:, :0], B, Y), errors.ShapeError, "shape", (0, 4), (1, 2**31 - 1), "rows, columns",
    ),
    "vectors of two dtypes": (
        lambda: dmf.RankOneMeasurements(A, B.astype(np.float32), Y),
        errors.DTypeError, "b", "float32", "float64", "Convert one of them",
    ),
    "values of another dtype": (
        lambda: dmf.RankOneMeasurements(A, B, Y.astype(np.float32)),
        errors.DTypeError, "a", "float64", "float32", "Convert one of them",
    ),
    "complex vectors": (
        lambda: dmf.RankOneMeasurements(1j * A, B, Y),
        errors.DTypeError, "a", "complex128", ("float32", "float64"), "pass both parts",
    ),
    "a vector with a gap": (
        lambda: dmf.RankOneMeasurements(A, [[1.0, NAN], [1.0, 1.0]], Y),
        errors.ObservationError, "b", 1, 0, "row 0, column 1, from 0.*Remove them",
    ),
    "a value with a gap": (
        lambda: dmf.RankOneMeasurements(A, B, [1.0, NAN]),
        errors.ObservationError, "values", 1, 0, "with their rows of a and b",
    ),
    "vectors of two libraries": (
        lambda: dmf.RankOneMeasurements(on_device1(A), B, Y),
        errors.BackendError, "", ["array_api_strict._array_object.Array", "numpy.ndarray"], None, "Convert them to one kind",
    ),
    "factors of another matrix": (
        lambda: WHOLE.predict(np.ones((3, 1)), np.ones((1, 3))),
        errors.ShapeError, "left, right", ((3, 1), (1, 3)), ((3, "w"), ("w", 4)), r"Pass factors \(3, w\) and \(w, 4\)",
    ),
    "factors of another dtype": (
        lambda: WHOLE.evaluate(np.ones((3, 1), np.float32), np.ones((1, 4), np.float32)),
        errors.DTypeError, "left, right", ("float32", "float32"), "float64", "Convert them first",
    ),
    "factors of another matrix for a dense array": (
        lambda: dmf.LinearMeasurements(np.ones((2, 3, 4)), Y).evaluate(np.ones((30, 1)), np.ones((1, 40))),
        errors.ShapeError, "left, right", ((30, 1), (1, 40)), ((3, "w"), ("w", 4)), r"Pass factors \(3, w\) and \(w, 4\)",
    ),
    "factors of another dtype for a dense array": (
        lambda: dmf.LinearMeasurements(np.ones((2, 3, 4)), Y).evaluate(np.ones((3, 1)), np.ones((1, 4), np.float32)),
        errors.DTypeError, "left, right", ("float64", "float32"), "float64", "Convert them first",
    ),
    "too few rank-one weights": (
        lambda: WHOLE.adjoint(np.ones(1), np.ones((3, 1)), np.ones((1, 4))),
        errors.ShapeError, "values", (1,), (2,), "Pass one value for each",
    ),
    "one rank-one measurement to split": (
        lambda: dmf.RankOneMeasurements(A[:1], B[:1], Y[:1]).split(0.5),
        errors.ObservationError, "fraction", 1, 2, "Hold nothing out",
    ),
    "no coefficient": (
        lambda: dmf.SubsampledTransform(np.array([], int), (3, 4)),
        errors.ShapeError, "index", (0,), None, "at least 1 position",
    ),
    "coefficients as pairs": (
        lambda: dmf.SubsampledTransform([[0, 1]], (3, 4)), errors.ShapeError, "index", (1, 2), None, "ravel_multi_index",
    ),
    "a mask of coefficients": (
        lambda: dmf.SubsampledTransform([True, False], (3, 4)), errors.DTypeError, "index", "bool", "integer", "flatnonzero",
    ),
    "fractional coefficients": (
        lambda: dmf.SubsampledTransform([0.0], (3, 4)), errors.DTypeError, "index", "float64", "integer", "integers from 0",
    ),
    "a negative coefficient": (
        lambda: dmf.SubsampledTransform([0, -1], (3, 4)),
        errors.ObservationError, "index", -1, (0, 11), r"index\[1\] = -1.*from 0 to 11",
    ),
    "a coefficient too large": (
        lambda: dmf.SubsampledTransform(np.array([12], np.uint64), (3, 4)),
        errors.ObservationError, "index", 12, (0, 11), r"index\[0\] = 12.*from 0 to 11",
    ),
    "a repeated coefficient": (
        lambda: dmf.SubsampledTransform([5, 3, 5, 3], (3, 4)),
        errors.ObservationError, "index", 5, "each position once", r"index\[2\] = 5 repeats.*Average",
    ),
    "coefficients of another library": (
        lambda: dmf.SubsampledTransform(on_device1(np.arange(3)), (3, 4)),
        errors.BackendError, "index", "Array", "numpy.ndarray", "numpy.asarray",
    ),
    "an unknown transform": (
        lambda: dmf.SubsampledTransform([0], (3, 4), transform="fft"),
        errors.ArgumentError, "transform", "fft", ("dct", "dst"), "one of dct, dst",
    ),
    "a transform without a shape": (
        lambda: dmf.SubsampledTransform([0], None), errors.ShapeError, "shape", None, (1, 2**31 - 1), r"Pass \(rows, columns\)",
    ),
    "a seed that is none": (
        lambda: dmf.SubsampledTransform([0], (3, 4), signs=True, seed=-1), errors.ArgumentError, "seed", -1, 0, "an integer",
    ),
    "no random coefficient": (
        lambda: dmf.SubsampledTransform.random(0, (3, 4)), errors.ArgumentError, "count", 0, 1, "an integer of at least 1",
    ),
    "too many random coefficients": (
        lambda: dmf.SubsampledTransform.random(13, (3, 4)), errors.ArgumentError, "count", 13, 12, "at most that",
    ),
    "a transform of other arrays": (
        lambda: dmf.LinearMeasurements(dmf.SubsampledTransform([0], (3, 4)), on_device1(np.ones(1))),
        errors.BackendError, "matrix", "Array", "numpy.ndarray", "on NumPy arrays only",
    ),
    "a transform of another matrix": (
        lambda: dmf.SubsampledTransform([0], (3, 4)).forward(np.ones((4, 3))),
        errors.ShapeError, "matrix", (4, 3), (3, 4), "Pass one of that shape",
    ),
    "a transform of integers": (
        lambda: dmf.SubsampledTransform([0], (3, 4)).forward(np.ones((3, 4), int)),
        errors.DTypeError, "matrix", "int64", ("float32", "float64"), "Convert it first",
    ),
    "coefficients and values of two numbers": (
        lambda: dmf.LinearMeasurements(dmf.SubsampledTransform([0, 1], (3, 4)), np.ones(3)),
        errors.ShapeError, "operator", (2,), (3,), "expected for 3 measurements",
    ),
    "a sparse matrix without a shape": (
        lambda: dmf.LinearMeasurements(SPARSE, Y), errors.ShapeError, "shape", None, None, r"Pass shape=\(rows, columns\)",
    ),
    "a sparse matrix of another shape": (
        lambda: dmf.LinearMeasurements(SPARSE, Y, (3, 4)),
        errors.ShapeError, "operator", (2, 6), (2, 12), r"flattened row by row, need shape \(2, 12\)",
    ),
    "a sparse matrix of other measurements": (
        lambda: dmf.LinearMeasurements(SPARSE, np.ones(3), (2, 3)),
        errors.ShapeError, "operator", (2, 6), (3, 6), r"need shape \(3, 6\)",
    ),
    "a sparse matrix of another dtype": (
        lambda: dmf.LinearMeasurements(SPARSE.astype(np.float32), Y, (2, 3)),
        errors.DTypeError, "values", "float64", "float32", "Convert one of them",
    ),
    "a complex sparse matrix": (
        lambda: dmf.LinearMeasurements(1j * SPARSE, Y, (2, 3)),
        errors.DTypeError, "operator", "complex128", ("float32", "float64"), "pass both parts",
    ),
    "a sparse matrix with a gap": (
        lambda: dmf.LinearMeasurements(NAN * SPARSE, Y, (2, 3)), errors.ObservationError, "operator", 12, 0, "Remove them",
    ),
    "a sparse matrix and strict values": (
        lambda: dmf.LinearMeasurements(SPARSE, on_device1(Y), (2, 3)),
        errors.BackendError, "operator", "csr_array", "numpy.ndarray", "numpy.asarray",
    ),
    "a linear operator without a shape": (
        lambda: dmf.LinearMeasurements(aslinearoperator(SPARSE), Y),
        errors.ShapeError, "shape", None, None, r"acts on flattened matrices. Pass shape=\(rows, columns\)",
    ),
    "a linear operator without rmatvec": (
        lambda: dmf.LinearMeasurements(OneWay(), Y, (2, 3)),
        errors.ArgumentError, "operator", "OneWay", "rmatvec", "define _rmatvec",
    ),
    "a linear operator that changes the dtype": (
        lambda: dmf.LinearMeasurements(aslinearoperator(SPARSE), Y.astype(np.float32), (2, 3)),
        errors.DTypeError, "operator", "float64", "float32", "must not change",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "argument", "value", "limit", "way_out"), BAD.values(), ids=BAD)
def test_bad_input_says_what_where_and_what_to_do(call, error, argument, value, limit, way_out):
    with pytest.raises(error, match=way_out) as caught:
        call()
    assert type(caught.value) is error
    assert (caught.value.argument, caught.value.value, caught.value.limit) == (argument, value, limit)


def test_a_linear_operator_whose_rmatvec_is_none(rng):
    dense = rng.standard_normal((2, 6))
    wrong = LinearOperator((2, 6), matvec=lambda x: dense @ x, rmatvec=lambda z: 1.001 * (z @ dense), dtype=float)
    with pytest.raises(errors.ArgumentError, match=r"Correct operator\.adjoint") as caught:
        dmf.LinearMeasurements(wrong, Y, (2, 3))
    assert caught.value.argument == "operator"


def test_moved_measurements_know_all_kernels(rng):
    """Of another device, here the same one: what solvers ask for gives the same as before."""
    operator, factor = rng.standard_normal((30, 5, 4)), rng.standard_normal((4, 2))
    measured = dmf.LinearMeasurements(operator, rng.standard_normal(30))
    results = [m.ridge(0, factor, np.ones(2)).rows for m in (measured, measured._moved("cpu"))]
    np.testing.assert_array_equal(*results)
