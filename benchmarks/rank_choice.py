"""How often does `dmf.completion.rank_path` choose the true rank of a noisy matrix, and how often does `dmf.complete` find it?

    python benchmarks/rank_choice.py --trials 40

Samples of a matrix with Gaussian factors, entries of root mean square 1, noise at 20 dB; a tenth of the samples is held out.
"""

from __future__ import annotations

import time

import click
import numpy as np
import problems
from cases import print_table, write_result

import dmf

CASES = [(d1, d2, rank, over) for d1, d2 in ((60, 80), (100, 100), (150, 120)) for rank in (2, 3, 5) for over in (3, 6)]


def chosen(seed: int, d1: int, d2: int, rank: int, oversampling: float) -> tuple[int, int, float]:
    """Rank by the path, rank by `complete`, seconds of the path."""
    case = problems.low_rank_samples(seed, d1, d2, rank, oversampling, snr_db=20)
    entries = dmf.SampledEntries(case["rows"], case["cols"], case["values"], case["shape"])
    begin = time.perf_counter()
    path = dmf.completion.rank_path(entries, seed=seed)
    return path.best, dmf.complete(entries).found.rank, time.perf_counter() - begin


@click.command()
@click.option("--trials", default=40, show_default=True)
@click.option("--no-save", is_flag=True, help="Write no result.")
@dmf.threads(1)
def main(trials: int, no_save: bool) -> None:
    """Run all cases, print a table, write results/rank_choice.json."""
    results = {}
    for d1, d2, rank, over in CASES:
        if over * rank * (d1 + d2 - rank) > d1 * d2:  # more samples than entries
            continue
        runs = np.array([chosen(seed, d1, d2, rank, over) for seed in range(trials)])
        results[f"{d1} x {d2}, rank {rank}, oversampling {over}"] = {
            "path_right": float(np.mean(runs[:, 0] == rank)), "complete_right": float(np.mean(runs[:, 1] == rank)),
            "least": int(runs[:, 0].min()), "most": int(runs[:, 0].max()), "median_seconds": float(np.median(runs[:, 2])),
        }  # fmt: skip
        print(*list(results.items())[-1], flush=True)
    rows = [[name, f"{r['path_right']:.1%}", f"{r['complete_right']:.1%}", r["least"], r["most"], r["median_seconds"]]
            for name, r in results.items()]  # fmt: skip
    overall = float(np.mean([r["path_right"] for r in results.values()]))
    print_table(["case", "path right", "complete right", "least", "most", "median s"], rows)
    print(f"all cases: {overall:.1%} right")
    if not no_save:
        write_result("rank_choice", {"trials": trials, "threads": 1, "path_right": overall, "cases": results})


if __name__ == "__main__":
    main()
