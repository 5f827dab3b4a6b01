"""What each kind of observation accepts, how it stores it, and what it refuses. (What they have in common: contracts.)"""

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf import errors
from dmf.arrays.backend import to_host
from dmf.kernels import reference

from helpers import LIBRARIES, TwoSided, on_device1, seeds

libraries = pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)


@given(
    d1=st.integers(1, 6), d2=st.integers(1, 6), m=st.integers(1, 30), seed=seeds, library=st.sampled_from([*LIBRARIES])
)
def test_entries_are_sorted_by_row_then_column_and_keep_the_order_of_repeats(d1, d2, m, seed, library):
    rng, move = np.random.default_rng(seed), LIBRARIES[library]
    rows, cols, values = rng.integers(0, d1, m), rng.integers(0, d2, m), rng.standard_normal(m)
    observations = dmf.SampledEntries(move(rows), move(cols), move(values), (d1, d2))
    order = np.lexsort((cols, rows))
    for stored, given_ in ((observations.rows, rows), (observations.cols, cols), (observations.values, values)):
        assert stored.device == observations.values.device
        np.testing.assert_array_equal(to_host(stored), given_[order])
    assert to_host(observations.rows).dtype == to_host(observations.cols).dtype == np.int32


@pytest.mark.parametrize("index", [np.int8, np.uint8, np.int64, np.uint64, ">i4", list])
def test_every_kind_of_integer_is_an_index(index):
    rows = [2, 0, 1] if index is list else np.array([2, 0, 1], index)
    observations = dmf.SampledEntries(rows, rows, [1, 2, 3], (3, 3))
    assert observations.rows.tolist() == [0, 1, 2]
    assert observations.values.tolist() == [2.0, 3.0, 1.0]
    assert observations.dtype == np.float64


def test_inputs_are_not_changed_and_not_aliased_by_sorting(rng):
    rows, cols, values = np.array([1, 0]), np.array([0, 1]), np.array([5.0, 6.0])
    dmf.SampledEntries(rows, cols, values, (2, 2))
    assert rows.tolist() == [1, 0]
    assert values.tolist() == [5.0, 6.0]


def test_positions_beyond_the_range_of_32_bit_keys(rng):
    """d1 d2 = 2^40: keys need 64 bits; kernels need the positions only."""
    size = 2**20
    rows, cols = np.array([size - 1, 0, size - 1]), np.array([0, size - 1, size - 1])
    observations = dmf.SampledEntries(rows, cols, np.array([1.0, 2.0, 3.0]), (size, size))
    assert observations.values.tolist() == [2.0, 1.0, 3.0]
    left, right = rng.standard_normal((size, 1)), rng.standard_normal((1, size))
    expected = left[observations.rows, 0] * right[0, observations.cols]
    np.testing.assert_allclose(observations.predict(left, right), expected, rtol=4e-16)


@libraries
def test_from_dense_takes_what_is_not_nan(move):
    matrix = np.array([[1.0, np.nan, 2.0], [np.nan, np.nan, 3.0]])
    observations = dmf.SampledEntries.from_dense(move(matrix))
    assert observations.shape == (2, 3)
    assert to_host(observations.rows).tolist() == [0, 0, 1]
    assert to_host(observations.cols).tolist() == [0, 2, 2]
    assert to_host(observations.values).tolist() == [1.0, 2.0, 3.0]


def test_from_dense_takes_lists_and_strided_arrays():
    assert dmf.SampledEntries.from_dense([[1, 2], [3, 4]]).values.tolist() == [1.0, 2.0, 3.0, 4.0]
    matrix = np.arange(24.0).reshape(4, 6)[::2, ::3].T
    np.testing.assert_array_equal(dmf.SampledEntries.from_dense(matrix).values, matrix.ravel())


