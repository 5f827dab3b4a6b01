"""Entries on workers that are processes of their own, some of which are killed."""

import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest

import dmf
from dmf.errors import BackendError
from dmf.solvers.hierarchical import HierarchicalBayes

distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install 'dmf[dask]'")

import dask  # noqa: E402

from dmf.observations import DistributedEntries, workers  # noqa: E402
from dmf.observations.stored import remove_files  # noqa: E402


@pytest.fixture
def client():
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def ratings():
    """Entries of which few rows and columns hold most."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(2_000)[(2_000 * rng.random(60_000) ** 3).astype(int)]
    cols = (800 * rng.random(60_000) ** 2).astype(int)
    left, right = rng.standard_normal((2_000, 3)), rng.standard_normal((3, 800))
    values = 3 + np.einsum("kr,rk->k", left[rows], right[:, cols]) + 0.5 * rng.standard_normal(rows.size)
    return dmf.SampledEntries(rows, cols, values, (2_000, 800))


@pytest.mark.parametrize("highest", [np.inf, 5.0])
@pytest.mark.parametrize("options", [{"rank": 4, "offsets": True, "holdout": 0.1}, {"rank": 4, "offsets": False}])
def test_completion_is_that_of_one_process(client, options, highest):
    """Be the values clipped or not."""
    seen = ratings()
    here = dmf.SampledEntries(seen.rows, seen.cols, np.minimum(seen.entries, highest), seen.shape)
    there = DistributedEntries.from_entries(here, client)
    one, other = (dmf.complete(data, **options, iterations=3) for data in (here, there))
    assert one.outcome == other.outcome and one.found.rank == other.found.rank
    assert one.found.clipped == other.found.clipped == ((-np.inf, 5.0) if options["offsets"] and highest == 5 else None)
    np.testing.assert_allclose(other.product(), one.product(), rtol=0, atol=1e-10 * np.abs(one.product()).max())
    if options.get("holdout"):
        assert other.heldout.rmse == pytest.approx(one.heldout.rmse, rel=1e-10)


def test_three_lost_workers_in_ten_sweeps_change_no_bit(client):
    here, solver, models = ratings(), HierarchicalBayes(4), []
    for kills in ((), (2, 5, 8)):
        there = DistributedEntries.from_entries(here, client)
        data = solver.prepare(there, None)
        state = solver.init(data, None)
        for sweep in range(10):
            if sweep in kills:
                pids = client.run(os.getpid)
                os.kill(pids[sorted(pids)[0]], signal.SIGKILL)
            state = solver.advance(data, state, 1)[0]
        models.append(solver.model(data, state).factors())
    for mine, other in zip(*models, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("width", [18, 66])
def test_the_bytes_of_a_sweep_are_those_of_the_model(client, width):
    here = ratings()
    there = DistributedEntries.from_entries(here, client)
    factors = [np.random.default_rng(0).standard_normal((size, width)) for size in here.shape]
    there.ridge(0, factors[1], np.ones(width))
    before = there.traffic
    for side in (0, 1):
        other = factors[1 - side]
        there.ridge(side, other, np.ones(width), other**2, means=factors[side])
    numbers = 8 * width * sum(here.shape)
    for way, expected in (("sent", 3 * numbers), ("received", 2 * numbers)):
        assert expected <= there.traffic[way] - before[way] <= 1.2 * expected


def test_a_lost_worker_reads_its_files_again(client, tmp_path):
    pandas = pytest.importorskip("pandas")
    here = ratings()
    frame = pandas.DataFrame({"user": here.rows, "item": here.cols, "stars": here.entries})
    frame.to_parquet(tmp_path / "all.parquet", row_group_size=10_000)
    there = DistributedEntries.from_parquet(tmp_path, "user", "item", "stars", client)
    factor = np.random.default_rng(0).standard_normal((there.shape[1], 3))
    before = there.ridge(0, factor, np.ones(3), factor**2)
    pids = client.run(os.getpid)
    os.kill(pids[sorted(pids)[0]], signal.SIGKILL)
    for mine, other in zip(there.ridge(0, factor, np.ones(3), factor**2), before, strict=True):
        np.testing.assert_array_equal(mine, other)
    assert all(client.run(kept_files).values())
    client.run(remove_files)
    assert not any(client.run(kept_files).values())


def kept_files(dask_worker):
    return [path.name for path in Path(dask_worker.local_directory).iterdir() if path.is_file()]


def dies(begin, end, rows, cols, shared):
    os.kill(os.getpid(), signal.SIGKILL)


def without_workers(kind):
    """End well if a task that kills its worker, or workers that are gone for good, make an error."""
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    workers._PATIENCE = 5.0
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster) as client,
    ):
        there = DistributedEntries.from_entries(ratings(), client)
        assert there.n_measurements == 60_000
        if kind == "gone":
            cluster.scale(0)
        with pytest.raises(BackendError, match=r"workers of the cluster were lost|the cluster has had no worker"):
            there.for_rows(dies, None) if kind == "killed" else there.counts(0)


@pytest.mark.parametrize("kind", ["killed", "gone"])
def test_workers_that_do_not_come_back_are_an_error(kind):
    ended = multiprocessing.get_context("spawn").Process(target=without_workers, args=(kind,))
    ended.start()
    ended.join(180)
    hangs = ended.is_alive()
    ended.kill()
    assert not hangs and ended.exitcode == 0


def completed(address, path, resume, stop=None):
    """Complete on a cluster that runs, with a checkpoint; the process kills itself in an iteration, where one is given."""

    def callback(snapshot):
        if snapshot.iteration == stop:
            os.kill(os.getpid(), signal.SIGKILL)

    with distributed.Client(address, set_as_default=False) as client:
        there = DistributedEntries.from_entries(ratings(), client)
        kept = dmf.Checkpoint(path, resume=resume, seconds=0)
        return dmf.complete(there, 4, offsets=True, iterations=12, checkpoint=kept, callback=callback).factors()


def test_a_killed_client_goes_on_from_its_checkpoint(client, tmp_path):
    address, path = client.scheduler.address, tmp_path / "fit.npz"
    killed = multiprocessing.get_context("spawn").Process(target=completed, args=(address, path, False, 7))
    killed.start()
    killed.join(120)
    assert killed.exitcode == -signal.SIGKILL and path.exists()
    again = completed(address, path, True)
    for mine, other in zip(again, completed(address, tmp_path / "whole.npz", False), strict=True):
        np.testing.assert_array_equal(mine, other)


def test_the_command(dmf_program, tmp_path):
    pandas = pytest.importorskip("pandas")
    here, model = ratings(), tmp_path / "model.npz"
    frame = pandas.DataFrame({"user": here.rows, "item": here.cols, "stars": here.entries})
    (tmp_path / "in").mkdir()
    frame.to_parquet(tmp_path / "in" / "all.parquet", row_group_size=10_000)
    options = "--columns", "user,item,stars", "--rank", "4", "--iterations", "2", "-o", model
    told = dmf_program("complete", tmp_path / "in", "--cluster", "local:2", *options)
    assert "MB sent to workers" in told.stdout
    loaded = dmf.load(model)
    assert loaded.shape == (frame["user"].nunique(), frame["item"].nunique()) and loaded.heldout is not None
    to = "--cluster", "local:2", "-o"
    dmf_program("predict", model, tmp_path / "in", *to, tmp_path / "out", "--interval", "0.9")
    found = pandas.read_parquet(tmp_path / "out")
    values, _ = loaded.predict_named(found["row"].tolist(), found["column"].tolist())
    np.testing.assert_array_equal(found["prediction"], values)
    dmf_program("predict", model, "--top", "3", "--seen", tmp_path / "in", *to, tmp_path / "best")
    best = pandas.read_parquet(tmp_path / "best")
    assert best.groupby("row").size().max() == 3 and best["row"].nunique() == loaded.shape[0]
    both = best.merge(frame, left_on=["row", "column"], right_on=[frame["user"].astype(str), frame["item"].astype(str)])
    assert both.empty
