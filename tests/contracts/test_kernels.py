"""Every fast kernel computes what its reference twin computes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.arrays.threads import thread_count
from dmf.kernels import TABLE, kernel
from dmf.kernels.chunks import PARALLEL_WORK
from dmf.kernels.dense import _compile as compile_dense
from dmf.kernels.descent import compile_descent
from dmf.models.gradients import loss_and_gradients
from dmf.solvers import Outcome
from dmf.solvers.descent import GradientDescent

from helpers import DTYPES, absolute_loss_and_gradients, dense_form, random_weights, roundings, seeds
from kernel_cases import CHECKS, assert_close, numbers, problems_of

dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


def test_every_kernel_has_a_check_and_a_twin():
    assert CHECKS.keys() == TABLE.keys()
    assert all("reference" in forms for forms in TABLE.values())


@pytest.mark.parametrize("name", TABLE)
@dtypes
@given(data=st.data())
def test_fast_kernel_equals_its_reference_twin(name, dtype, data):
    """Up to the rounding errors of both, for m = 0, repeats, any layout, and ranks on both sides of the block length."""
    CHECKS[name](TABLE[name]["reference"], TABLE[name]["numpy"], dtype, data.draw(problems_of(name, dtype)))


@dtypes
def test_strided_and_read_only_measurements(dtype, rng):
    """Values that are a view, and arrays that cannot be written to, give bit for bit what contiguous copies give."""
    rows, cols = (index.astype(np.int32) for index in np.nonzero(rng.random((7, 6)) < 0.6))
    values = numbers(rng, (rows.size, 2), dtype)[:, 1]
    left, right = numbers(rng, (7, 3), dtype), numbers(rng, (3, 6), dtype)
    fast = kernel("SampledEntries", values)(rows, cols, (7, 6))
    expected = fast.residual(values.copy(), left, right)
    for array in (left, right, rows, cols, values):
        array.flags.writeable = False
    for one, other in zip(fast.residual(values, left, right), expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("rank", "dtype", "parallel"),
    [(10, np.float64, True), (10, np.float32, True), (110, np.float64, True), (3, np.float64, False)],
)
def test_results_do_not_depend_on_the_number_of_threads(rank, dtype, parallel, rng):
    """Bit for bit, for the parallel kernels (against the serial ones, which one thread takes) and below their threshold."""
    m = PARALLEL_WORK // rank + 1 if parallel else 500
    d1, d2 = 200, 150
    rows, cols = (index.astype(np.int32) for index in np.divmod(np.sort(rng.integers(0, d1 * d2, m)), d2))
    left, right, values = numbers(rng, (d1, rank), dtype), numbers(rng, (rank, d2), dtype), numbers(rng, m, dtype)
    results = []
    for count in (1, thread_count()):
        with dmf.threads(count):
            fast = kernel("SampledEntries", values)(rows, cols, (d1, d2))
            product = kernel("sampled_product", left)(left, right, rows, cols)
            results.append([product, *fast.adjoint(values, left, right), *fast.residual(values, left, right)])
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


@dtypes
@pytest.mark.parametrize("some", [False, True])
def test_dense_results_do_not_depend_on_the_number_of_threads(some, dtype, rng):
    """Bit for bit, the parallel kernel against the serial one; sizes are multiples of neither block, group nor chunk."""
    count, size = 1_237, 1_003
    rows = np.flatnonzero(rng.random(count) < 0.9) if some else None
    used = count if rows is None else rows.size
    assert used * size > PARALLEL_WORK
    problem = numbers(rng, (count, size), dtype), rows, numbers(rng, used, dtype), numbers(rng, size, dtype)
    left, right = numbers(rng, (59, 2), dtype), numbers(rng, (17, 2), dtype)
    results = []
    for threads_used in (1, thread_count()):
        with dmf.threads(threads_used):
            design = kernel("restricted_map", problem[0])(*problem[:2], (59, 17), left, right)
            results.append([*kernel("dense_residual", problem[0])(*problem), design])
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


class OneStepAtATime(dmf.SampledEntries):
    """Sampled entries without the compiled chunk: descent goes through the loop that is its twin."""

    def descent(self, widths):
        return None


# Each padded length is compiled once, for seconds; these are rows of one machine vector and of two.
WIDTHS = {np.float64: [1, 2, 4], np.float32: [3, 10]}


@st.composite
def descents(draw, dtype):
    """Observations with and without the compiled chunk, a solver, weights, of depth 2 to 5 and any inner widths."""
    d1, d2 = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    inner = draw(st.lists(st.sampled_from(WIDTHS[dtype]), min_size=0, max_size=3))
    inner.insert(draw(st.integers(0, len(inner))), max(WIDTHS[dtype]))
    rng = np.random.default_rng(draw(seeds))
    rows, cols = np.divmod(rng.integers(0, d1 * d2, draw(st.integers(1, 40))), d2)
    data = rows, cols, rng.standard_normal(rows.size).astype(dtype), (d1, d2)
    solver = GradientDescent(
        draw(st.sampled_from([0.003, 0.1])),
        draw(st.sampled_from([0.5, 1.0, 5.0])),
        draw(st.sampled_from([0.0, 0.7])),
        draw(st.sampled_from(["mean", "sum"])),
    )
    return dmf.SampledEntries(*data), OneStepAtATime(*data), solver, random_weights(rng, (d2, *inner, d1), dtype, 0.7)


def chunk(observations, solver, state, iterations):
    """State and number of steps of the compiled chunk, called as the solver calls it."""
    compiled = observations.descent(tuple(w.shape[0] for w in state[0][:-1]))
    scale = 1 / observations.n_measurements if solver.reduction == "mean" else 1.0
    rates = solver.rates(len(state[0]))
    *state, done = compiled(*state, rates, 1 - solver.step_size * solver.weight_decay, scale, iterations)
    return tuple(state), done


@dtypes
@given(data=st.data())
def test_one_compiled_step_equals_a_step_of_the_solver(dtype, data):
    """The bound: that of loss and gradients at the new weights, which have 3 roundings of their own in every factor."""
    observations, twin, solver, weights = data.draw(descents(dtype))
    state = solver.init(twin, dmf.DeepLinearNetwork(weights))
    (actual, actual_gradients, actual_loss), done = chunk(observations, solver, state, 1)
    (expected, gradients, loss), expected_done = solver.advance(twin, state, 1)
    assert done == expected_done == 1
    shrink, rates = 1 - solver.step_size * solver.weight_decay, solver.rates(len(weights))
    sizes = [
        abs(shrink) * np.abs(w.astype(float)) + rate * np.abs(g.astype(float))
        for w, g, rate in zip(state[0], state[1], rates, strict=True)
    ]
    scale = 1 / twin.n_measurements if solver.reduction == "mean" else 1.0
    size_of_loss, size_of_gradients = absolute_loss_and_gradients(dense_form(twin), twin.values, sizes)
    count = roundings(twin, weights) + 3 * 2 * len(weights)
    eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
    for one, other, size in zip(actual, expected, sizes, strict=True):
        assert_close(one, other, 4 * eps * size + tiny)
    for one, other, size in zip(actual_gradients, gradients, size_of_gradients, strict=True):
        assert_close(one, other, count * eps * scale * size + tiny)
    assert abs(actual_loss - loss) <= 2 * count * eps * scale * size_of_loss


@dtypes
@given(data=st.data(), steps=st.integers(0, 7))
def test_a_chunk_of_compiled_steps_is_that_many_steps(dtype, data, steps):
    """Bit for bit, so with the test before, a chunk of any length is that many steps of the solver."""
    observations, _, solver, weights = data.draw(descents(dtype))
    state = start = solver.init(observations, dmf.DeepLinearNetwork(weights))
    done = 0
    for _ in range(steps):
        state, one = chunk(observations, solver, state, 1)
        done += one
    together, count = chunk(observations, solver, start, steps)
    assert count == done
    assert together[2] == state[2]
    for one, other in zip([*together[0], *together[1]], [*state[0], *state[1]], strict=True):
        np.testing.assert_array_equal(one, other)


def sizes(depth, dtype):
    """(d2, inner widths, d1) of a network whose widths differ."""
    least, *_, most = WIDTHS[dtype]
    return 8, *[most, least, most - 1, most][: depth - 1], 9


@dtypes
@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_compiled_descent_follows_the_loop(depth, reduction, dtype, rng):
    """300 steps of a stable descent: errors of each step (100 roundings) add up and are not amplified."""
    truth = rng.standard_normal((9, 2)) @ rng.standard_normal((2, 8))
    rows, cols = np.nonzero(rng.random((9, 8)) < 0.6)
    data = rows, cols, truth[rows, cols].astype(dtype), truth.shape
    network = dmf.DeepLinearNetwork(random_weights(rng, sizes(depth, dtype), dtype, 0.3))
    step = 0.02 if reduction == "mean" else 0.02 / rows.size
    runs = [
        dmf.gradient_descent(kind(*data), network, step, 2.0, 0.01, reduction, iterations=300, record_every=30)
        for kind in (dmf.SampledEntries, OneStepAtATime)
    ]
    tolerance = 300 * 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(runs[0].history.loss, runs[1].history.loss, rtol=tolerance)
    for one, other in zip(*(run.network.weights for run in runs), strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.max(np.abs(other)))


@dtypes
@pytest.mark.parametrize("depth", [2, 3, 4, 5])
def test_compiled_descent_diverges_as_the_loop_does(depth, dtype, rng):
    """Same number of steps, same last finite state; on the way up errors grow by the degree 2L - 1 of a step, each step."""
    rows, cols = np.nonzero(rng.random((9, 8)) < 0.6)
    data = rows, cols, rng.standard_normal(rows.size).astype(dtype), (9, 8)
    network = dmf.DeepLinearNetwork(random_weights(rng, sizes(depth, dtype), dtype, 1.5))
    runs = [
        dmf.gradient_descent(kind(*data), network, 1.0, reduction="sum", iterations=100, record_every=100)
        for kind in (dmf.SampledEntries, OneStepAtATime)
    ]
    steps = int(runs[0].history.iteration[-1])
    assert 0 < steps < 10
    degree = 2 * depth - 1
    tolerance = 100 * np.finfo(dtype).eps * degree**steps
    assert tolerance < 0.1
    for run in runs:
        assert run.outcome is Outcome.DIVERGED
        assert run.history.iteration[-1] == steps
        assert np.isfinite(run.history.loss).all()
        assert all(np.isfinite(w).all() for w in run.network.weights)
    np.testing.assert_allclose(runs[0].history.loss, runs[1].history.loss, rtol=2 * degree * tolerance)
    for one, other in zip(*(run.network.weights for run in runs), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.max(np.abs(other)))


def test_every_variant_of_a_kernel_has_a_name_of_its_own():
    """Numba's disk cache hands out one for the other where only options differ.

    And functions of one name that it loads share their constants, which ends in "'descr' is NULL" now and then.
    """
    variants = [compiled(length) for compiled in (compile_descent, compile_dense) for length in (8, 16)]
    assert len({function.py_func.__qualname__ for function in variants}) == len(variants)


def test_the_compiled_chunk_is_found_again_on_disk():
    """Its closure holds numbers only: a compiled function in it would be another one in every process."""
    closure = compile_descent(4).py_func.__closure__
    assert [cell.cell_contents for cell in closure] == [4]


def test_no_chunk_where_it_does_not_pay(rng):
    """Depth 1, rows too long for the registers, and work enough for threads go through the loop."""
    m = PARALLEL_WORK // 8  # rows of 5 numbers are padded to 8
    rows, cols = np.divmod(rng.integers(0, 400, m), 20)
    observations = dmf.SampledEntries(rows, cols, rng.standard_normal(m), (20, 20))
    assert observations.descent((5,)) is not None
    assert observations.descent(()) is None
    assert observations.descent((2, 9)) is None
    assert dmf.SampledEntries([0], [0], [1.0], (20, 20)).descent((65,)) is None


def test_gradients_of_a_chunk_are_those_of_its_weights(rng):
    """What a chunk hands on is consistent: its loss and gradients belong to its weights (to 100 roundings)."""
    rows, cols = np.nonzero(rng.random((9, 8)) < 0.6)
    observations = dmf.SampledEntries(rows, cols, rng.standard_normal(rows.size), (9, 8))
    solver = GradientDescent(0.01, reduction="sum")
    state = solver.init(observations, dmf.DeepLinearNetwork(random_weights(rng, (8, 4, 3, 9), scale=0.5)))
    (weights, gradients, loss), done = chunk(observations, solver, state, 50)
    assert done == 50
    expected_loss, expected = loss_and_gradients(weights, observations.evaluate)
    eps = 100 * np.finfo(float).eps
    size_of_loss, sizes = absolute_loss_and_gradients(dense_form(observations), observations.values, weights)
    assert abs(loss - expected_loss) <= eps * size_of_loss
    for one, other, size in zip(gradients, expected, sizes, strict=True):
        np.testing.assert_array_less(np.abs(one - other), eps * size)
