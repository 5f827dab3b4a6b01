"""How long do 100,000 new rows take after a fit, and how well are they predicted?

    python benchmarks/new_rows.py

A 5,000 x 5,000 matrix of rank 20 with entries of root mean square 1 is fitted to 250 entries a row; then rows that were not
there get 50 entries each. Error: relative, over all entries of the new rows; beside it, where there is noise, the error of the
posterior mean that knows the true columns, and the noise level. The peer solves the same ridge regressions, of one row after
another, in NumPy, for the first 2,000 rows. Best of the rounds, kernels compiled.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click
import numba
import numpy as np
from cases import entries, print_table, recovery_error, write_result

import dmf
from dmf.models import LowRank

FITTED, COLUMNS, RANK, PER_ROW, PER_FITTED_ROW = 5_000, 5_000, 20, 50, 250
PEER_ROWS = 2_000


def sampled(
    rows: int, per_row: int, noise: float, v: np.ndarray, seed: int
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Gaussian factor (rows, RANK), and rows, cols, values of `per_row` random entries in each row."""
    generator = np.random.default_rng([seed, rows])
    u = generator.standard_normal((rows, RANK))
    cols = np.argpartition(generator.random((min(rows, 2_000), COLUMNS)), per_row, axis=1)[:, :per_row]
    cols = cols[np.arange(rows) % len(cols)].ravel()  # patterns repeat, which matters to no solver
    index = np.repeat(np.arange(rows), per_row)
    values = entries(u, v, index, cols)
    return u, (index, cols, values + noise * generator.standard_normal(values.size))


def row_by_row(recovery: dmf.Recovery, cols: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The rows (n, RANK) of a ridge regression with unit prior variance, one after another; `cols` and `values` are (n, k)."""
    left, right = recovery.model.halves()
    core = np.linalg.cholesky(left.T @ left / left.shape[0])  # turns the fitted rows into rows of unit second moments
    design = right.T @ core
    noise = recovery.found.noise**2 * np.eye(design.shape[1])
    found = [np.linalg.solve((d := design[c]).T @ d + noise, d.T @ y) for c, y in zip(cols, values, strict=True)]
    return np.stack(found) @ core.T


def best(call: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """Least seconds of a call, and its result."""
    seconds, result = np.inf, None
    for _ in range(rounds):
        begin = time.perf_counter()
        result = call()
        seconds = min(seconds, time.perf_counter() - begin)
    return seconds, result


def measure(noise: float, rows: int, rounds: int) -> dict[str, float]:
    """Times, errors and agreement with the peer at one noise level."""
    v = np.random.default_rng(1).standard_normal((COLUMNS, RANK)) / np.sqrt(RANK)
    _, seen = sampled(FITTED, PER_FITTED_ROW, noise, v, seed=2)
    recovery = dmf.complete(dmf.SampledEntries(*seen, (FITTED, COLUMNS)), RANK, offsets=False)
    u, (index, cols, values) = sampled(rows, PER_ROW, noise, v, seed=3)
    building, observations = best(lambda: dmf.SampledEntries(index, cols, values, (rows, COLUMNS)), rounds)
    seconds, found = best(lambda: dmf.new_rows(recovery, observations), rounds)
    left, right = found.model.halves()
    result = {
        "noise": noise, "fit_rank": recovery.found.rank, "fit_noise": recovery.found.noise,
        "seconds": seconds, "seconds_building_the_observations": building,
        "error": recovery_error(left, right, u, v),
    }  # fmt: skip
    if noise > 0:
        few = min(rows, PEER_ROWS)
        grid = cols.reshape(rows, PER_ROW)[:few], values.reshape(rows, PER_ROW)[:few]
        peer_seconds, peer = best(lambda: row_by_row(recovery, *grid), rounds)
        result["peer_times"] = peer_seconds / few * rows / seconds
        result["off_peer"] = recovery_error(left[:few], right, peer, recovery.model.halves()[1].T)
        true_columns = LowRank.of_factors(np.vstack([np.eye(RANK)] * 2) * np.sqrt(RANK), v.T)
        known = replace(recovery, model=true_columns, found=replace(recovery.found, noise=noise))
        oracle = dmf.new_rows(known, observations).factors()
        result["error_with_the_true_columns"] = recovery_error(*oracle, u, v)
    return result


@click.command()
@click.option("--rows", default=100_000, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--no-save", is_flag=True, help="Write no result.")
def main(rows: int, rounds: int, no_save: bool) -> None:
    """Fold new rows in, with and without noise; write results/new_rows.json."""
    cases = [measure(noise, rows, rounds) for noise in (0.3, 0.0)]
    print(f"{rows:,} new rows of {PER_ROW} entries, rank {RANK}, {numba.get_num_threads()} threads")
    header = ["noise", "seconds", "building s", "error", "true columns", "NumPy rows x", "off NumPy"]
    keys = ("error_with_the_true_columns", "peer_times", "off_peer")
    times = ("seconds", "seconds_building_the_observations", "error")
    print_table(header, [[f"{c['noise']:g}", *(c[k] for k in times), *(c.get(k, "-") for k in keys)] for c in cases])
    if not no_save:
        write_result(
            "new_rows", {"rows": rows, "per_row": PER_ROW, "rank": RANK, "columns": COLUMNS, "fitted_rows": FITTED,
                         "threads": numba.get_num_threads(), "cases": cases},
        )  # fmt: skip


if __name__ == "__main__":
    main()
