"""Tables that share their frames, completed together and apart: entries needed, and what it costs where they share nothing.

python benchmarks/together.py writes benchmarks/results/together.json. Ten tables U C_k V^T of 300 x 300, rank 5, entries of mean
square 1: apart they have 2,975 degrees of freedom each, together 3,200. Recovered: relative error of a table below 1e-6. Apart:
`dmf.complete` with the rank given. What each needs is the least of the grid at which every table of every trial is recovered.
Noisy tables: error of `complete_together` over that of separate fits, with frames shared, with none shared, and with two of five
components shared, where neither model is right. Seconds are of the processor.
"""

import argparse
import json
import time

import numpy as np
from cases import RESULTS, write_result

import dmf

COUNT, N, RANK = 10, 300, 5
FREEDOM = RANK * (2 * N - RANK)
APART = (1.3, 1.5, 1.75, 2.0, 2.5)  # entries of a table for each of its degrees of freedom
TOGETHER = (0.15, 0.2, 0.25, 0.3, 0.35, 0.4)


def tables(rng, shared):
    """Tables of which `shared` components of the frames are common to all; entries have mean square 1."""

    def frame():
        return rng.standard_normal((N, RANK))

    left, right, found = frame(), frame(), []
    for _ in range(COUNT):
        u, v = (np.hstack([common[:, :shared], frame()[:, shared:]]) for common in (left, right))
        table = u @ rng.standard_normal((RANK, RANK)) @ v.T
        found.append(table / table.std())
    return found


def sampled(rng, truth, count, noise=0.0):
    """As many entries, at random."""
    rows, cols = np.divmod(np.sort(rng.choice(N * N, count, replace=False)), N)
    return dmf.SampledEntries(rows, cols, truth[rows, cols] + noise * rng.standard_normal(count), truth.shape)


def error(found, truth):
    return float(np.linalg.norm(np.array([t.product() for t in found]) - truth) / np.linalg.norm(truth))


def timed(function, *arguments, **options):
    begin = time.process_time()
    return function(*arguments, **options), time.process_time() - begin


def apart(seen):
    return [dmf.complete(table, RANK, offsets=False) for table in seen]


def exact(trials):
    """Recovered trials, and seconds, at each number of entries."""
    rows = []
    for name, solve, grid in (
        ("apart", apart, APART),
        ("together", lambda s: dmf.complete_together(s, RANK), TOGETHER),
    ):
        for factor in grid:
            errors, seconds = [], []
            for seed in range(trials):
                rng = np.random.default_rng([seed, 0])
                truth = tables(rng, RANK)
                found, took = timed(solve, [sampled(rng, t, round(factor * FREEDOM)) for t in truth])
                errors += [error([f], t) for f, t in zip(found, truth, strict=True)]
                seconds.append(took)
            rows.append(
                {
                    "fit": name,
                    "entries_of_a_table": round(factor * FREEDOM),
                    "trials": trials,
                    "tables": len(errors),
                    "recovered": int(np.sum(np.array(errors) < 1e-6)),
                    "largest_error": max(errors),
                    "median_seconds": round(float(np.median(seconds)), 2),
                }
            )
            print(rows[-1], flush=True)
    needed = {
        name: min(
            (r["entries_of_a_table"] for r in rows if r["fit"] == name and r["recovered"] == r["tables"]), default=None
        )
        for name in ("apart", "together")
    }
    return {"rows": rows, "needed": needed}


def noisy(trials):
    """Error together over error apart."""
    rows = []
    for shared in (RANK, 2, 0):
        for factor, noise in ((1.5, 0.3), (3.0, 0.1), (3.0, 0.5)):
            ratios, together = [], 0
            for seed in range(trials):
                rng = np.random.default_rng([seed, 1])
                truth = tables(rng, shared)
                seen = [sampled(rng, t, round(factor * FREEDOM), noise) for t in truth]
                found = dmf.complete_together(seen, RANK)
                together += found.shared
                ratios.append(error(found, truth) / error(apart(seen), truth))
            rows.append(
                {"shared_components": shared, "entries_over_freedom": factor, "noise": noise, "trials": trials}
                | {"fitted_together": together, "median_ratio": float(np.median(ratios)), "largest_ratio": max(ratios)}
            )
            print(rows[-1], flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--only", choices=("exact", "noisy"), help="measure one part again")
    args = parser.parse_args()
    path, parts = RESULTS / "together.json", {"exact": exact, "noisy": noisy}
    results = json.loads(path.read_text()) if args.only and path.exists() else {}
    for name in [args.only] if args.only else parts:
        results[name] = parts[name](args.trials)
    write_result("together", results)


if __name__ == "__main__":
    main()
