"""How closely, how fast and in how much memory are large matrices completed?

    python benchmarks/large_ratings.py
    python benchmarks/large_ratings.py --case small --case exact

full: 160,000 x 60,000, 24,000,000 ratings of power-law popularity, rank 16 (target: held-out RMSE 0.614 in at most
25 s and 1.6 GB beyond the data); small: 50,000 x 20,000, 2,400,000 of them; exact: 10,000 x 10,000 of rank 10, 999,500 samples
(target: relative error 1e-4 in under 0.7 s with the rank given, 1.5 s without). Each case runs with the rank as a bound and
without; of ratings, the model with offsets is asked for, and predictions are clipped to 0.5..5; `limit` says about how far an
estimator could go. Every run is a process of its own; kernels are compiled by another problem first. Seconds are those of
`dmf.complete`, beside those of building `dmf.SampledEntries`; dmf goes on to machine precision, so of exact also those to 1e-4.
Memory: the peak of the resident set from before the entries are built to the end, in MB beyond the arrays of the data and what
Python holds.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np
import problems
from cases import print_table, seconds_to, write_result
from scipy.stats import norm

THREADS, LOW, HIGH, MEAN, NOISE = 2, 0.5, 5, 3.5, 0.6
ACCURATE = 1e-4
SIZES: dict[str, dict[str, int]] = {
    "full": {},
    "small": {"n": 2_500_000, "n_users": 50_000, "n_items": 20_000, "n_test": 100_000},
}
RANKS = {"full": 16, "small": 16, "exact": 10}


def generate(case: str, path: Path) -> dict[str, float]:
    """Write a problem to a file; of ratings, also the limit."""
    made = problems.large_completion() if case == "exact" else problems.ratings(**SIZES[case])
    np.savez(path, **made)
    return {} if case == "exact" else limit(made)


def limit(made: problems.Case) -> dict[str, float]:
    """Held-out error of those who know nearly everything of the ratings: about what estimators of both factors cannot reach.

    They know mean, noise level, priors and one of the factors exactly, and see the ratings before they were clipped; the
    other factor is its posterior mean, and the predictions are expected clipped ratings at it. An estimator of both factors
    loses at least about as much as the worse of the two, and to first order the sum of both losses, which is no bound.
    """
    import dmf

    first, (rows, cols), factors = made["n_test"], (made["rows"], made["cols"]), (made["u"], made["v"])
    noise = np.random.default_rng(1).standard_normal(rows.size - first, np.float32)
    signal = _sampled(*factors, rows, cols)
    seen = dmf.SampledEntries(rows[first:], cols[first:], signal[first:] + NOISE * noise, made["shape"])
    truth = made["values"][:first].astype(np.float64)
    least = _mean_square(_expected(signal[:first]) - truth)
    squares = []
    for side in (0, 1):
        fitted = list(factors)
        fitted[side] = seen.ridge(side, factors[1 - side], (NOISE**2 / made["spectrum"]).astype(np.float32)).rows
        squares.append(_mean_square(_expected(_sampled(*fitted, rows[:first], cols[:first])) - truth))
    return {
        "noise-free": made["oracle"],
        "item factors known": squares[0] ** 0.5,
        "user factors known": squares[1] ** 0.5,
        "losses added": (sum(squares) - least) ** 0.5,
    }


def _sampled(u: np.ndarray, v: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    parts = np.array_split(np.arange(rows.size), -(-rows.size // 1_000_000))
    return np.concatenate([np.einsum("ij,ij->i", u[rows[part]], v[cols[part]]) for part in parts])


def _expected(signal: np.ndarray) -> np.ndarray:
    """Mean of ``MEAN + signal`` with noise, clipped."""
    mean = MEAN + signal.astype(np.float64)
    low, high = (LOW - mean) / NOISE, (HIGH - mean) / NOISE
    inside = norm.cdf(high) - norm.cdf(low)
    return LOW * norm.cdf(low) + HIGH * norm.sf(high) + mean * inside + NOISE * (norm.pdf(low) - norm.pdf(high))


def _mean_square(x: np.ndarray) -> float:
    return float(np.mean(x**2))


def peak_mb() -> float:
    """Peak of the resident set of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


def child(case: str, rank: int | None, path: Path) -> dict[str, Any]:
    """Complete one problem in this process."""
    import dmf

    with dmf.threads(THREADS):
        return completed(case, rank, path)


def completed(case: str, rank: int | None, path: Path) -> dict[str, Any]:
    """Complete one problem; see `child`."""
    import dmf

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
        "rank": recovery.found.rank,
        "noise": recovery.found.noise,
        "iterations": recovery.nit,
        "sweeps": np.unique(recovery.history["run"], return_counts=True)[1].tolist(),
    }
    if offsets:
        off = np.clip(recovery.predict(rows[:first], cols[:first]), LOW, HIGH) - values[:first]
        return result | {"error": float(np.sqrt(np.mean(off.astype(float) ** 2)))}
    left, right = recovery.factors()

    fresh = dmf.SampledEntries(rows, cols, values, shape)  # which keeps nothing of the first run

    def again(callback):
        return dmf.complete(fresh, rank, offsets=offsets, callback=callback)

    reached = seconds_to(again, lambda left, right: problems.relative_error(left, right.T, truth), (ACCURATE,))[0]
    return result | {"error": problems.relative_error(left, right.T, truth), f"seconds_to_{ACCURATE:.0e}": reached}


def _warm_up(dtype: Any, rank: int | None, offsets: bool) -> None:
    """Compile the kernels, for a problem of the same kind and width, and so large that threads share it."""
    import dmf

    case = problems.low_rank_samples(1, 2_000, 2_000, RANKS["exact"], 4, snr_db=20 if offsets else None)
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
    limits: dict[str, dict[str, float]] = {}
    for name in cases:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "case.npz")
            with ProcessPoolExecutor(1) as apart:  # a process begins with the peak of memory of the one that starts it
                if limit_of := apart.submit(generate, name, path).result():
                    limits[name] = limit_of
            for rank in (RANKS[name], 0):
                command = [sys.executable, __file__, "--child", name, str(rank), str(path)]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                results[f"{name}, " + (f"rank {rank} given" if rank else "no rank given")] = json.loads(output)
    keys = (f"seconds_to_{ACCURATE:.0e}", "seconds", "building_seconds", "peak_mb_beyond_data", "rank", "iterations")
    print_table(
        ["case", "error", f"s to {ACCURATE:.0e}", "s", "building s", "MB beyond data", "rank", "sweeps"],
        [[name, f"{run['error']:.4g}", *(run.get(key, "-") for key in keys)] for name, run in results.items()],
    )
    for name, errors in limits.items():
        print(f"{name}, limits: " + ", ".join(f"{key} {error:.4f}" for key, error in errors.items()))
    if not no_save:
        write_result("large_ratings", {"threads": THREADS, "runs": results, "limits": limits})
    return None


if __name__ == "__main__":
    main()
