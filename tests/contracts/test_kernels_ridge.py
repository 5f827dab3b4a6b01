"""Ridge regression of the rows of a factor: the fast kernel, its reference twin, and what both have to hold."""

import array_api_strict
import numba
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dmf.backend import to_host
from dmf.kernels import TABLE, kernel
from dmf.kernels.cpu import _PARALLEL_WORK
from dmf.kernels.ridge import WIDEST_BYTES, compile_ridge

from helpers import DTYPES, on_device1, seeds

FORMS = TABLE["SampledEntries"]
# One to nine machine vectors, whole and not, two or four samples at a time; 70 is the widest that the solvers meet often;
# 100 and 200 go through BLAS. Each padded length is compiled once, for seconds.
WIDTHS = {np.float64: [1, 3, 12, 20, 70, 100], np.float32: [1, 8, 20, 70, 200]}
WEIGHTED = [3, 8, 20, 100, 200]  # one vector, two or four samples at a time, BLAS
dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


def strided(array, layout):
    """The same numbers in another memory layout."""
    if layout == "strided":
        wide = np.zeros((2 * array.shape[0], *(3 * n for n in array.shape[1:])), array.dtype)
        view = wide[(slice(None, None, 2), *[slice(1, None, 3)] * (array.ndim - 1))]
        view[:] = array
        return view
    return {"C": np.ascontiguousarray, "Fortran": np.asfortranarray, "reversed": lambda a: a[::-1].copy()[::-1]}[
        layout
    ](array)


layouts = st.sampled_from(["C", "Fortran", "strided", "reversed"])


@st.composite
def problems(draw, dtype, least_penalty=0.1):
    """Positions (sorted, repeated; none; whole rows and columns of none) and arguments of `ridge`.

    Columns of the factor have norms from 0.1 to 10, and penalties of at least `least_penalty` times their squares: what the
    kernels compute does not depend on the scales of the columns, apart from that.
    """
    d1, d2, width = draw(st.integers(1, 20)), draw(st.integers(1, 9)), draw(st.sampled_from(WIDTHS[dtype]))
    rng = np.random.default_rng(draw(seeds))
    positions = np.sort(rng.integers(0, d1 * d2, draw(st.integers(0, 100))))
    rows, cols = (index.astype(np.int32) for index in np.divmod(positions, d2))
    side = draw(st.sampled_from([0, 1]))
    scale = 10 ** rng.uniform(-1, 1, width)
    given_factor = rng.standard_normal(((d1, d2)[1 - side], width)) * scale
    penalty = max(positions.size, 1) * least_penalty * 10 ** rng.uniform(0, 2, width) * scale**2
    variances = rng.uniform(0, 1, given_factor.shape) * scale**2 if draw(st.booleans()) else None
    values = 10 ** rng.uniform(-3, 3) * rng.standard_normal(positions.size)
    means = rng.standard_normal(((d1, d2)[side], width)) / scale if draw(st.booleans()) else None
    weighted = width in WEIGHTED and draw(st.booleans())
    roots = 10 ** rng.uniform(-1, 0, positions.size) if weighted else None
    arrays = [
        None if array is None else strided(array.astype(dtype), draw(layouts))
        for array in (values, given_factor, penalty, variances, means, roots)
    ]
    return (rows, cols, (d1, d2)), (side, *arrays)


def designs(positions, arguments):
    """For each row: rows of the factor that its samples meet, times the roots of their weights, their values, added and
    penalised diagonal, mean; in float64.
    """
    (rows, cols, shape), (side, values, factor, penalty, variances, means, roots) = positions, arguments
    mine, other = (rows, cols) if side == 0 else (cols, rows)
    values, factor, penalty = (a.astype(np.float64) for a in (values, factor, penalty))
    roots = np.ones(rows.size) if roots is None else roots.astype(np.float64)
    for i in range(shape[side]):
        chosen, scale = other[mine == i], roots[mine == i][:, None]
        added = np.zeros_like(penalty) if variances is None else (scale**2 * variances.astype(float)[chosen]).sum(0)
        mean = np.zeros_like(penalty) if means is None else means[i].astype(float)
        yield scale * factor[chosen], values[mine == i], added, penalty, mean


