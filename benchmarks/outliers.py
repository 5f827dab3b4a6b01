"""Completion with corrupted entries: recovered or not, beside a convex peer and beside knowing which entries are corrupted.

python benchmarks/outliers.py [--trials 20] writes benchmarks/results/outliers.json; --only 2 replaces the rows of two entries for
each degree of freedom, --only 0 those without outliers and with noise. The problems are those of RGNMR (arXiv 2505.12919): 500 x
500, rank 5, singular values from 1 down to 1/4, each row and column with at least 5 good entries; outliers add uniform numbers up
to the largest entry of the matrix, or ten times larger. Recovered: relative error below 1e-3. The peer is principal component
pursuit for seen entries, min |L|_* + lambda |S|_1 by the alternating direction method of multipliers, with the better one of two
lambda, known from the truth. Without outliers: error with the search over error without it.
"""

import argparse
import json
import time

import numpy as np
from cases import RESULTS, write_result

import dmf

N, RANK = 500, 5
OVERSAMPLING = (2, 3, 4, 6, 0)


def problem(seed, oversampling, share, size, noise=0.0):
    """Truth, positions, values and which of them are corrupted."""
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.standard_normal((N, RANK)))[0] for _ in range(2))
    truth = N * (u * np.linspace(1, 1 / 4, RANK)) @ v.T
    count = round(oversampling * RANK * (2 * N - RANK))
    while True:
        rows, cols = np.divmod(np.sort(rng.choice(N * N, count, replace=False)), N)
        bad = np.zeros(count, bool)
        bad[rng.choice(count, int(share * count), replace=False)] = True
        if min(np.bincount(index[~bad], minlength=N).min() for index in (rows, cols)) >= RANK:
            break
    values = truth[rows, cols] + noise * truth.std() * rng.standard_normal(count)
    most = size * np.abs(truth).max()
    values[bad] += rng.uniform(-most, most, bad.sum())
    return truth, dmf.SampledEntries(rows, cols, values, (N, N)), bad


def error(found, truth):
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def f1(recovery, entries, bad):
    """Of the support of the outliers."""
    places = recovery.outliers.rows * N + recovery.outliers.cols
    found = np.isin(entries.rows.astype(int) * N + entries.cols, places)
    return float(2 * np.sum(found & bad) / max(found.sum() + bad.sum(), 1))


def pursuit(entries, penalty, iterations=150):
    """L of min |L|_* + penalty |S|_1, L + S = the entries where they are seen."""
    seen = np.zeros((N, N), bool)
    seen[entries.rows, entries.cols] = True
    data = np.zeros((N, N))
    data[entries.rows, entries.cols] = entries.values
    step = 1.25 / np.linalg.norm(data, 2)
    sparse, dual, low = np.zeros((N, N)), np.zeros((N, N)), np.zeros((N, N))
    for _ in range(iterations):
        u, s, vt = np.linalg.svd(data - sparse + dual / step, full_matrices=False)
        kept = s > 1 / step
        low = (u[:, kept] * (s[kept] - 1 / step)) @ vt[kept]
        rest = data - low + dual / step
        shrunk = np.sign(rest) * np.maximum(np.abs(rest) - penalty / step, 0)
        sparse = np.where(seen, shrunk, rest)  # of unseen entries nothing is asked
        left = data - low - sparse
        dual = dual + step * left
        step = min(1.1 * step, 1e6)
        if np.linalg.norm(left[seen]) <= 1e-6 * np.linalg.norm(data):
            break
    return low


