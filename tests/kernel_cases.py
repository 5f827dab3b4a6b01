"""Numbers and layouts for the tests of kernels; problems for those of dense measurements, and what they are held to."""

import numpy as np
from hypothesis import strategies as st

from helpers import seeds


def numbers(rng, shape, dtype):
    """Numbers of both signs and of sizes from 1e-3 to 1e3."""
    return (rng.standard_normal(shape) * 10 ** rng.uniform(-3, 3, shape)).astype(dtype)


def arranged(array, layout):
    """The same numbers in another memory layout."""
    if layout == "Fortran":
        return np.asfortranarray(array)
    if layout == "strided":
        wide = np.zeros((2 * array.shape[0], 3 * array.shape[1]), array.dtype)
        wide[::2, 1::3] = array
        return wide[::2, 1::3]
    if layout == "reversed":
        return array[::-1, ::-1].copy()[::-1, ::-1]
    return array


layouts = st.sampled_from(["C", "Fortran", "strided", "reversed"])


def assert_close(actual, expected, bound):
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    np.testing.assert_array_less(np.abs(actual.astype(np.float64) - expected), bound)


@st.composite
def dense_problems(draw, dtype):
    """Matrices in any layout, all or some of them, also none; sizes on both sides of a block and of a chunk."""
    count, size = draw(st.integers(0, 150)), draw(st.sampled_from([1, 7, 8, 16, 29, 100]))
    rng = np.random.default_rng(draw(seeds))
    matrices = arranged(numbers(rng, (count, size), dtype), draw(layouts))
    matrices.flags.writeable = draw(st.booleans())
    rows = draw(st.sampled_from([None, np.flatnonzero(rng.random(count) < 0.5)]))
    values = numbers(rng, (count if rows is None else rows.size, 2), dtype)[:, draw(st.integers(0, 1))]
    return matrices, rows, values, numbers(rng, (size, 2), dtype)[:, draw(st.integers(0, 1))]


def check_dense_residual(twin, fast, dtype, problem):
    """The bounds: a residual has one rounding for each summand and 2 more, a term of the gradient one for each after it."""
    matrices, rows, values, matrix = problem
    (loss, gradient), (expected_loss, expected) = fast(*problem), twin(*problem)
    used = np.abs(matrices.astype(float))[slice(None) if rows is None else rows]
    sizes = used @ np.abs(matrix.astype(float)) + np.abs(values.astype(float))
    count = matrix.size + values.size + 4
    bound = count * np.finfo(dtype).eps * (sizes @ used) + np.finfo(dtype).tiny
    assert_close(gradient, expected, bound)
    assert loss.dtype == np.float64
    assert abs(loss - expected_loss) <= (2 * count * np.finfo(dtype).eps) * 0.5 * np.sum(sizes**2)


@st.composite
def restricted_problems(draw, dtype):
    """Matrices in any layout, all or some of them, also none; one factor or both, of rows on both sides of the widest."""
    count, d1, d2 = draw(st.integers(0, 40)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng, width = np.random.default_rng(draw(seeds)), draw(st.sampled_from([1, 3, 30]))
    matrices = arranged(numbers(rng, (count, d1 * d2), dtype), draw(layouts))
    matrices.flags.writeable = draw(st.booleans())
    rows = draw(st.sampled_from([None, np.flatnonzero(rng.random(count) < 0.5)]))
    left, right = (arranged(numbers(rng, (size, width), dtype), draw(layouts)) for size in (d1, d2))
    left, right = draw(st.sampled_from([(left, right), (None, right), (left, None)]))
    return matrices, rows, (d1, d2), left, right


def check_restricted_map(twin, fast, dtype, problem):
    """A number of the design is a sum of as many products as the matrices have rows or columns."""
    matrices, rows, shape, *factors = problem
    sizes = (
        np.abs(matrices.astype(float)),
        rows,
        shape,
        *(None if f is None else np.abs(f.astype(float)) for f in factors),
    )
    bound = 2 * (max(shape) + 1) * np.finfo(dtype).eps * twin(*sizes) + np.finfo(dtype).tiny
    assert_close(fast(*problem), twin(*problem), bound)
