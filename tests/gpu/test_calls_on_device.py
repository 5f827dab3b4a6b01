"""Whole calls on a device: as on the CPU, twice the same, few reads by the host, and a process that survives errors."""

import json

import numpy as np
import pytest
from low_rank_cases import low_rank_case

import dmf
from dmf.arrays.backend import cupy_module, to_host
from dmf.completion import placement
from dmf.experiments.problems import paper_target, sample_entries
from dmf.solvers import Outcome, loop

from cli.conftest import dmf_program, ratings  # noqa: F401
from helpers import DTYPES, NO_CUDA, assert_same_weights, count_host_reads, weights_of

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(NO_CUDA), reason=NO_CUDA)]
dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


class OneStepAtATime(dmf.SampledEntries):
    """Sampled entries whose descent goes through the loop of the solver."""

    def descent(self, widths):
        return None


def paper_problem(dtype=np.float64):
    """Entries of the paper's 100 x 100 problem on the host, and its compressed start."""
    seen, _ = sample_entries(paper_target(100, rank=5, seed=0), 0.3, seed=0)
    entries = dmf.SampledEntries(seen.rows, seen.cols, seen.values.astype(dtype), seen.shape)
    return entries, dmf.spectral_network(entries, 10, depth=3, scale=1e-2)


def on_device(network):
    return dmf.DeepLinearNetwork(cupy_module().asarray(w) for w in network.weights)


def assert_same_model(one, other):
    """Bit for bit; layers are made of these arrays where they are asked for, and round as their library does."""
    for name in ("u", "s", "vt"):
        np.testing.assert_array_equal(*(to_host(getattr(recovery.model, name)) for recovery in (one, other)))


OPTIONS = {"step_size": 10, "outer_scale": 5, "iterations": 200, "record_every": 50}


def test_recorded_descent_follows_the_cpu():
    """The losses of 200 steps agree to 1e-8, as with the reference trajectories."""
    here, network = paper_problem()
    runs = [dmf.gradient_descent(here, network, **OPTIONS)]
    runs.append(dmf.gradient_descent(here.to_device("cuda"), on_device(network), **OPTIONS))
    np.testing.assert_allclose(runs[1].history.loss, runs[0].history.loss, rtol=1e-8)
    for one, other in zip(*map(weights_of, runs), strict=True):
        assert np.linalg.norm(one - other) <= 1e-8 * np.linalg.norm(one)


@dtypes
def test_recorded_descent_follows_the_loop_on_the_device(dtype):
    here, network = paper_problem(dtype)
    there = here.to_device("cuda")
    loop = OneStepAtATime(there.rows, there.cols, there.values, there.shape)
    runs = [dmf.gradient_descent(data, on_device(network), **OPTIONS) for data in (there, loop)]
    np.testing.assert_allclose(runs[0].history.loss, runs[1].history.loss, rtol=200 * 100 * np.finfo(dtype).eps)


def test_the_host_reads_once_for_each_record(monkeypatch):
    """And a constant number of times besides; the loop reads every loss, which shows that reads are counted."""
    monkeypatch.setattr(loop, "_CHUNK_SECONDS", 1e9)
    reads = count_host_reads(monkeypatch, cupy_module().ndarray)
    here, network = paper_problem()
    there, counts = here.to_device("cuda"), []
    for data in (there, OneStepAtATime(there.rows, there.cols, there.values, there.shape)):
        reads.clear()
        run = dmf.gradient_descent(data, on_device(network), **OPTIONS | {"iterations": 500})
        counts.append(len(reads))
    assert len(run.history.loss) == 11
    assert counts[0] <= 11 + 20  # what a network and a first call check
    assert counts[1] >= 500


def test_completion_is_deterministic_and_as_on_the_cpu():
    """Exact entries are completed to rounding; twice with the same bits."""
    case = low_rank_case(0, (120, 100), rank=4)
    there = case.observations.to_device("cuda")
    first, second = (dmf.complete(there) for _ in range(2))
    assert_same_weights(first, second)
    assert first.found.exact
    assert case.error(first.to_device("cpu")) < 1e-10


def test_few_entries_are_completed_on_the_host(monkeypatch):
    """The same bits as there, in arrays of the device; so are those that a callback sees."""
    monkeypatch.setattr(placement, "HOST_ENTRIES", 20_000)
    here, kinds = low_rank_case(0, (40, 30), rank=2).observations, set()
    there = here.to_device("cuda")
    recovery = dmf.complete(there, callback=lambda at: kinds.update(map(type, at.network.weights)))
    assert kinds == {cupy_module().ndarray}
    assert recovery.observations is there
    assert_same_model(recovery, dmf.complete(here))


