"""How often, how closely and how fast does dmf recover a matrix, near the limits of what can be known?

    python benchmarks/recovery.py --trials 20
    python benchmarks/recovery.py --published --trials 50    # beside published figures; draws results/recovery.png

Masks are drawn again until every row and column holds at least `rank` samples. Exact: relative error below the level given.
Noise: error over the root of the expected squared error of least squares that knows the true tangent space. Times are of
`dmf.complete` or `dmf.sense` alone, kernels compiled, one thread.

The published figures are of 1000 x 1000 matrices of rank 5 and condition number 1e5, 50 trials a point, rank given; as there,
an error below 1e-3 counts as recovered (below 1e-6 the published shares are lower). They were read from the result files in
github.com/ckuemmerle/MatrixIRLS (figures 2 and 6 of Kuemmerle, Mayrink Verdun, ICML 2021). Here they begin at oversampling
1.5: that code gives up after 1,000 masks and takes one with too few entries in some row or column, so its lower points are of
another problem. Of uniform masks at 1.3, about one in 2,000 holds 5 entries in every row and column;
masks are drawn until one does.
"""

from __future__ import annotations

import time
from typing import Any

import click
import numpy as np
import problems
from cases import RESULTS, print_table, write_result

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
PUBLISHED_LEVEL = 1e-3  # relative error below which a matrix counts as recovered in the published figures
PUBLISHED = {  # share recovered at each oversampling
    "MatrixIRLS": {1.5: 0.58, 1.6: 0.68, 1.8: 0.92, 2: 1.0},
    "R3MC with rank update": {1.5: 0.64, 1.6: 0.66, 1.8: 0.88, 2: 0.90},
    "LRGeomCG pursuit": {1.5: 0.46, 1.6: 0.66, 1.8: 0.86, 2: 0.94},
    "R2RILS": {1.5: 0.0, 1.6: 0.04, 1.8: 0.26, 2: 0.38},
}
ILL_CONDITIONED: list[tuple[float, int | None]] = [(1.5, 5), (1.6, 5), (1.6, None), (1.8, 5), (2, 5), (1.3, 5)]
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


def beside_published(trials: int) -> None:
    """Trials at each oversampling, a table, results/recovery_published.json and a picture; written anew after each round."""
    found: dict[tuple[float, int | None], list[tuple[float, float]]] = {point: [] for point in ILL_CONDITIONED}
    for seed in range(1000, 1000 + trials):
        for oversampling, bound in ILL_CONDITIONED:
            case = problems.low_rank_samples(seed, 1000, 1000, 5, oversampling, condition=1e5)
            begin = time.process_time()
            _, error, _ = completed(case, bound)
            found[oversampling, bound].append((error, time.process_time() - begin))
        points = [
            {"oversampling": oversampling, "rank_given": bound is not None, "trials": len(runs)}
            | summary([error for error, _ in runs], [spent for _, spent in runs], PUBLISHED_LEVEL)
            for (oversampling, bound), runs in found.items()
        ]
        write_result("recovery_published", {"threads": 1, "seconds": "of the processor", "points": points})
        draw(points)
    print_table(list(points[0]), [[str(value) for value in point.values()] for point in points])


def draw(points: list[dict[str, Any]]) -> None:
    """Share recovered against oversampling, as results/recovery.png."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    given = sorted((p for p in points if p["rank_given"]), key=lambda p: p["oversampling"])
    name = f"dmf.complete, rank given ({given[0]['trials']} trials a point)"
    axes.plot([p["oversampling"] for p in given], [p["solved"] for p in given], "o-", lw=2, label=name)
    others = [point for point in points if not point["rank_given"]]
    axes.plot(
        [p["oversampling"] for p in others], [p["solved"] for p in others], "D", label="dmf.complete, rank not given"
    )
    for name, curve in PUBLISHED.items():
        axes.plot(list(curve), list(curve.values()), "x--", lw=1, label=f"{name}, published (50 trials)")
    axes.set(xlabel="entries seen for each degree of freedom", ylabel="share recovered", ylim=(-0.04, 1.06))
    axes.set_title("1000 x 1000, rank 5, condition number 1e5")
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(RESULTS / "recovery.png", dpi=120)


@click.command()
@click.option("--trials", default=20, show_default=True)
@click.option("--only", default="", help="Only cases whose name holds this text.")
@click.option(
    "--published", is_flag=True, help="Only the cases with published figures, which have results of their own."
)
@click.option("--no-save", is_flag=True, help="Write no result.")
@dmf.threads(1)
def main(trials: int, only: str, published: bool, no_save: bool) -> None:
    """Run all cases, print a table, write results/recovery.json."""
    if published:
        completed(problems.low_rank_samples(10**6, 1000, 1000, 5, 1.5, condition=1e5), 5)  # compiles
        beside_published(trials)
        return
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
