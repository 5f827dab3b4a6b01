"""Steps of linearised least squares on sampled entries: the eliminated form against dense algebra and the general form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dmf
from dmf.arrays.threads import thread_count
from dmf.kernels import tangent
from dmf.observations.base import Observations

from helpers import DTYPES, seeds

dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


def entries(rng, shape, count, dtype=np.float64):
    """Entries at random positions, repeated ones, and rows and columns without any, among them."""
    rows, cols = (rng.integers(0, d, count) for d in shape)
    return dmf.SampledEntries(rows, cols, rng.standard_normal(count).astype(dtype), shape)


def orthonormal(rng, shape, width, dtype=np.float64):
    u, v = (np.linalg.qr(rng.standard_normal((d, width)))[0].astype(dtype) for d in shape)
    return u, np.ascontiguousarray(v.T)


def design_of(observations, u, vt):
    """Dense matrix (m, (d1 + d2) r) that takes a step to its entries."""
    (d1, rank), m = u.shape, observations.n_measurements
    design = np.zeros((m, sum(observations.shape), rank))
    design[np.arange(m), observations.rows] += vt.T[observations.cols]
    design[np.arange(m), d1 + observations.cols] += u[observations.rows]
    return design.reshape(m, -1)


def matrix_of(step, u, vt):
    d1 = u.shape[0]
    return step[:d1] @ vt + u @ step[d1:].T


@settings(max_examples=30)
@given(
    shape=st.tuples(st.integers(4, 9), st.integers(4, 9)), count=st.integers(1, 60), seed=seeds, rank=st.integers(1, 4)
)
def test_steps_fit_the_entries_as_least_squares_does(shape, count, seed, rank):
    """Also where rows have fewer samples than the rank, or none. Normal equations lose half the digits of what they fit.

    So the sum of squares is compared, in which an error of the fit counts squared.
    """
    rng = np.random.default_rng(seed)
    observations, (u, vt) = entries(rng, shape, count), orthonormal(rng, shape, rank)
    design, wanted = design_of(observations, u, vt), rng.standard_normal(count)
    target = (design.T @ wanted).reshape(-1, rank)
    step = observations.tangent_step(u, vt, target, 0.0, 1e-13, 500)
    best = np.linalg.lstsq(design, wanted, rcond=1e-9)[0]
    reached, least = (np.sum((design @ x.ravel() - wanted) ** 2) for x in (step, best))
    assert reached - least <= 1e-7 * np.sum(wanted**2)
    for i in set(range(shape[0])) - set(observations.rows.tolist()):
        assert not step[i].any()


@dtypes
@pytest.mark.parametrize("rank", [1, 5, 9])
def test_a_determined_system_has_the_step_of_dense_algebra(rank, dtype, rng):
    shape = (60, 50)
    observations, (u, vt) = entries(rng, shape, 2_600, dtype), orthonormal(rng, shape, rank, dtype)
    target = rng.standard_normal((110, rank)).astype(dtype)
    step = observations.tangent_step(u, vt, target, 0.5, 10 * np.finfo(dtype).eps, 500)
    assert step.dtype == dtype
    design = design_of(observations, u.astype(float), vt.astype(float))
    expected = np.linalg.solve(design.T @ design + 0.5 * np.eye(design.shape[1]), target.ravel().astype(float))
    limit = 1e3 * np.finfo(dtype).eps * np.linalg.norm(expected)
    np.testing.assert_allclose(step.ravel(), expected, rtol=0, atol=limit)


def test_where_blocks_are_too_large_passes_take_their_place(monkeypatch, rng):
    """Both ways agree; the blocks are not formed beyond either limit."""
    shape = (40, 30)
    observations, (u, vt) = entries(rng, shape, 900), orthonormal(rng, shape, 3)
    target = observations.tangent_normal(u, vt)(rng.standard_normal((70, 3)))
    compiled = matrix_of(observations.tangent_step(u, vt, target, 0.0, 1e-13, 500), u, vt)
    monkeypatch.setattr("dmf.kernels.cpu.TangentSystem", None)  # calling it would raise
    for limit in ("WIDEST_STEP", "MOST_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(f"dmf.kernels.cpu.{limit}", 0)
            general = matrix_of(observations.tangent_step(u, vt, target, 0.0, 1e-13, 500), u, vt)
        np.testing.assert_allclose(compiled, general, rtol=0, atol=1e-9 * np.max(np.abs(general)))


@dtypes
def test_results_do_not_depend_on_the_number_of_threads(dtype, monkeypatch, rng):
    monkeypatch.setattr("dmf.kernels.chunks.PARALLEL_WORK", 0)
    monkeypatch.setattr("dmf.kernels.chunks._CHUNK_WORK", 1_000)
    shape = (70, 60)
    observations, (u, vt) = entries(rng, shape, 2_000, dtype), orthonormal(rng, shape, 5, dtype)
    target, steps = rng.standard_normal((130, 5)).astype(dtype), []
    for count in (1, thread_count()):
        with dmf.threads(count):
            steps.append(observations.tangent_step(u, vt, target, 0.1, 1e-4, 500))
    np.testing.assert_array_equal(*steps)


def test_elimination_saves_passes(monkeypatch, rng):
    """Near the information limit a system takes less than a quarter of the passes that it takes without elimination."""
    shape, rank, passes = (100, 90), 4, [0]
    observations, (u, vt) = entries(rng, shape, 1_100), orthonormal(rng, shape, rank)
    target = observations.tangent_normal(u, vt)(rng.standard_normal((190, rank)))
    by_columns = tangent.TangentSystem.by_columns

    def counted(*arguments):
        passes[0] += 1
        return by_columns(*arguments)

    monkeypatch.setattr(tangent.TangentSystem, "by_columns", counted)
    observations.tangent_step(u, vt, target, 0.0, 1e-6, 5_000)
    general, calls = observations.tangent_normal(u, vt), [0]

    def one_more(step):
        calls[0] += 1
        return general(step)

    monkeypatch.setattr(dmf.SampledEntries, "tangent_normal", lambda *_: one_more)
    Observations.tangent_step(observations, u, vt, target, 0.0, 1e-6, 5_000)
    assert 4 * passes[0] < calls[0]
