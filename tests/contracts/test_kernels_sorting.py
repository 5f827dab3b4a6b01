"""Sorting of positions: their reference twin, and what sampled entries keep and build when."""

import pickle

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import dmf
from dmf.arrays.backend import to_host
from dmf.kernels import TABLE, sorting

from helpers import DTYPES, on_device1, seeds

FORMS = {name: TABLE["SampledEntries"][name] for name in ("reference", "numpy")}
dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


@st.composite
def positions(draw):
    """Rows, columns (repeated; in any order; none; whole rows and columns of none) and the shape."""
    shape = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(seeds))
    rows, cols = (rng.integers(0, n, draw(st.shared(st.integers(0, 60), key="m"))).astype(np.int32) for n in shape)
    if draw(st.booleans()):
        order = np.lexsort((cols, rows))
        rows, cols = rows[order], cols[order]
    return rows, cols, shape


@dtypes
@given(problem=positions(), strided=st.booleans())
@example(problem=(np.zeros(0, np.int32), np.zeros(0, np.int32), (1, 1)), strided=False)
@example(problem=(np.array([1, 0, 1], np.int32), np.zeros(3, np.int32), (2, 1)), strided=True)
def test_positions_are_arranged_as_by_the_twin(dtype, problem, strided):
    """Values number the positions, so equal values mean that repeated positions keep their order, as in the twin."""
    rows, cols, shape = problem
    values = np.arange(rows.size, dtype=dtype)
    if strided:
        values = np.stack([values, values], axis=1)[:, 1]
    order = np.lexsort((cols, rows))
    for form in FORMS.values():
        for array, result in zip((rows, cols, values), form.arrange(rows, cols, values, shape), strict=True):
            assert result.dtype == array.dtype
            np.testing.assert_array_equal(result, array[order])
    moved = tuple(map(on_device1, (rows, cols, values)))
    for array, start, result in zip(
        (rows, cols, values), moved, FORMS["reference"].arrange(*moved, shape), strict=True
    ):
        assert result.device == start.device
        np.testing.assert_array_equal(to_host(result), array[order])


@pytest.mark.parametrize("form", FORMS)
def test_sorted_positions_are_not_copied(form):
    arrays = np.array([0, 0, 2], np.int32), np.array([1, 1, 0], np.int32), np.ones(3)
    for array, result in zip(arrays, FORMS[form].arrange(*arrays, (3, 2)), strict=True):
        assert result is array


def test_many_positions_are_arranged_as_few(rng):
    """From some hundred thousand positions on, they are moved by a compiled sort."""
    shape = 400, 300
    rows, cols = (rng.integers(0, n, 250_000).astype(np.int32) for n in shape)
    values = np.arange(rows.size, dtype=float)
    order = np.lexsort((cols, rows))
    for array, result in zip((rows, cols, values), FORMS["numpy"].arrange(rows, cols, values, shape), strict=True):
        np.testing.assert_array_equal(result, array[order])
        assert result.dtype == array.dtype


@given(problem=positions())
def test_columns_are_ordered_stably(problem):
    rows, cols, shape = problem
    order = np.lexsort((cols, rows))
    rows, cols = rows[order], cols[order]
    starts = sorting.starts_of(rows, shape[0])
    np.testing.assert_array_equal(starts, np.searchsorted(rows, np.arange(shape[0] + 1)))
    numbers, by_column, column_starts = sorting.by_column(starts, cols, shape[1])
    order = np.argsort(cols, kind="stable")
    np.testing.assert_array_equal(numbers, order)
    np.testing.assert_array_equal(by_column, rows[order])
    np.testing.assert_array_equal(column_starts, np.searchsorted(cols[order], np.arange(shape[1] + 1)))


def some_entries(rng):
    rows, cols = np.divmod(rng.permutation(30)[:18], 5)
    return dmf.SampledEntries(rows, cols, rng.standard_normal(18), (6, 5))


def test_values_of_the_last_call_are_not_taken_for_others(rng):
    """Observations that share their sorted positions, called in turn, fit their own values; so does a pickled copy."""
    one = some_entries(rng)
    two = one.with_values(rng.standard_normal(18))
    factor, penalty = rng.standard_normal((6, 2)), np.ones(2)
    alone = [
        dmf.SampledEntries(o.rows, o.cols, o.values.copy(), o.shape).ridge(1, factor, penalty).rows for o in (one, two)
    ]
    assert not np.array_equal(*alone)
    for observations, expected in ((one, alone[0]), (two, alone[1]), (two, alone[1]), (one, alone[0])):
        np.testing.assert_array_equal(observations.ridge(1, factor, penalty).rows, expected)
        copy = pickle.loads(pickle.dumps(observations))
        np.testing.assert_array_equal(copy.ridge(1, factor, penalty).rows, expected)
        np.testing.assert_array_equal(copy.with_values(one.values).ridge(1, factor, penalty).rows, alone[0])


def test_column_order_is_built_when_first_needed(rng):
    """Products with rows alone never need it; the second pass finds it."""
    observations = some_entries(rng)
    left, right = rng.standard_normal((6, 2)), rng.standard_normal((2, 5))
    observations.predict(left, right)
    observations.ridge(0, right.T.copy(), np.ones(2))
    assert "_column_order" not in vars(observations._kernel)
    observations.evaluate(left, right)
    built = observations._kernel._column_order
    observations.ridge(1, left, np.ones(2))
    observations.adjoint(observations.values, left, right)
    assert observations._kernel._column_order is built
