"""How often, how closely and how fast does dmf recover a matrix, near the limits of what can be known?

    python benchmarks/recovery.py --trials 20

Masks are drawn again until every row and column holds at least `rank` samples. Exact: relative error below the level given.
Noise: error over the root of the expected squared error of least squares that knows the true tangent space. Times are of
`dmf.complete` or `dmf.sense` alone, kernels compiled, one thread.
"""

from __future__ import annotations

import time
from typing import Any

import click
import numpy as np
import problems
from cases import print_table, write_result

import dmf

ENTRIES: dict[str, tuple[dict[str, Any], int | None, float]] = {
    "oversampling 1.5, rank given": ({"oversampling": 1.5}, 5, 1e-4),
    "oversampling 1.5, bound 10": ({"oversampling": 1.5}, 10, 1e-4),
    "oversampling 1.5, rank not given": ({"oversampling": 1.5}, None, 1e-4),
    "oversampling 1.5, condition 100, rank given": ({"oversampling": 1.5, "condition": 100}, 5, 1e-4),
    "oversampling 1.5, condition 100, bound 10": ({"oversampling": 1.5, "condition": 100}, 10, 1e-4),
    "oversampling 1.2, bound 10": ({"oversampling": 1.2}, 10, 1e-4),
    "oversampling 1.2, rank given": ({"oversampling": 1.2}, 5, 1e-4),
    "oversampling 2, condition 1e5, rank given": ({"oversampling": 2, "condition": 1e5}, 5, 1e-8),
    "oversampling 2, condition 1e5, bound 10": ({"oversampling": 2, "condition": 1e5}, 10, 1e-8),
    "1000 x 1000, oversampling 1.5, condition 10, rank given": (
        {"d1": 1000, "d2": 1000, "oversampling": 1.5, "condition": 10}, 5, 1e-4,
    ),
    "1000 x 1000, oversampling 1.5, condition 10, bound 10": (
        {"d1": 1000, "d2": 1000, "oversampling": 1.5, "condition": 10}, 10, 1e-4,
    ),
}  # fmt: skip
NOISY: dict[str, dict[str, Any]] = {
    "20 dB, oversampling 3": {"oversampling": 3, "snr_db": 20},
    "20 dB, oversampling 3, condition 100": {"oversampling": 3, "snr_db": 20, "condition": 100},
}
SENSING = {"50 x 60 of rank 3, oversampling 1.5, rank given": 3, "50 x 60 of rank 3, oversampling 1.5, bound 6": 6}


def completed(case: dict[str, Any], bound: int | None) -> tuple[dmf.Recovery, float, float]:
    """Recovery, relative error, seconds."""
    observations = dmf.SampledEntries(case["rows"], case["cols"], case["values"], case["shape"])
    begin = time.perf_counter()
    recovery = dmf.complete(observations, bound)
    seconds = time.perf_counter() - begin
    left, right = recovery.factors()
    return recovery, problems.relative_error(left, right.T, case), seconds


def sensed(seed: int, bound: int) -> tuple[float, float]:
    """Relative error and seconds for Gaussian measurements."""
    generator = np.random.default_rng([seed, 50, 60])
    matrix = generator.standard_normal((50, 3)) @ generator.standard_normal((3, 60))
    operator = generator.standard_normal((round(1.5 * 3 * 107), 50, 60))
    values = operator.reshape(len(operator), -1) @ matrix.ravel()
    begin = time.perf_counter()
    recovery = dmf.sense(operator, values, rank=bound)
    seconds = time.perf_counter() - begin
    return float(np.linalg.norm(recovery.product() - matrix) / np.linalg.norm(matrix)), seconds


def summary(errors: list[float], seconds: list[float], level: float) -> dict[str, float]:
    """Share of errors below the level, and what is usual and worst."""
    return {
        "solved": float(np.mean(np.asarray(errors) < level)), "median_error": float(np.median(errors)),
        "worst_error": float(np.max(errors)), "median_seconds": float(np.median(seconds)),
        "worst_seconds": float(np.max(seconds)),
    }  # fmt: skip


@click.command()
@click.option("--trials", default=20, show_default=True)
@click.option("--only", default="", help="Only cases whose name holds this text.")
@click.option("--no-save", is_flag=True, help="Write no result.")
@dmf.threads(1)
def main(trials: int, only: str, no_save: bool) -> None:
    """Run all cases, print a table, write results/recovery.json."""
    results: dict[str, dict[str, float]] = {}
    completed(problems.low_rank_samples(10**6, oversampling=3), 5)  # compiles
    completed(problems.low_rank_samples(10**6, oversampling=3), 10)
    for name, (options, bound, level) in ENTRIES.items():
        if only in name:
            runs = [completed(problems.low_rank_samples(seed, **options), bound) for seed in range(trials)]
            results[name] = summary([run[1] for run in runs], [run[2] for run in runs], level)
            print(name, results[name], flush=True)
    for name, options in NOISY.items():
        if only in name:
            ratios, seconds, ranks = [], [], []
            for seed in range(trials):
                case = problems.low_rank_samples(seed, **options)
                recovery, error, spent = completed(case, None)
                ratios.append(error / problems.tangent_space_oracle(case, problems.noise_level(20)))
                seconds.append(spent)
                ranks.append(recovery.found.rank)
            results[name] = summary(ratios, seconds, 1.4 if "condition" in options else 1.05)
            results[name]["right_rank"] = float(np.mean(np.asarray(ranks) == 5))
            print(name, results[name], flush=True)
    for name, bound in SENSING.items():
        if only in name:
            sensed(10**6, bound)
            pairs = [sensed(seed, bound) for seed in range(trials)]
            results[name] = summary([error for error, _ in pairs], [s for _, s in pairs], 1e-6)
            print(name, results[name], flush=True)
    rows = [[name, f"{r['solved']:.0%}", *(r[key] for key in list(r)[1:5])] for name, r in results.items()]
    print_table(["case", "solved", "median error", "worst", "median s", "worst s"], rows)
    if not no_save:
        write_result("recovery", {"trials": trials, "threads": 1, "cases": results})


if __name__ == "__main__":
    main()
