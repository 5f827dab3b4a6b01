"""Threads: pools, forks, limits, and computing where no cache can be kept."""

import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

import dmf
from dmf.arrays.threads import share_out, thread_count


def problem():
    """Work enough for the pool: 60,000 entries of 300 x 250."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((300, 3)) @ rng.standard_normal((3, 250)) + 0.1 * rng.standard_normal((300, 250))
    return np.where(rng.random(table.shape) < 0.8, table, np.nan)


def solution(_=None):
    return dmf.complete(problem(), rank=4, offsets=False, iterations=5).network.product()


def blas():
    return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]


@pytest.fixture(scope="module")
def expected():
    return solution()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_process_computes_after_a_call(expected):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for found in pool.map_async(solution, range(2)).get(120):
            np.testing.assert_array_equal(found, expected)


def test_joblib_workers_compute(expected):
    joblib = pytest.importorskip("joblib")
    for found in joblib.Parallel(n_jobs=2, backend="threading")(joblib.delayed(solution)() for _ in range(2)):
        np.testing.assert_array_equal(found, expected)


def test_threads_of_the_user_compute_side_by_side(expected):
    before, environment = blas(), dict(os.environ)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(solution, range(8)):
            np.testing.assert_array_equal(found, expected)
    assert blas() == before
    assert dict(os.environ) == environment


def test_limits_hold_in_their_block_and_thread_alone():
    before, all_threads = blas(), thread_count()
    with dmf.threads(1):
        assert thread_count() == 1
        assert set(blas()) <= {1}
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(thread_count).result() == all_threads
    assert thread_count() == all_threads
    assert blas() == before


@pytest.mark.parametrize("count", [0, -1, 10_000, 1.5, True, "2"])
def test_impossible_limits_are_refused(count):
    with pytest.raises(dmf.errors.ArgumentError, match="threads=") as caught, dmf.threads(count):
        pass
    assert caught.value.value is count


def test_every_chunk_is_done_once_and_errors_reach_the_caller():
    done, lock = [], threading.Lock()

    def work(k):
        with lock:
            done.append(k)
        if k == 11:
            raise ValueError("11")

    share_out(work, 11)
    assert sorted(done) == list(range(11))
    with pytest.raises(ValueError, match="11"):
        share_out(work, 40)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX")
def test_kernels_work_where_no_cache_can_be_kept(tmp_path):
    """As in a container with a random user: neither the package's folder nor the user's can be written to."""
    code = (
        "import numpy as np, dmf; from numba.core import caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "entries = dmf.SampledEntries([0], [0], [3.0], (1, 1))\n"
        "assert entries.predict(np.ones((1, 1)), np.ones((1, 1))).tolist() == [1]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
