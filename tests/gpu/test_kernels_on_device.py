"""The CUDA kernels on a device, against their twins and the CPU's kernels.

tests/slow/test_cuda_emulator.py runs the same sources by an emulator, where there is no device. The suites of the other
folders run on CuPy arrays, too, where there is a device: the tests with "cupy" in their ids. benchmarks/gpu.py runs all of these.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dmf
from dmf.arrays.backend import cupy_module, library
from dmf.kernels import TABLE, cpu, cuda, gpu, gpu_descent, passes

from helpers import DTYPES, NO_CUDA, random_weights
from kernel_cases import (
    CHECKS,
    check_infinite_rows,
    check_nearly_singular,
    check_ridge_results,
    problems_of,
    ridge_problems,
)

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(NO_CUDA), reason=NO_CUDA)]
TWIN = TABLE["SampledEntries"]["reference"]
RANKS = [1, 5, 10, 70, 256, 300]
WIDTHS = [1, 3, 12, 20, 64, 100]
dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


def moved(value):
    return cupy_module().asarray(value) if isinstance(value, np.ndarray) else value


def fetched(value):
    if isinstance(value, tuple):
        return tuple(map(fetched, value))
    return value.get() if library(value) == "cupy" else value


def by_device(function):
    """`function` of CuPy arrays as one of NumPy arrays."""
    return lambda *arguments, **options: fetched(function(*map(moved, arguments), **options))


class ByDevice:
    """The kernel object for CuPy arrays, as one for NumPy arrays."""

    def __init__(self, rows, cols, shape):
        self._kernel = gpu.SampledEntries(moved(rows), moved(cols), shape)

    def __getattr__(self, name):
        return by_device(getattr(self._kernel, name))


FORMS = {
    name: ByDevice if name == "SampledEntries" else by_device(forms.get("cupy", forms["reference"]))
    for name, forms in TABLE.items()
}


@pytest.mark.parametrize("name", TABLE)
@dtypes
@settings(max_examples=60)
@given(data=st.data())
def test_kernels_equal_their_reference_twins(name, dtype, data):
    """Within the bounds that hold for the CPU."""
    CHECKS[name](TABLE[name]["reference"], FORMS[name], dtype, data.draw(problems_of(name, dtype, RANKS)))


@dtypes
@settings(max_examples=60)
@given(data=st.data())
def test_ridge_equals_its_reference_twin(dtype, data):
    positions, arguments = data.draw(ridge_problems(dtype, WIDTHS))
    results = [form(*positions).ridge(*arguments) for form in (TWIN, ByDevice)]
    check_ridge_results(results, positions, arguments, dtype)


@dtypes
@given(data=st.data())
def test_nearly_singular_rows_get_a_finite_solution(dtype, data):
    check_nearly_singular(ByDevice, *data.draw(ridge_problems(dtype, WIDTHS, 1e-20)), dtype)


def popular(rng, dtype, width, samples=60_000):
    """Entries of which few rows and columns hold most, so that both have several segments, also of ridge regressions."""
    d1, d2 = 400, 300
    rows, cols = ((n * rng.random(samples) ** 4).astype(np.int32) for n in (d1, d2))
    order = np.lexsort((cols, rows))
    left, right = (rng.standard_normal(shape).astype(dtype) for shape in ((d1, width), (width, d2)))
    return rows[order], cols[order], rng.standard_normal(samples).astype(dtype), left, right, (d1, d2)


def check_against_the_cpu(rng, dtype, width, samples):
    """Largest deviation over the largest number: sums of up to 20,000 terms, errors of both of them random."""
    rows, cols, values, left, right, shape = popular(rng, dtype, width, samples)
    here, there = cpu.SampledEntries(rows, cols, shape), ByDevice(rows, cols, shape)
    pairs = list(zip(there.residual(values, left, right), here.residual(values, left, right), strict=True))
    pairs += zip(there.adjoint(values, left, right), here.adjoint(values, left, right), strict=True)
    pairs.append((there.product(left, right), here.product(left, right)))
    penalty = np.full(width, 100.0, dtype)
    for side, factor in ((0, np.ascontiguousarray(right.T)), (1, left)):
        arguments = side, values, factor, penalty, np.full_like(factor, 0.1), None
        pairs += zip(there.ridge(*arguments), here.ridge(*arguments), strict=True)
    for one, other in pairs:
        assert np.max(np.abs(one - other)) <= 2_000 * np.finfo(dtype).eps * np.max(np.abs(other))


@dtypes
@pytest.mark.parametrize("width", sorted({*cuda.CLASSES, *(n - 1 for n in cuda.CLASSES)}))
def test_every_width_class_agrees_with_the_cpu(width, dtype, rng):
    check_against_the_cpu(rng, dtype, width, 60_000)


@pytest.mark.parametrize(("width", "dtype"), [(10, np.float32), (90, np.float64)])
def test_every_kernel_on_few_samples(width, dtype, rng, monkeypatch):
    """In short segments, so that all are launched; benchmarks/gpu.py runs this under compute-sanitizer."""
    monkeypatch.setattr(passes, "_LONGEST", 16)
    monkeypatch.setattr(passes, "_FEW_LOSSES", 4)
    monkeypatch.setattr(gpu, "_LONGEST_RIDGE", 20)
    check_against_the_cpu(rng, dtype, width, 1_500)


@dtypes
@pytest.mark.parametrize("width", [10, 16, 64, 200])
def test_two_runs_give_the_same_bits(width, dtype, rng):
    """Of products, passes and ridge regressions, by two objects."""
    rows, cols, values, left, right, shape = popular(rng, dtype, width)
    results = []
    for _ in range(2):
        kernel = ByDevice(rows, cols, shape)
        found = [
            *kernel.residual(values, left, right),
            *kernel.adjoint(values, left, right),
            kernel.product(left, right),
        ]
        results.append([*found, *kernel.ridge(1, values, left, np.ones(width, dtype), left**2, None)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@dtypes
def test_factors_of_any_strides(dtype, rng):
    """Views on the device give what their copies give, bit for bit."""
    rows, cols, values, left, right, shape = popular(rng, dtype, 10, samples=3_000)
    kernel = gpu.SampledEntries(moved(rows), moved(cols), shape)
    twice = moved(np.repeat(values, 2))[::2]
    turned = moved(np.asfortranarray(left)), moved(np.ascontiguousarray(right.T)).T
    expected = kernel.residual(moved(values), moved(left), moved(right))
    for one, other in zip(kernel.residual(twice, *turned), expected, strict=True):
        np.testing.assert_array_equal(one.get(), other.get())


@dtypes
def test_arrange_sorts_as_on_the_cpu(dtype, rng):
    rows, cols = (rng.integers(0, n, 5_000).astype(np.int32) for n in (90, 70))
    values = np.arange(5_000, dtype=dtype)
    found = by_device(gpu.SampledEntries.arrange)(rows, cols, values, (90, 70))
    for one, other in zip(found, cpu.SampledEntries.arrange(rows, cols, values, (90, 70)), strict=True):
        np.testing.assert_array_equal(one, other)


@dtypes
def test_small_descent_follows_the_loop(dtype, rng, monkeypatch):
    """Every kernel of a recorded step, also that of long sums."""
    monkeypatch.setattr(gpu_descent, "_LONG_SUM", 5)
    rows, cols = np.nonzero(rng.random((9, 8)) < 0.6)
    here = dmf.SampledEntries(rows, cols, rng.standard_normal(rows.size).astype(dtype), (9, 8))
    weights = random_weights(rng, (8, 4, 2, 3, 9), dtype, 0.3)
    options = {"step_size": 0.02, "weight_decay": 0.01, "iterations": 40, "record_every": 20}
    runs = [dmf.gradient_descent(here, dmf.DeepLinearNetwork(weights), **options)]
    network = dmf.DeepLinearNetwork(moved(w) for w in weights)
    runs.append(dmf.gradient_descent(here.to_device("cuda"), network, **options))
    np.testing.assert_allclose(runs[1].history.loss, runs[0].history.loss, rtol=40 * 100 * np.finfo(dtype).eps)


@dtypes
def test_infinite_factors_touch_their_own_rows_only(dtype):
    check_infinite_rows(ByDevice, dtype)
