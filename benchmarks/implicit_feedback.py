"""How well do weighted factors of what was rated at all rank what is rated next, and how long does a sweep take?

    python benchmarks/implicit_feedback.py

MovieLens-100K, every rating a count of 1; a random fifth is the test set, once for each seed. Rank, confidence and ridge of
`dmf.solvers.implicit_feedback` are those with the best NDCG@10 on a tenth of the first training set; `implicit` fits the same
objective with the same numbers. `dmf.complete(feedback="implicit")` gets no numbers: it chooses its own in each training set, and
its time is that of the whole. All on one thread; times are those of the processor.
"""

from __future__ import annotations

import itertools
import time

import click
import numpy as np
from cases import print_table
from movielens import SHAPE, observed, random_splits, ratings

import dmf
from dmf.models import LowRank
from dmf.recovery import Found, Plan, Recovery
from dmf.recovery.ranking import RankingMeasures, ranking_measures
from dmf.solvers import History, Outcome, implicit_feedback

GRID = tuple(itertools.product((16, 32), (1.0, 4.0, 16.0), (3.0, 30.0)))  # rank, confidence, ridge
SWEEPS, TIMED_RANK, TIMED_SWEEPS = 15, 64, 5


def measured(
    left: np.ndarray, right: np.ndarray, held: dmf.SampledEntries, seen: dmf.SampledEntries
) -> RankingMeasures:
    """Of the product of two factors."""
    history = History({"iteration": [0], "loss": [0.0], "seconds": [0.0]})
    found = Found(left.shape[1], 1.0, False)
    recovery = Recovery(LowRank.of_factors(left, right), found, Outcome.SOLVED, history, Plan())
    return ranking_measures(recovery, held, 10, seen)


def by_dmf(seen: dmf.SampledEntries, rank: int, confidence: float, ridge: float, sweeps: int = SWEEPS):
    """Factors of dmf, and seconds."""
    begin = time.process_time()
    run = implicit_feedback(seen, rank, confidence=confidence, ridge=ridge, iterations=sweeps)
    return *run.network.factors(), time.process_time() - begin


def by_complete(seen: dmf.SampledEntries):
    """Factors of `dmf.complete`, which is told nothing, and seconds."""
    begin = time.process_time()
    found = dmf.complete(seen, feedback="implicit")
    return *found.factors(), time.process_time() - begin


def by_implicit(seen: dmf.SampledEntries, rank: int, confidence: float, ridge: float, sweeps: int = SWEEPS, cg=False):
    """Factors of `implicit`, and seconds."""
    import scipy.sparse
    from implicit.cpu.als import AlternatingLeastSquares

    weights = scipy.sparse.csr_matrix((1 + confidence * seen.values, (seen.rows, seen.cols)), shape=SHAPE)
    options = {"use_cg": cg, "num_threads": 1, "dtype": np.float64, "random_state": 0, "alpha": 1.0}
    model = AlternatingLeastSquares(rank, regularization=ridge, iterations=sweeps, **options)
    begin = time.process_time()
    model.fit(weights, show_progress=False)
    seconds = time.process_time() - begin
    return model.user_factors, np.ascontiguousarray(model.item_factors.T), seconds


@click.command()
@click.option("--seeds", default=5, show_default=True, help="Random splits.")
@dmf.threads(1)
def main(seeds: int) -> None:
    """Choose the numbers, run all on every split, print a table."""
    users, films, values = ratings()
    data = users, films, np.ones_like(values)
    splits = [tuple(observed(data, index) for index in split) for split in random_splits(len(values), seeds)]
    kept, held = splits[0][0].split(0.1, 0)
    chosen = max(GRID, key=lambda numbers: measured(*by_dmf(kept, *numbers)[:2], held, kept).ndcg)
    programs = {
        "dmf": by_dmf,
        "implicit, Cholesky": by_implicit,
        "implicit, three steps of CG": lambda *a: by_implicit(*a, cg=True),
    }
    try:
        import implicit  # noqa: F401
    except ImportError as error:
        programs = {"dmf": by_dmf}
        print(f"skipped: {error}")
    print(f"rank {chosen[0]}, confidence {chosen[1]:g}, ridge {chosen[2]:g}")
    lines = []
    for name, program in programs.items():
        program(kept, TIMED_RANK, *chosen[1:], 1)  # kernels are compiled before anything is timed
        found = [measured(*program(seen, *chosen)[:2], test, seen) for seen, test in splits]
        seconds = program(splits[0][0], TIMED_RANK, *chosen[1:], TIMED_SWEEPS)[2] / TIMED_SWEEPS
        means = [
            np.mean([getattr(one, key) for one in found]) for key in ("ndcg", "recall", "average_precision", "coverage")
        ]
        lines.append([name, *(f"{mean:.4f}" for mean in means), f"{1e3 * seconds:.0f} ms"])
    found, seconds = [], []
    for seen, test in splits:
        *factors, taken = by_complete(seen)
        found.append(measured(*factors, test, seen))
        seconds.append(taken)
    means = [
        np.mean([getattr(one, key) for one in found]) for key in ("ndcg", "recall", "average_precision", "coverage")
    ]
    whole = f"(all of it, trials included: {np.median(seconds):.1f} s)"
    lines.append(["dmf.complete, no number given", *(f"{mean:.4f}" for mean in means), whole])
    popular = [measured(np.ones((SHAPE[0], 1)), 1.0 * seen.counts(1)[None], test, seen) for seen, test in splits]
    means = [
        np.mean([getattr(one, key) for one in popular]) for key in ("ndcg", "recall", "average_precision", "coverage")
    ]
    lines.append(["most popular", *(f"{mean:.4f}" for mean in means), ""])
    print_table(["program", "NDCG@10", "Recall@10", "MAP@10", "coverage", f"sweep at rank {TIMED_RANK}"], lines)


if __name__ == "__main__":
    main()
