"""The CUDA kernels: run by an emulator of the execution model they compute what their twins compute.

What cannot be seen here, in contrast to tests/gpu: that CuPy and a device take them, and how fast they are.
"""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dmf
from dmf.arrays.backend import cupy_module
from dmf.kernels import TABLE, cuda, gpu, gpu_descent, passes
from dmf.kernels.passes import kernels_of
from dmf.models.gradients import loss_and_gradients
from dmf.solvers import Outcome, loop
from dmf.solvers.descent import GradientDescent

import cuda_emulator
from helpers import DTYPES, assert_same_weights, count_host_reads, random_weights, seeds
from kernel_cases import (
    CHECKS,
    check_infinite_rows,
    check_nearly_singular,
    check_ridge_results,
    numbers,
    problems_of,
    ridge_problems,
)

TWIN = TABLE["SampledEntries"]["reference"]
WIDTHS = [3, 10]  # of ridge regressions; every class is compiled once, for a second
RANKS = [1, 10, 257]  # one lane or several for a row, one sample or many side by side; 257: in blocks of columns
dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


@pytest.fixture(scope="module")
def emulator():
    """CuPy replaced by the emulator; rows are cut at 16 samples, so that small problems have rows of several segments."""
    if cuda_emulator.compiler is None:
        pytest.skip("no g++, which compiles the CUDA sources for the emulator")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", cuda_emulator.fake_cupy())
        patch.setattr(cuda, "source", lambda name, kernel="", whole=cuda.source: whole(name))  # compiled in one go
        patch.setattr(passes, "_LONGEST", 16)
        patch.setattr(passes, "_FEW_LOSSES", 4)
        patch.setattr(gpu, "_LONGEST_RIDGE", 20)
        cupy_module.cache_clear()
        cuda._compiled.cache_clear()
        yield patch
    cupy_module.cache_clear()
    cuda._compiled.cache_clear()


@pytest.mark.parametrize("name", [name for name, forms in TABLE.items() if "cupy" in forms])
@dtypes
@settings(max_examples=10)
@given(data=st.data())
def test_kernels_equal_their_reference_twins(name, dtype, emulator, data):
    """As for the CPU: m = 0, repeats, rows of no samples and of several segments, any layout."""
    CHECKS[name](TABLE[name]["reference"], TABLE[name]["cupy"], dtype, data.draw(problems_of(name, dtype, RANKS)))


@dtypes
@pytest.mark.parametrize("rank", [4, 10])
def test_rows_of_many_segments(rank, dtype, emulator, rng):
    """One row and one column hold nearly all samples, as in ratings."""
    rows = np.sort(np.append(np.zeros(300, np.int32), rng.integers(0, 8, 60).astype(np.int32)))
    cols = rng.choice([1, 1, 1, 0, 2], rows.size).astype(np.int32)
    order = np.lexsort((cols, rows))
    problem = rows[order], cols[order], numbers(rng, rows.size, dtype)
    factors = numbers(rng, (8, rank), dtype), numbers(rng, (rank, 3), dtype)
    CHECKS["SampledEntries"](TWIN, gpu.SampledEntries, dtype, (*problem, *factors))


@dtypes
def test_infinite_factors_touch_their_own_rows_only(dtype, emulator):
    check_infinite_rows(gpu.SampledEntries, dtype)


@dtypes
@settings(max_examples=10)
@given(data=st.data())
def test_ridge_equals_its_reference_twin(dtype, emulator, data):
    """Within the bound of `check_ridge_results`; with rows of several segments."""
    positions, arguments = data.draw(ridge_problems(dtype, WIDTHS))
    results = [form(*positions).ridge(*arguments) for form in (TWIN, gpu.SampledEntries)]
    check_ridge_results(results, positions, arguments, dtype)