def roundings(design, dtype):
    """Of a normal matrix, its Cholesky factor and a solution; not sharp: each is the length of the sums in it, or two."""
    count, width = design.shape
    return (2 * count + 8 * width + 40) * np.finfo(dtype).eps


def check_rows(rows, positions, arguments, dtype):
    """Backward error: ``|N x - D^T y|`` within rounding of the sizes of N, x and the target, however singular N is."""
    for row, (design, target, added, penalty, mean) in zip(
        to_host(rows).astype(float), designs(positions, arguments), strict=True
    ):
        diagonal = np.sum(design**2, axis=0) + added + penalty
        residual = design.T @ (design @ row - target) + added * row + penalty * (row - mean)
        root = np.sqrt(diagonal)
        lengths = np.linalg.norm(root * row) + np.linalg.norm(root * mean)
        bound = root * (lengths * row.size + np.linalg.norm(target))
        np.testing.assert_array_less(np.abs(residual), roundings(design, dtype) * bound + np.finfo(dtype).tiny)


def check_result(result, positions, arguments, dtype):
    """Types, shapes, and that sums and variances are those of the rows."""
    rows, inverses, square, uncertainty, freedom = result
    side, factor = arguments[0], arguments[2]
    assert rows.shape == (positions[2][side], factor.shape[1])
    assert rows.dtype == dtype
    assert all(isinstance(number, float) for number in (square, uncertainty, freedom))
    expected = np.zeros(3)
    sizes = np.zeros(3)
    for i, (design, target, added, penalty, _) in enumerate(designs(positions, arguments)):
        row = rows[i].astype(float)
        size = np.abs(design) @ np.abs(row) + np.abs(target)
        expected[0] += np.sum((design @ row - target) ** 2)
        sizes[0] += size @ size * roundings(design, dtype)
        if inverses is None:
            continue
        diagonal = np.sum(design**2, axis=0) + added
        normal = design.T @ design + np.diag(added + penalty)
        scale = 1 / np.sqrt(np.diag(normal))
        scaled = normal * scale * scale[:, None]
        exact = np.diag(np.linalg.inv(scaled)) * scale**2
        condition = np.linalg.cond(scaled) * roundings(design, dtype)
        assert condition < 1
        np.testing.assert_array_less(np.abs(inverses[i] - exact), 2 * condition * np.max(exact / scale**2) * scale**2)
        expected[1:] += row**2 @ added, diagonal @ inverses[i].astype(float)
        sizes[1:] += np.array([row**2 @ added, diagonal @ inverses[i].astype(float)]) * roundings(design, dtype)
    assert np.all(np.abs([square, uncertainty, freedom] - expected) <= 4 * sizes)


@dtypes
@settings(max_examples=80)
@given(data=st.data())
def test_ridge_equals_its_reference_twin(dtype, data):
    """Solutions differ by rounding times the condition of the normal matrix whose diagonal is scaled to 1.

    Bound of row i: ``cond (roundings) |x|`` in the scaled coordinates, plus that of the target; both forms within it.
    """
    positions, arguments = data.draw(problems(dtype))
    results = [FORMS[form](*positions).ridge(*arguments) for form in ("reference", "numpy")]
    for result in results:
        assert (result[1] is None) == (arguments[4] is None)
        check_rows(result[0], positions, arguments, dtype)
        check_result(result, positions, arguments, dtype)
    one, two = (result[0].astype(float) for result in results)
    for i, (design, target, added, penalty, mean) in enumerate(designs(positions, arguments)):
        normal = design.T @ design + np.diag(added + penalty)
        scale = 1 / np.sqrt(np.diag(normal))
        inverse = np.linalg.norm(np.linalg.inv(normal * scale * scale[:, None]), 2)
        lengths = np.linalg.norm(one[i] / scale) + np.linalg.norm(mean / scale)
        length = lengths * scale.size + np.linalg.norm(target)
        bound = 2 * inverse * np.sqrt(scale.size) * roundings(design, dtype) * length
        assert np.linalg.norm((one[i] - two[i]) / scale) <= bound + np.finfo(dtype).tiny