@pytest.mark.parametrize("offsets", [False, True])
def test_noisy_ratings_as_on_the_cpu(offsets, rng):
    """Predictions of two estimates of the same model, which stop at slightly different points."""
    table = 3 + rng.standard_normal((300, 1)) + rng.standard_normal(200)
    table += rng.standard_normal((300, 3)) @ rng.standard_normal((3, 200))
    rows, cols = np.nonzero(rng.random(table.shape) < 0.2)
    here = dmf.SampledEntries(rows, cols, table[rows, cols] + 0.5 * rng.standard_normal(rows.size), table.shape)
    kept, held = here.split(0.1)
    errors = []
    for data in (kept, kept.to_device("cuda")):
        recovery = dmf.complete(data, offsets=offsets).to_device("cpu")
        errors.append(np.sqrt(np.mean((recovery.predict(held.rows, held.cols) - held.values) ** 2)))
    assert errors[1] == pytest.approx(errors[0], rel=1e-2)


def test_models_go_to_files_and_back(tmp_path):
    recovery = dmf.complete(low_rank_case(0, (40, 30), rank=2).observations.to_device("cuda"))
    recovery.save(tmp_path / "model.npz")
    for device, kind in (("cpu", np.ndarray), ("cuda", cupy_module().ndarray)):
        again = dmf.load(tmp_path / "model.npz", device=device)
        assert all(isinstance(w, kind) for w in again.network.weights)
        assert_same_model(recovery, again)


def test_what_does_not_fit_is_refused_before_it_begins():
    """Factors that take 275 GB: an error with the number, and the next call works."""
    cupy, size = cupy_module(), 2**25
    huge = dmf.SampledEntries(*(cupy.asarray(np.arange(3)) for _ in range(2)), cupy.ones(3), (size, size))
    factors = (cupy.broadcast_to(cupy.ones((1, 1)), shape) for shape in ((size, 256), (256, size)))
    with pytest.raises(dmf.errors.ArgumentError, match=r"takes .* MB of device memory"):
        huge.evaluate(*factors)
    assert dmf.complete(low_rank_case(0, (40, 30), rank=2).observations.to_device("cuda")).found.exact


def test_running_out_of_memory_leaves_a_usable_process():
    """CuPy's own error, which is a MemoryError; the same objects work once there is memory again."""
    pool = cupy_module().cuda.MemoryPool()
    pool.set_limit(size=512)
    there = low_rank_case(0, (400, 300), rank=2).observations.to_device("cuda")
    network = dmf.spectral_network(there, 10)
    expected = there.evaluate(*network.factors())[0].get()
    with cupy_module().cuda.using_allocator(pool.malloc), pytest.raises(MemoryError):
        there.evaluate(*network.factors())
    assert there.evaluate(*network.factors())[0].get() == expected


def test_an_interrupted_run_leaves_a_usable_process():
    here, network = paper_problem()
    there = here.to_device("cuda")

    def interrupt(snapshot):
        if snapshot.iteration == 100:
            raise KeyboardInterrupt

    run = dmf.gradient_descent(there, on_device(network), **OPTIONS, callback=interrupt)
    assert run.outcome is Outcome.INTERRUPTED
    whole = dmf.gradient_descent(there, on_device(network), **OPTIONS)
    assert run.history.loss[-1] == whole.history.loss[2]


def test_the_last_device_of_several():
    """In its context every call computes there; the command line makes it current by itself."""
    cupy = cupy_module()
    last = cupy.cuda.runtime.getDeviceCount() - 1
    if last == 0:
        pytest.skip("one device only")
    there = low_rank_case(0, (40, 30), rank=2).observations.to_device(f"cuda:{last}")
    with cupy.cuda.Device(last):
        recovery = dmf.complete(there)
    assert recovery.found.exact
    assert {w.device.id for w in recovery.network.weights} == {last}


def test_the_program_computes_on_a_device(dmf_program, ratings):  # noqa: F811
    errors = []
    for device in ("cpu", "cuda"):
        done = dmf_program("complete", ratings, "--device", device, "--json", "-o", f"{device}.npz")
        errors.append(json.loads(done.stdout)["heldout"]["rmse"])
    assert errors[1] == pytest.approx(errors[0], rel=1e-2)


def test_estimators_fit_on_a_device(rng):
    """Arrays go in and come out as NumPy's."""
    estimators = pytest.importorskip("dmf.estimators", exc_type=ImportError)
    table = rng.standard_normal((60, 2)) @ rng.standard_normal((2, 20))
    table[rng.random(table.shape) < 0.3] = np.nan
    filled = [estimators.DeepMatrixCompletion(device=device).fit_transform(table) for device in ("cpu", "cuda")]
    assert isinstance(filled[1], np.ndarray)
    np.testing.assert_allclose(*filled, atol=1e-6)


def test_sparse_matrices_of_cupy(rng):
    sparse = pytest.importorskip("cupyx.scipy.sparse")
    case = low_rank_case(0, (40, 30), rank=2)
    arrays = (cupy_module().asarray(a) for a in (case.values, case.rows, case.cols))
    values, rows, cols = arrays
    recovery = dmf.complete(sparse.coo_matrix((values, (rows, cols)), shape=case.matrix.shape).tocsr())
    assert case.error(recovery.to_device("cpu")) < 1e-10
