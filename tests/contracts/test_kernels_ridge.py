"""Ridge regression of the rows of a factor: the fast kernel, its reference twin, and what both have to hold."""

import array_api_strict
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dmf
from dmf.arrays.backend import to_host
from dmf.arrays.threads import thread_count
from dmf.kernels import TABLE, kernel
from dmf.kernels.chunks import PARALLEL_WORK
from dmf.kernels.ridge import WIDEST_BYTES

from helpers import DTYPES, on_device1
from kernel_cases import check_nearly_singular, check_ridge_results, ridge_problems

FORMS = {name: TABLE["SampledEntries"][name] for name in ("reference", "numpy")}
# One to nine machine vectors, whole and not, two or four samples at a time; 70 is the widest that the solvers meet often;
# 100 and 200 go through BLAS. Each padded length is compiled once, for seconds.
WIDTHS = {np.float64: [1, 3, 12, 20, 70, 100], np.float32: [1, 8, 20, 70, 200]}
dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


@dtypes
@settings(max_examples=80)
@given(data=st.data())
def test_ridge_equals_its_reference_twin(dtype, data):
    """Within the bound of `check_ridge_results`, for repeats, rows of no samples, any layout, narrow and wide rows."""
    positions, arguments = data.draw(ridge_problems(dtype, WIDTHS[dtype]))
    results = [FORMS[form](*positions).ridge(*arguments) for form in ("reference", "numpy")]
    check_ridge_results(results, positions, arguments, dtype)


@dtypes
@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
def test_nearly_singular_rows_get_a_finite_solution(dtype, form, data):
    """Penalties far below rounding: the solution satisfies its equations to rounding, and inverses are positive."""
    positions, arguments = data.draw(ridge_problems(dtype, WIDTHS[dtype], 1e-20))
    check_nearly_singular(FORMS[form], positions, arguments, dtype)


@dtypes
@settings(max_examples=10)
@given(data=st.data())
def test_the_twin_runs_on_every_array_library(dtype, data):
    """On strict arrays off the default device it computes what it computes on NumPy arrays."""
    (rows, cols, shape), (side, *arrays) = data.draw(ridge_problems(dtype, WIDTHS[dtype]))
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


@pytest.mark.parametrize("uncertain", [False, True])
@pytest.mark.parametrize(("width", "dtype"), [(10, np.float64), (10, np.float32), (100, np.float64)])
def test_ridge_does_not_depend_on_the_number_of_threads(width, dtype, uncertain, rng):
    """Bit for bit, the parallel kernel against the serial one."""
    d1, d2, m = 201, 150, 2 * PARALLEL_WORK // width**2 + 5_000
    rows, cols = (index.astype(np.int32) for index in np.divmod(np.sort(rng.integers(0, d1 * d2, m)), d2))
    values, penalty = rng.standard_normal(m).astype(dtype), np.linspace(1, 2, width, dtype=dtype)
    for side in (0, 1):
        factor = rng.standard_normal(((d1, d2)[1 - side], width)).astype(dtype)
        results = []
        for count in (1, thread_count()):
            with dmf.threads(count):
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


@dtypes
@pytest.mark.parametrize("width", [3, 200])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_so_in_its_own_row(width, bad, dtype, rng):
    """No row of numbers that look right comes from an infinite one, compiled or by BLAS."""
    rows, cols = np.array([0, 0, 1], np.int32), np.array([0, 1, 1], np.int32)
    factor = rng.standard_normal((2, width)).astype(dtype)
    factor[0, width // 2] = bad
    values, penalty = np.ones(3, dtype), np.ones(width, dtype)
    found = FORMS["numpy"](rows, cols, (2, 2)).ridge(0, values, factor, penalty, None, None)[0]
    assert not np.isfinite(found[0]).any()
    assert np.isfinite(found[1]).all()


def test_widths_fall_on_both_sides_of_the_widest_compiled_row():
    for dtype, widths in WIDTHS.items():
        sizes = [width * np.dtype(dtype).itemsize for width in widths]
        assert min(sizes) <= WIDEST_BYTES < max(sizes)
