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
from dmf.recovery import Found, Plan, RankingMeasures, Recovery
from dmf.recovery.ranking import ranking_measures, top_columns
from dmf.solvers import History, Outcome, implicit_feedback

GRID = tuple(itertools.product((16, 32), (1.0, 4.0, 16.0), (3.0, 30.0)))  # rank, confidence, ridge
SWEEPS, TIMED_RANK, TIMED_SWEEPS = 15, 64, 5
PATH = (2, 4, 6, 10, 15)  # sweeps
LISTED = 2_000, 27_000  # rows and columns of the lists of best columns


def measured(
    left: np.ndarray, right: np.ndarray, held: dmf.SampledEntries, seen: dmf.SampledEntries
) -> RankingMeasures:
    """Of the product of two factors."""
    return ranking_measures(recovery_of(left, right), held, 10, seen)


def recovery_of(left: np.ndarray, right: np.ndarray) -> Recovery:
    """The product of two factors, as dmf returns it."""
    history = History({"iteration": [0], "loss": [0.0], "seconds": [0.0]})
    found = Found(left.shape[1], 1.0, False)
    return Recovery(LowRank.of_factors(left, right), found, Outcome.SOLVED, history, Plan())


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
    users, films, values, times = ratings()
    data = users, films, np.ones_like(values), times
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
    lines, paths = [], []
    for name, program in programs.items():
        program(kept, TIMED_RANK, *chosen[1:], 1)  # kernels are compiled before anything is timed
        found = [measured(*program(seen, *chosen)[:2], test, seen) for seen, test in splits]
        seconds = program(splits[0][0], TIMED_RANK, *chosen[1:], TIMED_SWEEPS)[2] / TIMED_SWEEPS
        lines.append([name, *means(found), f"{1e3 * seconds:.0f} ms"])
        runs = [(program(splits[0][0], *chosen, sweeps), sweeps) for sweeps in PATH]
        paths.append(
            [name, *(f"{measured(*run[:2], splits[0][1], splits[0][0]).ndcg:.4f}, {run[2]:.2f} s" for run, _ in runs)]
        )
    wholes = [by_complete(seen) for seen, _ in splits]
    found = [measured(*whole[:2], test, seen) for whole, (seen, test) in zip(wholes, splits, strict=True)]
    seconds = float(np.median([whole[2] for whole in wholes]))
    lines.append(["dmf.complete, no number given", *means(found), f"(all of it, trials included: {seconds:.1f} s)"])
    popular = [measured(np.ones((SHAPE[0], 1)), 1.0 * seen.counts(1)[None], test, seen) for seen, test in splits]
    lines.append(["most popular", *means(popular), ""])
    print_table(["program", "NDCG@10", "Recall@10", "MAP@10", "coverage", f"sweep at rank {TIMED_RANK}"], lines)
    print("\nNDCG@10 on the first split, and time, after so many sweeps")
    print_table(["program", *map(str, PATH)], paths)
    print(f"\nten best of {LISTED[1]:,} columns, rank {TIMED_RANK}, float32, for each row")
    print_table(["program", "time"], best_columns("implicit, Cholesky" in programs))


def means(found: list[RankingMeasures]) -> list[str]:
    """Of measures over splits."""
    names = ("ndcg", "recall", "average_precision", "coverage")
    return [f"{np.mean([getattr(one, name) for one in found]):.4f}" for name in names]


def best_columns(with_implicit: bool) -> list[list[str]]:
    """Time that the ten best columns of a row take, those seen left out; both programs find the same ones."""
    rng, (d1, d2) = np.random.default_rng(0), LISTED
    left, right = (rng.standard_normal((size, TIMED_RANK), np.float32) for size in LISTED)
    at = rng.integers(0, d1, 100 * d1), rng.integers(0, d2, 100 * d1)
    seen = dmf.SampledEntries(*at, np.ones(100 * d1, np.float32), LISTED)
    recovery = recovery_of(left, np.ascontiguousarray(right.T))
    begin = time.process_time()
    _, columns, _ = top_columns(recovery, np.arange(d1), 10, seen)
    lines = [["dmf", f"{1e3 * (time.process_time() - begin) / d1:.3f} ms"]]
    if with_implicit:
        import scipy.sparse
        from implicit.cpu.als import AlternatingLeastSquares

        model = AlternatingLeastSquares(TIMED_RANK, num_threads=1)
        model.user_factors, model.item_factors = left, right
        counts = scipy.sparse.csr_matrix((seen.values, (seen.rows, seen.cols)), shape=LISTED)
        begin = time.process_time()
        best = model.recommend(np.arange(d1), counts, 10)[0]
        same = np.mean(best.ravel() == columns)
        lines.append(["implicit", f"{1e3 * (time.process_time() - begin) / d1:.3f} ms, {same:.1%} the same"])
    return lines


if __name__ == "__main__":
    main()