def row(oversampling, share, size, trials, peers):
    found = {"oversampling": oversampling, "share": share, "size": size, "trials": trials}
    for name, rank in (("rank_known", RANK), ("rank_unknown", None)):
        errors, scores, exact, seconds = [], [], [], []
        for seed in range(trials):
            truth, entries, bad = problem(seed, oversampling, share, size)
            begin = time.perf_counter()
            recovery = dmf.complete(entries, rank, outliers=True)
            seconds.append(time.perf_counter() - begin)
            errors.append(error(recovery.product(), truth))
            scores.append(f1(recovery, entries, bad))
            exact.append(recovery.found.exact)
        wrong = np.array(errors) >= 1e-3
        found[name] = {
            "recovered": int(np.sum(~wrong)),
            "called_exact": int(np.sum(exact)),
            "called_exact_and_wrong": int(np.sum(np.array(exact) & wrong)),
            "median_error": float(np.median(errors)),
            "least_f1": min(scores),
            "median_f1": float(np.median(scores)),
            "median_seconds": round(float(np.median(seconds)), 2),
        }
    ones = []
    for seed in range(peers):
        truth, entries, _ = problem(seed, oversampling, share, size)
        share_seen = entries.n_measurements / N**2
        ones.append(min(error(pursuit(entries, k / np.sqrt(N * share_seen)), truth) for k in (1.0, 2.0)))
    if ones:
        found["pursuit"] = {
            "trials": peers,
            "recovered": int(np.sum(np.array(ones) < 1e-3)),
            "median_error": float(np.median(ones)),
        }
    return found


def clean(trials):
    """What the search costs where there are no outliers."""
    rows = []
    for oversampling, noise in ((1.5, 0.0), (2, 0.0), (2, 0.1), (4, 0.1), (4, 0.5), (8, 0.5)):
        ratios, flagged = [], []
        for seed in range(trials):
            truth, entries, _ = problem(seed, oversampling, 0, 1, noise)
            plain, robust = dmf.complete(entries), dmf.complete(entries, outliers=True)
            errors = [error(r.product(), truth) for r in (plain, robust)]
            ratios.append(1.0 if max(errors) < 1e-10 else errors[1] / errors[0])
            flagged.append(len(robust.outliers))
        rows.append(
            {
                "oversampling": oversampling,
                "noise": noise,
                "trials": trials,
                "largest_ratio": max(ratios),
                "most_flagged": max(flagged),
            }
        )
        print(rows[-1], flush=True)
    return rows


def noisy(trials):
    """Error beside that of a fit which knows the outliers."""
    rows = []
    for oversampling, noise, share, size in (
        (3, 0.05, 0.05, 1),
        (3, 0.2, 0.1, 10),
        (6, 0.05, 0.1, 10),
        (6, 0.2, 0.05, 1),
    ):
        ratios, plain, scores = [], [], []
        for seed in range(trials):
            truth, entries, bad = problem(seed, oversampling, share, size, noise)
            robust, oracle = dmf.complete(entries, outliers=True), dmf.complete(entries.chosen(~bad))
            known = error(oracle.product(), truth)
            ratios.append(error(robust.product(), truth) / known)
            plain.append(error(dmf.complete(entries).product(), truth) / known)
            scores.append(f1(robust, entries, bad))
        rows.append(
            {"oversampling": oversampling, "noise": noise, "share": share, "size": size, "trials": trials}
            | {
                "over_oracle": float(np.median(ratios)),
                "plain_over_oracle": float(np.median(plain)),
                "f1": float(np.median(scores)),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--peers", type=int, default=2)
    parser.add_argument("--only", type=int, choices=OVERSAMPLING)
    args = parser.parse_args()
    path = RESULTS / "outliers.json"
    results = json.loads(path.read_text()) if args.only is not None else {"recovery": []}
    for oversampling in OVERSAMPLING if args.only is None else [args.only]:
        if oversampling == 0:
            few = max(args.trials // 5, 1)
            results |= {"without_outliers": clean(few), "noise": noisy(few)}
            continue
        rows = [r for r in results["recovery"] if r["oversampling"] != oversampling]
        for share in (0.05, 0.1):
            for size in (1, 10):
                peers = args.peers if share == 0.05 and size == 1 else 0  # it takes a minute
                rows.append(row(oversampling, share, size, args.trials, peers))
                print(rows[-1], flush=True)
        results["recovery"] = sorted(rows, key=lambda r: r["oversampling"])
    write_result("outliers", results)


if __name__ == "__main__":
    main()