@pytest.mark.parametrize("form", ["coo", "csr", "csc", "lil", "dok"])
@pytest.mark.parametrize("kind", ["array", "matrix"])
def test_from_sparse_takes_stored_entries(form, kind):
    dense = np.array([[0.0, 1.5], [2.5, 0.0], [0.0, 3.5]])
    sparse = getattr(scipy.sparse, f"{form}_{kind}")(dense)
    observations = dmf.SampledEntries.from_sparse(sparse)
    assert observations.shape == (3, 2)
    assert observations.rows.tolist() == [0, 1, 2]
    assert observations.cols.tolist() == [1, 0, 1]
    assert observations.values.tolist() == [1.5, 2.5, 3.5]


def test_from_sparse_keeps_stored_zeros_and_sums_repeats():
    """A stored zero was observed to be zero; COO defines repeats as summands, and the caller's matrix stays as it is."""
    sparse = scipy.sparse.coo_array((np.array([1.0, 2.0, 0.0]), ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    observations = dmf.SampledEntries.from_sparse(sparse)
    assert observations.values.tolist() == [3.0, 0.0]
    assert sparse.nnz == 3


def test_integers_become_float64_and_floats_are_kept():
    assert dmf.FullMatrix([[1, 2]]).dtype == np.float64
    assert dmf.FullMatrix([[True, False]]).dtype == np.float64
    assert dmf.FullMatrix(np.ones((2, 2), np.float32)).dtype == np.float32
    assert dmf.LinearMeasurements(np.ones((2, 3, 3), int), [1, 2]).dtype == np.float64


def test_strict_arrays_go_through_the_reference_kernel():
    observations = dmf.SampledEntries(*(on_device1(np.array(a)) for a in ([0], [0], [1.0])), (1, 1))
    assert type(observations._kernel) is reference.SampledEntries
    assert observations.descent((2,)) is None


class Plain(TwoSided):
    """An operator that does not say its shape."""

    def __init__(self, left, right):
        super().__init__(left, right)
        del self.shape


class NotAdjoint(TwoSided):
    def adjoint(self, weights):
        return 1.001 * super().adjoint(weights)


class Rounded(TwoSided):
    def forward(self, matrix):
        return super().forward(matrix).astype(np.float32)


class Flat(TwoSided):
    def adjoint(self, weights):
        return super().adjoint(weights).ravel()


class Silent(TwoSided):
    def forward(self, matrix):
        return None


class Infinite(TwoSided):
    def forward(self, matrix):
        return super().forward(matrix) * np.inf


def operator(kind=TwoSided):
    """Measures 3 x 4 matrices, 4 numbers."""
    return kind(np.arange(1.0, 7).reshape(2, 3), np.arange(1.0, 9).reshape(4, 2))


def test_an_operator_without_a_shape_is_given_one(rng):
    observations = dmf.LinearMeasurements(operator(Plain), np.ones(4), (3, 4))
    assert observations.shape == (3, 4)
    left, right = rng.standard_normal((3, 2)), rng.standard_normal((2, 4))
    expected = dmf.LinearMeasurements(operator(), np.ones(4)).predict(left, right)
    np.testing.assert_array_equal(observations.predict(left, right), expected)


NAN, INF = float("nan"), float("inf")
ENTRIES = ([0, 1], [0, 1], [1.0, 2.0])
FLOATS = ("float32", "float64")
BAD = {
    "entries of two lengths": (
        lambda: dmf.SampledEntries([0, 1], [0], [1.0], (2, 2)),
        errors.ShapeError, "rows, cols, values", ((2,), (1,), (1,)), None, "three vectors of one length",
    ),
    "entries as matrices": (
        lambda: dmf.SampledEntries([[0]], [[0]], [[1.0]], (2, 2)),
        errors.ShapeError, "rows, cols, values", ((1, 1), (1, 1), (1, 1)), None, "three vectors of one length",
    ),
    "no entry": (
        lambda: dmf.SampledEntries([], [], [], (2, 2)),
        errors.ObservationError, "values", 0, 1, "at least 1 is needed",
    ),
    "fractional rows": (
        lambda: dmf.SampledEntries([0.0, 1.0], *ENTRIES[1:], (2, 2)),
        errors.DTypeError, "rows", "float64", "integer", r"Convert them with astype\(int\)",
    ),
    "boolean columns": (
        lambda: dmf.SampledEntries([0, 1], [True, False], [1.0, 2.0], (2, 2)),
        errors.DTypeError, "cols", "bool", "integer", r"Convert them with astype\(int\)",
    ),
    "a negative row": (
        lambda: dmf.SampledEntries([0, -1], *ENTRIES[1:], (2, 2)),
        errors.ObservationError, "rows", -1, (0, 1), r"rows\[1\] = -1 .* Pass a larger shape, or subtract 1",
    ),
    "a column too large": (
        lambda: dmf.SampledEntries([0, 1], [1, 2], [1.0, 2.0], (2, 2)),
        errors.ObservationError, "cols", 2, (0, 1), r"cols\[1\] = 2 .* Pass a larger shape, or subtract 1",
    ),
    "an index beyond 32 bits": (
        lambda: dmf.SampledEntries([0, 2**32], *ENTRIES[1:], (2, 2)),
        errors.ObservationError, "rows", 2**32, (0, 1), "Pass a larger shape, or subtract 1",
    ),
    "NaN as a value": (
        lambda: dmf.SampledEntries([0, 1], [0, 1], [NAN, 2.0], (2, 2)),
        errors.ObservationError, "values", 1, 0, "Leave missing entries out instead",
    ),
    "complex values": (
        lambda: dmf.SampledEntries([0, 1], [0, 1], [1j, 2.0], (2, 2)),
        errors.DTypeError, "values", "complex128", FLOATS, "pass both parts",
    ),
    "two libraries": (
        lambda: dmf.SampledEntries([0, 1], [0, 1], on_device1(np.ones(2)), (2, 2)),
        errors.BackendError, "", ["array_api_strict._array_object.Array", "numpy.ndarray"], None, "Convert them to one kind",
    ),
    "one dimension": (
        lambda: dmf.SampledEntries(*ENTRIES, (2,)), errors.ShapeError, "shape", (2,), (1, 2**31 - 1), r"Pass \(rows, columns\)",
    ),
    "no shape": (
        lambda: dmf.SampledEntries(*ENTRIES, None), errors.ShapeError, "shape", None, (1, 2**31 - 1), r"Pass \(rows, columns\)",
    ),
    "a fractional shape": (
        lambda: dmf.SampledEntries(*ENTRIES, (2, 2.5)),
        errors.ShapeError, "shape", (2, 2.5), (1, 2**31 - 1), r"Pass \(rows, columns\)",
    ),
    "a shape of zero": (
        lambda: dmf.SampledEntries(*ENTRIES, (2, 0)),
        errors.ShapeError, "shape", (2, 0), (1, 2**31 - 1), r"Pass \(rows, columns\)",
    ),
    "a shape beyond 32 bits": (
        lambda: dmf.SampledEntries(*ENTRIES, (2, 2**31)),
        errors.ShapeError, "shape", (2, 2**31), (1, 2**31 - 1), r"Pass \(rows, columns\)",
    ),
    "from_dense of a vector": (
        lambda: dmf.SampledEntries.from_dense([1.0]), errors.ShapeError, "matrix", (1,), 2, "a matrix has 2",
    ),
    "from_dense of nothing but NaN": (
        lambda: dmf.SampledEntries.from_dense([[NAN]]), errors.ObservationError, "values", 0, 1, "at least 1 is needed",
    ),
    "from_dense with infinity": (
        lambda: dmf.SampledEntries.from_dense([[1.0, INF]]),
        errors.ObservationError, "values", 1, 0, "Leave missing entries out instead",
    ),
    "from_sparse of a dense array": (
        lambda: dmf.SampledEntries.from_sparse(np.ones((2, 2))),
        errors.DTypeError, "matrix", "ndarray", None, "For dense arrays use from_dense",
    ),
    "from_sparse of a vector": (
        lambda: dmf.SampledEntries.from_sparse(scipy.sparse.coo_array(np.ones(3))),
        errors.ShapeError, "matrix", (3,), 2, "a matrix has 2",
    ),
    "a matrix of three dimensions": (
        lambda: dmf.FullMatrix(np.ones((2, 2, 2))), errors.ShapeError, "matrix", (2, 2, 2), 2, "a matrix has 2",
    ),
    "an empty matrix": (
        lambda: dmf.FullMatrix(np.ones((0, 2))), errors.ShapeError, "shape", (0, 2), (1, 2**31 - 1), r"Pass \(rows, columns\)",
    ),
    "a matrix with gaps": (
        lambda: dmf.FullMatrix([[1.0, NAN], [INF, 1.0]]),
        errors.ObservationError, "matrix", 2, 0, "row 0, column 1, from 0.*use SampledEntries.from_dense",
    ),
    "a matrix of text": (
        lambda: dmf.FullMatrix([["a"]]), errors.DTypeError, "data", "str", "numbers", "column 0 holds 'a' in row 0",
    ),
    "a ragged matrix": (
        lambda: dmf.FullMatrix([[1.0], [1.0, 2.0]]), errors.DTypeError, "matrix", "list", None, "Pass a rectangular array",
    ),
    "one entry to split": (
        lambda: dmf.FullMatrix([[1.0]]).split(0.5),
        errors.ObservationError, "fraction", 1, 2, "Hold nothing out",
    ),
    "one position to split": (
        lambda: dmf.SampledEntries([0, 0], [1, 1], [1.0, 2.0], (2, 2)).split(0.5),
        errors.ObservationError, "fraction", 1, 2, "Hold nothing out",
    ),
    "factors of other sizes": (
        lambda: dmf.SampledEntries(*ENTRIES, (2, 2)).predict(np.ones((1, 1)), np.ones((1, 2))),
        errors.ShapeError, "left, right", ((1, 1), (1, 2)), ((2, "w"), ("w", 2)), r"Pass factors \(2, w\) and \(w, 2\)",
    ),
    "factors of two widths": (
        lambda: dmf.SampledEntries(*ENTRIES, (2, 2)).evaluate(np.ones((2, 2)), np.ones((1, 2))),
        errors.ShapeError, "left, right", ((2, 2), (1, 2)), ((2, "w"), ("w", 2)), r"Pass factors \(2, w\) and \(w, 2\)",
    ),
    "factors of another dtype": (
        lambda: dmf.SampledEntries(*ENTRIES, (2, 2)).evaluate(np.ones((2, 1), np.float32), np.ones((1, 2))),
        errors.DTypeError, "left, right", ("float32", "float64"), "float64", "Convert them first",
    ),
    "a ridge regression on the factor of the same side": (
        lambda: dmf.SampledEntries(*ENTRIES, (2, 3)).ridge(0, np.ones((2, 1)), np.ones(1)),
        errors.ShapeError, "factor", (2, 1), (3, "w"), r"Pass an array \(3, w\)",
    ),
    "a ridge regression of another dtype": (
        lambda: dmf.SampledEntries(*ENTRIES, (2, 2)).ridge(0, np.ones((2, 1), "f4"), np.ones(1)),
        errors.DTypeError, "factor", "float32", "float64", "Convert it first",
    ),
    "too few weights": (
        lambda: dmf.SampledEntries(*ENTRIES, (2, 2)).adjoint(np.ones(1), np.ones((2, 1)), np.ones((1, 2))),
        errors.ShapeError, "values", (1,), (2,), "Pass one value for each",
    ),
    "no measurement": (
        lambda: dmf.LinearMeasurements(np.ones((0, 2, 2)), []), errors.ShapeError, "values", (0,), None, "at least 1 number",
    ),
    "measurements in a matrix": (
        lambda: dmf.LinearMeasurements(np.ones((1, 2, 2)), [[1.0]]),
        errors.ShapeError, "values", (1, 1), None, "a vector of at least 1",
    ),
    "an infinite measurement": (
        lambda: dmf.LinearMeasurements(np.ones((1, 2, 2)), [INF]),
        errors.ObservationError, "values", 1, 0, "Leave failed measurements out, here and in the operator",
    ),
    "an operator with a gap": (
        lambda: dmf.LinearMeasurements([[[1.0, NAN]]], [1.0]),
        errors.ObservationError, "operator (from measurement 0 on)", 1, 0, "Remove them",
    ),
    "an operator of two dimensions": (
        lambda: dmf.LinearMeasurements(np.ones((2, 2)), [1.0, 2.0]),
        errors.ShapeError, "operator", (2, 2), (2, "d1", "d2"), r"an array \(m, d1, d2\)",
    ),
    "an operator of other measurements": (
        lambda: dmf.LinearMeasurements(np.ones((3, 2, 2)), [1.0, 2.0]),
        errors.ShapeError, "operator", (3, 2, 2), (2, "d1", "d2"), r"an array \(m, d1, d2\)",
    ),
    "an operator of another dtype": (
        lambda: dmf.LinearMeasurements(np.ones((1, 2, 2), np.float32), [1.0]),
        errors.DTypeError, "values", "float64", "float32", "Convert one of them",
    ),
    "an operator of another library": (
        lambda: dmf.LinearMeasurements(on_device1(np.ones((1, 2, 2))), [1.0]),
        errors.BackendError, "", ["array_api_strict._array_object.Array", "numpy.ndarray"], None, "Convert them to one kind",
    ),
    "a shape that disagrees": (
        lambda: dmf.LinearMeasurements(np.ones((1, 2, 2)), [1.0], (2, 3)),
        errors.ShapeError, "shape", (2, 3), (2, 2), "Pass one of them, or correct it",
    ),
    "an operator without a shape": (
        lambda: dmf.LinearMeasurements(operator(Plain), np.ones(4)),
        errors.ShapeError, "shape", None, None, r"Pass shape=\(rows, columns\)",
    ),
    "an operator with fewer measurements": (
        lambda: dmf.LinearMeasurements(operator(Silent), np.ones(4)),
        errors.ShapeError, "operator", (), (4,), r"\(4,\) was expected for 4 measurements of 3 x 4",
    ),
    "an adjoint that returns a vector": (
        lambda: dmf.LinearMeasurements(operator(Flat), np.ones(4)),
        errors.ShapeError, "operator", (12,), (3, 4), r"\(3, 4\) was expected for 4 measurements of 3 x 4",
    ),
    "an operator that changes the dtype": (
        lambda: dmf.LinearMeasurements(operator(Rounded), np.ones(4)),
        errors.DTypeError, "operator", "float32", "float64", "must not change",
    ),
    "an operator that gives infinities": (
        lambda: dmf.LinearMeasurements(operator(Infinite), np.ones(4)),
        errors.ObservationError, "operator", None, None, "gives NaN or infinite numbers",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "argument", "value", "limit", "way_out"), BAD.values(), ids=BAD)
def test_bad_input_says_what_where_and_what_to_do(call, error, argument, value, limit, way_out):
    with pytest.raises(error, match=way_out) as caught:
        call()
    assert type(caught.value) is error
    assert (caught.value.argument, caught.value.value, caught.value.limit) == (argument, value, limit)


def test_an_adjoint_that_is_none():
    with pytest.raises(errors.ArgumentError, match=r"Correct operator\.adjoint") as caught:
        dmf.LinearMeasurements(operator(NotAdjoint), np.ones(4))
    assert caught.value.argument == "operator"
    assert caught.value.value != 0
    assert caught.value.limit == 0