@dtypes
@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
def test_nearly_singular_rows_get_a_finite_solution(dtype, form, data):
    """Penalties far below rounding: the solution satisfies its equations to rounding, and inverses are positive."""
    positions, arguments = data.draw(problems(dtype, 1e-20))
    assume(positions[0].size > 0)
    rows, inverses, *sums = FORMS[form](*positions).ridge(*arguments)
    assert np.isfinite(rows).all()
    assert np.isfinite(sums).all()
    check_rows(rows, positions, arguments, dtype)
    if inverses is not None:
        assert np.isfinite(inverses).all()
        assert np.all(inverses > 0)


@dtypes
@settings(max_examples=10)
@given(data=st.data())
def test_the_twin_runs_on_every_array_library(dtype, data):
    """On strict arrays off the default device it computes what it computes on NumPy arrays."""
    (rows, cols, shape), (side, *arrays) = data.draw(problems(dtype))
    moved = [None if array is None else on_device1(array) for array in arrays]
    results = [
        FORMS["reference"](rows, cols, shape).ridge(side, *arrays),
        FORMS["reference"](on_device1(rows), on_device1(cols), shape).ridge(side, *moved),
    ]
    for one, other in zip(*results, strict=True):
        if isinstance(other, array_api_strict._array_object.Array):
            assert other.device == moved[0].device
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(to_host(other) if hasattr(other, "dtype") else other, one)


@pytest.fixture
def threads():
    """`threads(n)` sets the number of Numba threads; the old number comes back at the end."""
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one core only")
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


@pytest.mark.parametrize("uncertain", [False, True])
@pytest.mark.parametrize(("width", "dtype"), [(10, np.float64), (10, np.float32), (100, np.float64)])
def test_ridge_does_not_depend_on_the_number_of_threads(width, dtype, uncertain, threads, rng):
    """Bit for bit, the parallel kernel against the serial one."""
    d1, d2, m = 201, 150, 2 * _PARALLEL_WORK // width**2 + 5_000
    rows, cols = (index.astype(np.int32) for index in np.divmod(np.sort(rng.integers(0, d1 * d2, m)), d2))
    values, penalty = rng.standard_normal(m).astype(dtype), np.linspace(1, 2, width, dtype=dtype)
    for side in (0, 1):
        factor = rng.standard_normal(((d1, d2)[1 - side], width)).astype(dtype)
        results = []
        for count in (1, 2):
            threads(count)
            fast = kernel("SampledEntries", values)(rows, cols, (d1, d2))
            results.append(fast.ridge(side, values, factor, penalty, factor**2 if uncertain else None, None))
        for one, two in zip(*results, strict=True):
            np.testing.assert_array_equal(one, two)


@dtypes
def test_squares_are_summed_in_float64(dtype, rng):
    """Squares of float32 residuals of 1e25 are beyond float32."""
    values = (1e25 * rng.standard_normal(3)).astype(dtype)
    rows = cols = np.arange(3, dtype=np.int32)
    arguments = 0, values, np.zeros((3, 2), dtype), np.ones(2, dtype), None, None
    for form in FORMS.values():
        square = form(rows, cols, (3, 3)).ridge(*arguments)[2]
        np.testing.assert_allclose(square, np.sum(values.astype(float) ** 2), rtol=1e-14)


def test_every_variant_has_a_name_of_its_own():
    """See the test of this name in test_kernels.py."""
    variants = [
        compile_ridge(length, lanes, spread, parallel, weighted)
        for length, lanes in ((4, 8), (8, 8), (8, 16))
        for spread in (False, True)
        for parallel in (False, True)
        for weighted in (False, True)
    ]
    assert len({function.py_func.__qualname__ for function in variants}) == len(variants)


def test_widths_fall_on_both_sides_of_the_widest_compiled_row():
    for dtype, widths in WIDTHS.items():
        sizes = [width * np.dtype(dtype).itemsize for width in widths]
        assert min(sizes) <= WIDEST_BYTES < max(sizes)
