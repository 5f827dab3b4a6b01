"""Blocks of components fitted apart on sampled entries (block Jacobi) beside exact sweeps: held-out error and bytes.

python benchmarks/component_blocks.py writes benchmarks/results/component_blocks.json. With full observation and the spectral
start, blocks never need to talk (tests/paper/test_theory_components.py). Of sampled entries each of K workers holds all of them
and a block of the w components, fits both factors of its block, once or four times, to what the other blocks left at the last
exchange, and sends them; with a damping of 1 / K it goes a K-th of the way there. An exact sweep is two ridge regressions of all
components. Both have the same ridge penalty, and start from the same singular vectors. MovieLens-100K less its offsets, 10 % not
seen, three seeds; noisy matrices of rank 8. Bytes are those that arrive at all workers, in double precision, until the held-out
error is within 0.1 % of that of 60 exact sweeps. In each exchange every worker gets what it has not of both factors: parts of
rows and columns, or blocks of components.
"""

import json
from pathlib import Path

import numpy as np

import dmf
from dmf.io.matrices import read_entries
from dmf.models.offsets import fit_offsets

from ratings_data import movielens_100k

WIDTH, SWEEPS = 8, 60


def start(entries):
    u, s, vt = entries.surrogate_svd(WIDTH)
    scale = abs(entries.best_scale(u * s, vt))
    roots = np.sqrt(scale * s)
    return u * roots, (roots[:, None] * vt).T


def sweep(entries, left, right, penalty):
    penalties = np.full(left.shape[1], penalty)
    left = entries.ridge(0, right, penalties).rows
    return left, entries.ridge(1, left, penalties).rows


def jacobi(entries, left, right, penalty, blocks, local, damping):
    found = [left.copy(), right.copy()]
    whole = entries.predict(left, right.T)
    for block in np.array_split(np.arange(WIDTH), blocks):
        mine = left[:, block], right[:, block]
        rest = entries.values - whole + entries.predict(mine[0], np.ascontiguousarray(mine[1].T))
        known, fitted = entries.with_values(rest), tuple(map(np.ascontiguousarray, mine))
        for _ in range(local):
            fitted = sweep(known, *fitted, penalty)
        for factor, new in zip(found, fitted, strict=True):
            factor[:, block] += damping * (new - factor[:, block])
    return found


def errors(kept, held, step, settled):
    """Held-out error after each sweep, and of the last state that is finite."""
    left, right = start(kept)
    path = []
    for _ in range(SWEEPS):
        left, right = step(left, right)
        size = float(np.sqrt(np.mean((held.values - held.predict(left, np.ascontiguousarray(right.T))) ** 2)))
        path.append(size)
        if not np.isfinite(size) or size > 1e3 * settled:
            break
    return path


def problem(name, seed):
    if name == "movielens":
        ratings = dmf.SampledEntries.from_entries(read_entries(movielens_100k()))
        kept, held = ratings.split(0.1, seed)
        offsets = fit_offsets(kept)
        return kept.minus(*offsets.factors()), held.minus(*offsets.factors()), 8.0
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((600, WIDTH)) @ rng.standard_normal((WIDTH, 400)) / np.sqrt(WIDTH)
    rows, cols = np.nonzero(rng.random(truth.shape) < 0.2)
    values = truth[rows, cols] + 0.3 * rng.standard_normal(rows.size)
    return *dmf.SampledEntries(rows, cols, values, truth.shape).split(0.1, seed), 0.1


def main():
    rows = []
    for name in ("movielens", "noisy"):
        for seed in range(3):
            kept, held, penalty = problem(name, seed)
            exact = errors(kept, held, lambda a, b, k=kept, p=penalty: sweep(k, a, b, p), 1.0)
            moved = 8 * WIDTH * sum(kept.shape)
            for blocks in (2, 4, 8):
                for local, damping in ((1, 1.0), (4, 1.0), (1, 1 / blocks)):

                    def step(a, b, k=kept, p=penalty, n=blocks, t=local, d=damping):
                        return jacobi(k, a, b, p, n, t, d)

                    path = errors(kept, held, step, exact[-1])
                    within = [
                        next((n + 1 for n, e in enumerate(p) if e <= 1.001 * exact[-1]), None) for p in (exact, path)
                    ]
                    rows.append(
                        {
                            "problem": name,
                            "seed": seed,
                            "blocks": blocks,
                            "local_sweeps": local,
                            "damping": damping,
                            "exact_rmse": exact[-1],
                            "jacobi_rmse": path[-1],
                            "worse_by": path[-1] / exact[-1] - 1,
                            "exchanges_exact": within[0],
                            "exchanges_jacobi": within[1],
                            "bytes_exact": (blocks - 1) * moved * within[0],
                            "bytes_jacobi": within[1] and (blocks - 1) * moved * within[1],
                        }
                    )
                    print(rows[-1], flush=True)
    path = Path(__file__).parent / "results" / "component_blocks.json"
    path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
