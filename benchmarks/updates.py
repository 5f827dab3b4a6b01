"""`recovery.update` beside a fit of everything: new columns with a direction of their own, and streams of updates.

python benchmarks/updates.py writes benchmarks/results/updates.json. Columns: of a 500 x 500 matrix of rank 5 the first 450
columns are known, then come 50 more, which have a direction of their own; the refit is `dmf.complete` of all entries, put
together first. Streams: half of the entries, and the rest in 20 parts; error over that of a refit at every fifth update.
MovieLens-100K in the same way, a tenth held out, once in random order and once with the ratings of some users last. Seconds are
of the processor, both in one run, in turns.
"""

import argparse
import time

import numpy as np
from cases import write_result

import dmf
from dmf.io.matrices import read_entries

from ratings_data import movielens_100k

N, RANK, PARTS = 500, 5, 20


def timed(function, *arguments, **options):
    begin = time.process_time()
    return function(*arguments, **options), time.process_time() - begin


def error(recovery, truth):
    return float(np.linalg.norm(recovery.product() - truth) / np.linalg.norm(truth))


def problem(seed, share, noise):
    """Truth, noisy matrix and mask; entries of mean square 1."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((N, RANK)) @ rng.standard_normal((RANK, N)) / RANK**0.5
    return rng, truth, truth + noise * rng.standard_normal((N, N)), rng.random((N, N)) < share


def entries(matrix, mask, width=N):
    rows, cols = np.nonzero(mask)
    return dmf.SampledEntries(rows, cols, matrix[rows, cols], (matrix.shape[0], width))


def refit(known, more):
    """A fit of everything, which has to be put together first."""
    parts = [[getattr(e, name) for e in (known, more)] for name in ("rows", "cols", "entries")]
    return dmf.complete(dmf.SampledEntries(*map(np.concatenate, parts), more.shape))


def columns(trials):
    """Errors and times of an update and a refit, of 50 new columns."""
    rows = []
    for share, noise in ((0.2, 0.0), (0.1, 0.1), (0.3, 0.1), (0.3, 0.5), (0.6, 0.5)):
        ratios, times, ranks, seconds = [], [], [], []
        for seed in range(trials):
            rng, truth, matrix, mask = problem(seed, share, noise)
            own = np.outer(rng.standard_normal(N), np.r_[np.zeros(450), rng.standard_normal(50)])
            truth, matrix = truth + own, matrix + own
            new = mask & (np.arange(N) >= 450)
            old = dmf.complete(entries(matrix[:, :450], mask[:, :450], 450))
            more = entries(matrix, new)
            took = {"update": [], "refit": []}
            for _ in range(3):
                updated, t = timed(old.update, more)
                took["update"].append(t)
                whole, t = timed(refit, old.observations, more)
                took["refit"].append(t)
            errors = [error(updated, truth), error(whole, truth)]
            ratios.append(1.0 if max(errors) < 1e-9 else errors[0] / errors[1])
            times.append(min(took["update"]) / min(took["refit"]))
            seconds.append(min(took["refit"]))
            ranks.append((updated.found.rank, whole.found.rank))
        rows.append(
            {"share": share, "noise": noise, "trials": trials, "ranks": ranks}
            | {"largest_error_over_refit": max(ratios), "median_time_over_refit": float(np.median(times))}
            | {"largest_time_over_refit": max(times), "median_refit_seconds": float(np.median(seconds))}
        )
        print(rows[-1], flush=True)
    return rows


def streamed(recovery, parts, fit, measure):
    """Ratios of the error of a stream of updates to that of a refit at every fifth one, and of times."""
    ratios, spent = [], 0.0
    for number, part in enumerate(parts, start=1):
        recovery, took = timed(recovery.update, part)
        spent += took
        if number % 5 == 0:
            whole, took = timed(fit, number)
            ratios.append(measure(recovery) / measure(whole))
    return {"error_over_refit": ratios, "time_of_an_update_over_refit": spent / len(parts) / took}


def streams(trials):
    rows = []
    for share, noise in ((0.1, 0.1), (0.3, 0.5)):
        for seed in range(trials):
            rng, truth, matrix, mask = problem(seed, share, noise)
            part = np.where(mask, np.maximum(rng.integers(1 - PARTS, PARTS + 1, mask.shape), 0), -1)
            found = streamed(
                dmf.complete(entries(matrix, part == 0)),
                [entries(matrix, part == k) for k in range(1, PARTS + 1)],
                lambda k, m=matrix, p=part: dmf.complete(entries(m, (p >= 0) & (p <= k))),
                lambda r, t=truth: error(r, t),
            )
            rows.append({"data": "rank 5", "share": share, "noise": noise, "seed": seed} | found)
            print(rows[-1], flush=True)
    ratings = dmf.SampledEntries.from_entries(read_entries(movielens_100k()))
    kept, held = ratings.split(0.1, 0)
    rng = np.random.default_rng(0)

    def rmse(recovery):
        return float(np.sqrt(np.mean((held.entries - recovery.predict(held.rows, held.cols)) ** 2)))

    newest = np.argsort(np.random.default_rng(1).permutation(kept.shape[0])[kept.rows], kind="stable")
    for order, index in (("random", rng.permutation(kept.n_measurements)), ("new users last", newest)):
        half, *rest = np.split(index, (np.linspace(0.5, 1, PARTS + 1)[:-1] * index.size).astype(int))
        known = [np.concatenate([half, *rest[:k]]) for k in range(PARTS + 1)]
        found = streamed(
            dmf.complete(_chosen(kept, known[0])),
            [_chosen(kept, part) for part in rest],
            lambda k, i=known: dmf.complete(_chosen(kept, i[k])),
            rmse,
        )
        rows.append({"data": "MovieLens-100K", "order": order} | found)
        print(rows[-1], flush=True)
    return rows


def _chosen(known, index):
    mask = np.zeros(known.n_measurements, bool)
    mask[index] = True
    return known.chosen(mask)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=3)
    args = parser.parse_args()
    write_result("updates", {"columns": columns(args.trials), "streams": streams(args.trials)})


if __name__ == "__main__":
    main()