@dtypes
def test_ridge_takes_arrays_of_other_dtypes(dtype, emulator, rng):
    """Penalty, variances, means and roots count as numbers of the factor's dtype: the same bits as those converted before."""
    rows, cols = (p.astype(np.int32) for p in np.divmod(np.sort(rng.integers(0, 12, 40)), 3))
    fast = gpu.SampledEntries(rows, cols, (4, 3))
    values, factor = rng.standard_normal(40).astype(dtype), rng.standard_normal((3, 3)).astype(dtype)
    others = rng.integers(1, 9, 3), rng.integers(1, 9, (3, 3)), rng.integers(1, 9, (4, 3)), rng.integers(1, 9, 40)
    converted = (a.astype(dtype) for a in others)
    for one, other in zip(
        fast.ridge(0, values, factor, *others), fast.ridge(0, values, factor, *converted), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_the_emulator_refuses_arguments_of_another_type(emulator):
    """Arrays of another dtype than the kernel's pointer, as numbers of another type, do not pass for bytes."""
    module, one = kernels_of(4, np.float32), np.ones((1, 4), np.float32)
    index, out = np.zeros(1, np.int32), np.empty(1, np.float32)
    good = [np.int64(1), index, index, one, one, out]
    cuda.launch(module, "sampled_product", 1, *good)
    assert out == 4
    wrong = {0: np.int32(1), 1: index.astype(np.int64), 2: index.astype(np.float32), 3: one.astype(float), 4: index}
    for place, argument in wrong.items():
        arguments = [*good[:place], argument, *good[place + 1 :]]
        with pytest.raises(RuntimeError, match=f"argument {place} is of the wrong type"):
            cuda.launch(module, "sampled_product", 1, *arguments)


@dtypes
@settings(max_examples=10)
@given(data=st.data())
def test_nearly_singular_rows_get_a_finite_solution(dtype, emulator, data):
    """Penalties far below rounding."""
    check_nearly_singular(gpu.SampledEntries, *data.draw(ridge_problems(dtype, WIDTHS, 1e-20)), dtype)


@dtypes
def test_wide_ridge_equals_its_reference_twin(dtype, emulator, rng):
    """Normal matrices beyond shared memory, more tiles than threads."""
    rows, cols = (p.astype(np.int32) for p in np.divmod(np.sort(rng.integers(0, 4, 50)), 2))
    positions = rows, cols, (2, 2)
    factor, means = rng.standard_normal((2, 90)), rng.standard_normal((2, 90))
    arrays = rng.standard_normal(50), factor, np.full(90, 50.0), factor**2, means
    arguments = (0, *(a.astype(dtype) for a in arrays), None)
    results = [form(*positions).ridge(*arguments) for form in (TWIN, gpu.SampledEntries)]
    check_ridge_results(results, positions, arguments, dtype)


@dtypes
@given(seed=seeds)
@settings(max_examples=5)
def test_results_do_not_depend_on_the_order_of_threads(dtype, emulator, seed):
    """Bit for bit with threads and blocks in ascending and in descending order: no barrier is missing, no sum is a race."""
    rng = np.random.default_rng(seed)
    rows, cols = (p.astype(np.int32) for p in np.divmod(np.sort(rng.integers(0, 12, 150)), 3))
    left, right, values = numbers(rng, (4, 10), dtype), numbers(rng, (10, 3), dtype), numbers(rng, 150, dtype)
    results = []
    for descending in (False, True):
        emulator.setattr(cuda_emulator, "DESCENDING", descending)
        fast = gpu.SampledEntries(rows, cols, (4, 3))
        found = [*fast.residual(values, left, right), *fast.adjoint(values, left, right), fast.product(left, right)]
        for side, factor in ((0, right.T), (1, left)):
            found += fast.ridge(side, values, factor, np.ones(10, dtype), factor**2, None)
        results.append([np.copy(x) for x in found])
    emulator.setattr(cuda_emulator, "DESCENDING", False)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@dtypes
@given(data=st.data())
def test_arrange_sorts_as_its_twin_does(dtype, emulator, data):
    """By row, column and order given, bit for bit; what is sorted is returned itself."""
    rng = np.random.default_rng(data.draw(seeds))
    rows, cols = (rng.integers(0, 4, data.draw(st.integers(0, 30))).astype(np.int32) for _ in range(2))
    cols = cols[: rows.size] if cols.size >= rows.size else np.resize(cols, rows.size)
    arguments = rows, cols, rng.standard_normal(rows.size).astype(dtype)
    found, expected = (form.arrange(*arguments, (4, 4)) for form in (gpu.SampledEntries, TWIN))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert all(a is b for a, b in zip(gpu.SampledEntries.arrange(*found, (4, 4)), found, strict=True))


class OnDevice(dmf.SampledEntries):
    """Sampled entries whose kernel is the one for CuPy arrays."""

    def _build(self):
        self._kernel, self._roots = gpu.SampledEntries(self.rows, self.cols, self.shape), None


class OneStepAtATime(dmf.SampledEntries):
    """Sampled entries whose descent goes through the loop of the solver."""

    def descent(self, widths):
        return None


class OneStepAtATimeOnDevice(OnDevice):
    """Both."""

    def descent(self, widths):
        return None


def descent_problem(rng, dtype, depth, scale=0.3):
    truth = rng.standard_normal((9, 2)) @ rng.standard_normal((2, 8))
    rows, cols = np.nonzero(rng.random((9, 8)) < 0.6)
    sizes = (8, *[4, 2, 3, 4][: depth - 1], 9)
    network = dmf.DeepLinearNetwork(random_weights(rng, sizes, dtype, scale))
    return (rows, cols, truth[rows, cols].astype(dtype), truth.shape), network


@dtypes
@pytest.mark.parametrize(("depth", "reduction"), [(2, "sum"), (3, "mean"), (4, "sum"), (5, "mean")])
def test_recorded_descent_follows_the_loop(depth, reduction, dtype, emulator, rng):
    """Steps of a stable descent: errors of each (100 roundings) add up and are not amplified."""
    data, network = descent_problem(rng, dtype, depth)
    step = 0.02 if reduction == "mean" else 0.02 / data[0].size
    options = {"reduction": reduction, "iterations": 10, "record_every": 5}
    runs = [
        dmf.gradient_descent(kind(*data), network, step, 2.0, 0.01, **options) for kind in (OnDevice, OneStepAtATime)
    ]
    tolerance = 10 * 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(runs[0].history.loss, runs[1].history.loss, rtol=tolerance)
    for one, other in zip(*(run.network.weights for run in runs), strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.max(np.abs(other)))


def test_a_chunk_is_that_many_recorded_steps(emulator, monkeypatch, rng):
    """Bit for bit: 7 steps are a graph of 4 and three of one; and the gradients are those of the weights."""
    data, network = descent_problem(rng, np.float64, 3)
    monkeypatch.setattr(gpu_descent, "_TOGETHER", 4)
    observations, solver = OnDevice(*data), GradientDescent(0.02)
    start = solver._state(observations, network.weights)
    cuda_emulator.LAUNCHED.clear()
    together, done = solver.advance(observations, start, 7)
    assert cuda_emulator.LAUNCHED.count("graph") == 1 + 3
    assert done == 7
    state = start
    for _ in range(7):
        state, one = solver.advance(observations, state, 1)
        assert one == 1
    assert state[2] == together[2]
    for one, other in zip([*together[0], *together[1]], [*state[0], *state[1]], strict=True):
        np.testing.assert_array_equal(one, other)
    loss, gradients = loss_and_gradients(together[0], observations.evaluate)
    scale = 1 / observations.n_measurements
    np.testing.assert_allclose(together[2], scale * loss, rtol=1e-13)
    for one, other in zip(together[1], gradients, strict=True):
        np.testing.assert_allclose(one, scale * other, rtol=0, atol=1e-13 * np.max(np.abs(scale * other)))


def test_the_host_reads_once_for_each_record(emulator, monkeypatch, rng):
    """And a constant number of times besides; the loop reads every loss, which shows that reads are counted."""
    data, network = descent_problem(rng, np.float64, 3)
    monkeypatch.setattr(loop, "_CHUNK_SECONDS", 1e9)  # however slow the emulator is
    reads = count_host_reads(monkeypatch, cuda_emulator.DeviceArray)
    counts = []
    for kind in (OnDevice, OneStepAtATimeOnDevice):
        reads.clear()
        run = dmf.gradient_descent(kind(*data), network, 0.02, iterations=20, record_every=10)
        counts.append(len(reads))
    assert len(run.history.loss) == 3
    assert counts[0] <= 3 + 6  # of the start: its loss and checks
    assert counts[1] >= 20


@dtypes
def test_recorded_descent_ends_at_its_last_finite_state(dtype, emulator, rng):
    """A diverging run makes as many steps as the loop and ends at the same state (errors grow by the degree of a step)."""
    data, network = descent_problem(rng, dtype, 3, scale=1.5)
    options = {"reduction": "sum", "iterations": 100, "record_every": 100}
    runs = [dmf.gradient_descent(kind(*data), network, 1.0, **options) for kind in (OnDevice, OneStepAtATime)]
    steps = int(runs[0].history.iteration[-1])
    assert 0 < steps < 10
    for run in runs:
        assert run.outcome is Outcome.DIVERGED
        assert run.history.iteration[-1] == steps
        assert all(np.isfinite(w).all() for w in run.network.weights)
    np.testing.assert_allclose(runs[0].history.loss, runs[1].history.loss, rtol=100 * np.finfo(dtype).eps * 5**steps)


def test_long_sums_of_a_step(emulator, monkeypatch, rng):
    """Matrices of more rows than a thread sums alone."""
    monkeypatch.setattr(gpu_descent, "_LONG_SUM", 5)
    cuda_emulator.LAUNCHED.clear()
    data, network = descent_problem(rng, np.float64, 4)
    runs = [
        dmf.gradient_descent(kind(*data), network, 0.02, iterations=5, record_every=5)
        for kind in (OnDevice, OneStepAtATime)
    ]
    assert "multiply_long" in cuda_emulator.LAUNCHED
    np.testing.assert_allclose(runs[0].history.loss, runs[1].history.loss, rtol=1e-12)


def test_a_whole_completion(emulator, rng):
    """The pipeline on the CUDA kernels finds the matrix that it finds on those of the CPU, twice with the same bits."""
    truth = rng.standard_normal((15, 2)) @ rng.standard_normal((2, 12))
    rows, cols = np.nonzero(rng.random(truth.shape) < 0.8)
    found = [dmf.complete(OnDevice(rows, cols, truth[rows, cols], truth.shape), offsets=False) for _ in range(2)]
    assert_same_weights(*found)
    assert found[0].found.exact
    assert found[0].found.rank == 2
    np.testing.assert_allclose(found[0].product(), truth, atol=1e-9)


def test_what_does_not_fit_is_refused_with_the_number(emulator, monkeypatch, rng):
    monkeypatch.setattr(cuda, "free_memory", lambda like: 10_000)
    rows = cols = np.arange(50, dtype=np.int32)
    values = rng.standard_normal(50)
    fast = gpu.SampledEntries(*gpu.SampledEntries.arrange(rows, cols, values, (50, 50))[:2], (50, 50))
    with pytest.raises(dmf.errors.ArgumentError, match=r"takes 0.2 MB of device memory, but 0.0 MB are free") as caught:
        fast.residual(values, np.ones((50, 100)), np.ones((100, 50)))
    assert caught.value.value > caught.value.limit == 10_000
    with pytest.raises(dmf.errors.ArgumentError, match="at most 512"):
        fast.ridge(0, values, np.ones((50, 513)), np.ones(513), None, None)


def test_a_descent_that_does_not_fit_is_refused_before_it_allocates(emulator, monkeypatch, rng):
    """With all of its buffers: what they take is enough, a tenth less is not."""
    data, _ = descent_problem(rng, np.float64, 3)
    values, fake, made = data[2], cupy_module(), []
    monkeypatch.setattr(passes, "_FEW_LOSSES", 4_096)
    arguments = OnDevice(*data)._kernel._passes(4, np.float64), (values, values), data[3], (4, 2)
    for name in ("empty", "zeros"):
        make = getattr(fake, name)
        monkeypatch.setattr(fake, name, lambda *a, make=make: made.append(make(*a)) or made[-1])
    gpu_descent.Descent(*arguments)
    taken = sum(array.nbytes for array in made)
    monkeypatch.setattr(cuda, "free_memory", lambda like: taken)
    gpu_descent.Descent(*arguments)
    made.clear()
    monkeypatch.setattr(cuda, "free_memory", lambda like: int(0.9 * taken))
    with pytest.raises(dmf.errors.ArgumentError, match="descent of 3 layers takes"):
        gpu_descent.Descent(*arguments)
    assert made == []


def test_graphs_of_the_last_options_are_kept(emulator, monkeypatch, rng):
    """Those of another weight decay or scale take their place; the same options record nothing anew."""
    data, network = descent_problem(rng, np.float64, 3)
    monkeypatch.setattr(gpu_descent, "_TOGETHER", 2)
    observations = OnDevice(*data)
    kept = []
    for decay in (0.0, 0.5, 0.5):
        solver = GradientDescent(0.02, weight_decay=decay)
        state, _ = solver.advance(observations, solver._state(observations, network.weights), 3)
        descent = observations.descent(tuple(w.shape[0] for w in network.weights[:-1]))
        assert len(descent._graphs) == 2
        kept.append((*descent._graphs.values(), state[2]))
    assert not {*kept[0]} & {*kept[1]}
    assert kept[1] == kept[2]
