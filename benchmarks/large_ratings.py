"""How closely, how fast and in how much memory are large matrices completed?

    python benchmarks/large_ratings.py
    python benchmarks/large_ratings.py --case small --case exact

full: 160,000 x 60,000, 24,000,000 ratings of power-law popularity, rank 16 (target: held-out RMSE 0.626, then 0.61, in under
20 s and 1.2 GB beyond the data); small: 50,000 x 20,000, 2,400,000 of them; exact: 10,000 x 10,000 of rank 10, 999,500 samples
(target: relative error 1e-4 in under 0.7 s with the rank given, 1.5 s without). Each case runs with the rank as a bound and
without; of ratings, the model with offsets is asked for, and predictions are clipped to 0.5..5. Every run is a process of its
own; kernels are compiled by a small problem first. Seconds are those of `dmf.complete`, beside those of building
`dmf.SampledEntries`. Memory: the peak of the resident set from before the entries are built to the end, in MB beyond the
arrays of the data and what Python holds.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import problems
from cases import print_table, write_result

THREADS, LOW, HIGH = 2, 0.5, 5
SIZES: dict[str, dict[str, int]] = {
    "full": {},
    "small": {"n": 2_500_000, "n_users": 50_000, "n_items": 20_000, "n_test": 100_000},
}
RANKS = {"full": 16, "small": 16, "exact": 10}


def generate(case: str, path: Path) -> None:
    """Write a problem to a file."""
    made = problems.large_completion() if case == "exact" else problems.ratings(**SIZES[case])
    np.savez(path, **made)


def peak_mb() -> float:
    """Peak of the resident set of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


def child(case: str, rank: int | None, path: Path) -> dict[str, Any]:
    """Complete one problem in this process."""
    import dmf
    from dmf.backend import set_threads

    set_threads(THREADS)
    offsets = case != "exact"
    with np.load(path) as file:
        first, shape = int(file["n_test"]) if offsets else 0, tuple(map(int, file["shape"]))
        rows, cols, values = (file[key] for key in ("rows", "cols", "values"))  # no copies: they would raise the peak
        truth = {} if offsets else {key: file[key] for key in ("u", "v")}
    _warm_up(values.dtype, rank, offsets)
    before, begin = peak_mb(), time.perf_counter()
    observations = dmf.SampledEntries(rows[first:], cols[first:], values[first:], shape)
    building, begin = time.perf_counter() - begin, time.perf_counter()
    recovery = dmf.complete(observations, rank, offsets=offsets)
    result = {
        "seconds": time.perf_counter() - begin,
        "building_seconds": building,
        "peak_mb_beyond_data": peak_mb() - before,
        "rank": recovery.options["rank"],
        "noise": recovery.options["noise"],
        "iterations": recovery.options["iterations"],
        "sweeps": np.unique(recovery.history["phase"], return_counts=True)[1].tolist(),
    }
    if offsets:
        off = np.clip(recovery.predict(rows[:first], cols[:first]), LOW, HIGH) - values[:first]
        return result | {"error": float(np.sqrt(np.mean(off.astype(float) ** 2)))}
    left, right = recovery.factors()
    return result | {"error": problems.relative_error(left, right.T, truth)}


def _warm_up(dtype: Any, rank: int | None, offsets: bool) -> None:
    """Compile the kernels, for a problem of the same kind and width."""
    import dmf

    case = problems.low_rank_samples(1, 300, 300, RANKS["exact"], 4, snr_db=20 if offsets else None)
    entries = dmf.SampledEntries(case["rows"], case["cols"], case["values"].astype(dtype), case["shape"])
    dmf.complete(entries, rank, offsets=offsets)


@click.command()
@click.option(
    "--case", "cases", type=click.Choice([*RANKS]), multiple=True, default=["full", "exact"], show_default=True
)
@click.option("--no-save", is_flag=True, help="Write no result.")
@click.option(
    "--child", "task", nargs=3, hidden=True, help="Case, rank or 0, and file: what a process of its own does."
)
def main(cases: tuple[str, ...], no_save: bool, task: tuple[str, str, str] | None) -> None:
    """Complete every problem with and without its rank; write results/large_ratings.json."""
    if task is not None:
        name, rank, path = task
        return print(json.dumps(child(name, int(rank) or None, Path(path))))
    results: dict[str, dict[str, Any]] = {}
    for name in cases:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "case.npz")
            generate(name, path)
            for rank in (RANKS[name], 0):
                command = [sys.executable, __file__, "--child", name, str(rank), str(path)]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                results[f"{name}, " + (f"rank {rank} given" if rank else "no rank given")] = json.loads(output)
    keys = ("error", "seconds", "building_seconds", "peak_mb_beyond_data", "rank", "iterations")
    print_table(
        ["case", "error", "s", "building s", "MB beyond data", "rank", "sweeps"],
        [[name, f"{run['error']:.4g}", *(run[key] for key in keys[1:])] for name, run in results.items()],
    )
    if not no_save:
        write_result("large_ratings", {"threads": THREADS, "runs": results})
    return None


if __name__ == "__main__":
    main()
