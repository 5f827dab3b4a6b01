"""How often, how closely and how fast do other solvers complete the problems of `problems.py`?

    python benchmarks/peers_report.py --case c --case d --trials 5
    python benchmarks/peers_report.py --case e --peers als,pymanopt_fixed_rank

Cases: c, 300 x 300 of rank 5 from 1.5, 2 and 3 times as many samples as degrees of freedom; d, the same from 3 times as many with
noise 20 dB below the signal, well and badly conditioned; e, 10,000 x 10,000 of rank 10 from 5 times as many; f, ratings (f-small:
a tenth of them). All are given the true
rank, except dmf_complete@free. Without noise, solvers stop at the true error `target` or at the limit, which
favours them: no stopping rule of their own costs time. Solvers that show no iterates are run from their start with 1, 2, 4, ...
times as many iterations, and the time is that of the last run alone. Each first solves a small problem, to be compiled.
Options that are not a peer's defaults are in OPTIONS; those of als, soft_impute and libmf come from a few trials on other seeds
than those reported, the others from their documentation. dmf has none to choose.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any

import click
import numpy as np
import problems
from cases import print_table, write_result
from peers.common import Watch

PEERS = (
    "dmf_complete",
    "dmf_complete@free",
    "als",
    "soft_impute",
    "pymanopt_fixed_rank",
    "libmf_sgd",
    "cmfrec_als",
    "cornac_mf",
    "lenskit_als",
)
PACKAGES = ("pymanopt", "libmf", "cmfrec", "cornac", "lenskit")
OFFSETS_ONLY = ("lenskit_als",)  # always subtract offsets, so that what is left of a rank-r matrix has rank r + 2
UNBIASED_ONLY = (
    "pymanopt_fixed_rank",
)  # no penalty: nothing to keep them from fitting the noise of rows with few ratings

OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "exact": {
        "als": {"first_ridge": 10.0},
        "cmfrec_als": {"ridge": 1e-2, "iterations": 20},
        "cornac_mf": {"rate": 0.01},
    },
    "noisy": {
        "als": {"first_ridge": 10.0, "ridge": 0.03},
        "soft_impute": {"penalty": 0.03},
        "cmfrec_als": {"ridge": 0.03},
    },
    "noisy, ill-conditioned": {  # the best penalty is not that of the well-conditioned matrix, which no solver is told
        "als": {"first_ridge": 10.0, "ridge": 0.3},
        "soft_impute": {"penalty": 0.3},
        "cmfrec_als": {"ridge": 0.3},
    },
    "large": {
        "als": {},
        "cmfrec_als": {"ridge": 1e-3, "iterations": 10},
        "cornac_mf": {"rate": 0.01, "iterations": 50},
    },
    "ratings": {
        "dmf_complete": {"offsets": True},
        "dmf_complete@free": {"offsets": True},
        "als": {"ridge": 4.0, "bias": True, "tolerance": 1e-3, "dtype": np.float32},
        "soft_impute": {
            "penalty": 10.0,
            "steps": 2,
            "bias": True,
            "iterations": 60,
            "tolerance": 1e-3,
            "dtype": np.float32,
        },
        "libmf_sgd": {"ridge": 0.05, "rate": 0.1, "bias": True, "iterations": 80},
        "cmfrec_als": {"ridge": 4.0, "bias": True, "iterations": 10, "single": True},
        "cornac_mf": {"ridge": 0.05, "rate": 0.01, "bias": True, "iterations": 30},
        "lenskit_als": {"ridge": 0.1, "iterations": 10},
    },
}


@dataclass(frozen=True)
class Question:
    """A case to run: its trials, how to measure an error, what counts as solved."""

    name: str
    make: Callable[[int], dict[str, Any]]
    rank: int
    kind: str
    unit: str
    success: float
    target: float
    limit: float
    threads: int
    trials: int | None = None  # at most
    measure: Callable[[dict[str, Any]], Callable[..., float]] = field(default=lambda case: _relative(case))


def _relative(case):
    return lambda left, right: problems.relative_error(left, right, case)


def _over_oracle(case):
    oracle = problems.tangent_space_oracle(case, problems.noise_level(20))
    return lambda left, right: problems.relative_error(left, right, case) / oracle


def _held_out(case):
    test = slice(0, case["n_test"])
    rows, cols, values = (case[key][test] for key in ("rows", "cols", "values"))

    def measure(left, right):
        total = 0.0
        for start in range(0, values.size, 100_000):
            part = slice(start, start + 100_000)
            found = np.einsum("ij,ij->i", left[rows[part]], right[cols[part]])
            total += float(np.sum((np.clip(found, 0.5, 5) - values[part]) ** 2))
        return float(np.sqrt(total / values.size))

    return measure


def _seen(case: dict[str, Any]) -> dict[str, Any]:
    """What a solver may look at."""
    kept = slice(case.get("n_test", 0), None)
    return {key: case[key][kept] for key in ("rows", "cols", "values")} | {"shape": case["shape"]}


def questions(name: str) -> Iterator[Question]:
    """The questions of one case."""
    if name == "c":
        for over in (1.5, 2, 3):
            make = lambda seed, over=over: problems.low_rank_samples(seed, oversampling=over)  # noqa: E731
            yield Question(f"c: oversampling {over}", make, 5, "exact", "relative error", 1e-4, 1e-6, 10.0, 1)
    elif name == "d":
        for condition in (None, 100):
            make = lambda seed, condition=condition: problems.low_rank_samples(  # noqa: E731
                seed, oversampling=3, condition=condition, snr_db=20
            )
            label = "d: 20 dB, oversampling 3" + (f", condition {condition}" if condition else "")
            kind = "noisy, ill-conditioned" if condition else "noisy"
            yield Question(label, make, 5, kind, "error / oracle", 1.1, 0.0, 10.0, 1, measure=_over_oracle)
    elif name == "e":
        label = "e: 10,000 x 10,000, rank 10"
        yield Question(label, problems.large_completion, 10, "large", "relative error", 1e-4, 1e-4, 120.0, 2, 1)
    else:
        size = {} if name == "f" else {"n": 2_500_000, "n_users": 50_000, "n_items": 20_000, "n_test": 100_000}
        make = lambda seed: problems.ratings(seed, **size)  # noqa: E731
        label = f"f: {size.get('n', 25_000_000):,} ratings"
        yield Question(label, make, 16, "ratings", "held-out RMSE", np.inf, 0.0, 3_600.0, 2, 1, _held_out)


def run(question: Question, peers: tuple[str, ...], trials: int, seed: int) -> dict[str, Any]:
    """All peers on all trials of one question."""
    threads = question.threads
    trials = min(trials, question.trials or trials)
    results: dict[str, dict[str, Any]] = {name: {"trials": []} for name in peers}
    oracles = []
    for trial in range(seed, seed + trials):
        case = question.make(trial)
        measure, seen = question.measure(case), _seen(case)
        oracles.append(case.get("oracle"))
        for name in peers:
            result = results[name]
            module = importlib.import_module(f"peers.{name.removesuffix('@free')}")
            usable, reason = module.available()
            if usable and question.kind != "ratings" and name in OFFSETS_ONLY:
                usable, reason = False, "always subtracts offsets"
            if usable and question.kind == "ratings" and name in UNBIASED_ONLY:
                usable, reason = False, "knows no penalty"
            if not usable:
                result["reason"] = reason
                continue
            options = OPTIONS[question.kind].get(name, {}) | ({"free": True} if name.endswith("@free") else {})
            if trial == seed:
                _warm_up(module.solve, question.kind, options, threads)
            # The options of ratings fix the iterations: choosing them by the test set would be peeking.
            peeks = question.kind != "ratings"
            watch = Watch(measure, question.target, question.limit) if peeks else None
            left, right, seconds = module.solve(
                seen, question.rank, watch=watch, threads=threads, seed=trial, **options
            )
            error = measure(left, right)
            row = {"error": error if np.isfinite(error) else None, "seconds": seconds}
            if watch is not None:
                row["seconds_to_success"] = watch.seconds_to(question.success)
            result["trials"].append(row)
            print(f"  {question.name}, trial {trial}, {name}: {error:.3g} in {seconds:.2f} s", flush=True)
    for name, result in results.items():
        _summarise(question, result)
        result["options"] = {k: getattr(v, "__name__", v) for k, v in OPTIONS[question.kind].get(name, {}).items()}
    return {
        "question": question.name, "unit": question.unit, "threads": threads, "limit_seconds": question.limit,
        "success": question.success if np.isfinite(question.success) else None, "target": question.target,
        "oracle": [o for o in oracles if o is not None], "peers": results,
    }  # fmt: skip


def _warm_up(solve, kind, options, threads) -> None:
    tiny = problems.low_rank_samples(10**6, 30, 30, 2, 4)
    if kind == "ratings":
        tiny |= {"values": np.clip(3 + tiny["values"], 0.5, 5).astype(np.float32)}
    tiny |= {key: tiny[key].astype(np.int32 if kind in ("large", "ratings") else np.int64) for key in ("rows", "cols")}
    solve(_seen(tiny), 2, threads=threads, **(options | {"iterations": 2}))


def _summarise(question: Question, result: dict[str, Any]) -> None:
    rows = result["trials"]
    if not rows:
        return
    errors = [np.inf if row["error"] is None else row["error"] for row in rows]
    solved = [error <= question.success for error in errors]
    median = float(np.median(errors))
    result["success_rate"], result["median_error"] = float(np.mean(solved)), median if np.isfinite(median) else None
    result["median_seconds"] = float(np.median([row["seconds"] for row in rows]))
    times = [row["seconds_to_success"] for row in rows if row.get("seconds_to_success") is not None]
    result["median_seconds_to_success"] = float(np.median(times)) if times else None


def table_of(found: dict[str, Any]) -> None:
    """Print one question."""
    level = "" if found["success"] is None else f"; solved: at most {found['success']:g}"
    oracle = f"; the truth without noise {np.median(found['oracle']):.4f}" if found["oracle"] else ""
    print(f"\n{found['question']} ({found['unit']}{level}{oracle}; {found['threads']} threads)")
    table = []
    for name, result in found["peers"].items():
        if not result["trials"]:
            table.append([name, "-", "-", "-", result["reason"]])
            continue
        error, to_success = result["median_error"], result["median_seconds_to_success"]
        rate = f"{result['success_rate']:.0%}" if found["success"] else "-"
        cells = [rate, "not finite" if error is None else f"{error:.4g}", f"{result['median_seconds']:.2f}"]
        table.append([name, *cells, "-" if to_success is None else f"{to_success:.2f}"])
    print_table(["peer", "solved", "median", "median s", "s to solved"], table)


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


@click.command()
@click.option("--case", "names", type=click.Choice(["c", "d", "e", "f-small", "f"]), multiple=True, required=True)
@click.option("--peers", default=",".join(PEERS), show_default=True, help="Names, with commas between.")
@click.option("--trials", default=5, show_default=True, help="Problems of each kind in c and d; one of the others.")
@click.option(
    "--threads", type=int, help="1 for c and d, where 2 wait for each other, and 2 for e and f, unless given."
)
@click.option("--limit", type=float, help="Seconds after which a solver that reports its progress is stopped.")
@click.option("--seed", default=0, show_default=True, help="Of the first trial.")
@click.option("--no-save", is_flag=True, help="Write no result.")
def main(
    names: tuple[str, ...], peers: str, trials: int, threads: int | None, limit: float | None, seed: int, no_save: bool
) -> None:
    """Run peers on cases, print tables, write results/peers_<case>.json."""
    chosen = tuple(peers.split(","))
    unknown = set(chosen) - set(PEERS)
    if unknown:
        raise click.BadParameter(f"{', '.join(sorted(unknown))}; known: {', '.join(PEERS)}", param_hint="--peers")
    for name in names:
        asked = [replace(q, limit=limit or q.limit, threads=threads or q.threads) for q in questions(name)]
        found = [run(question, chosen, trials, seed) for question in asked]
        for one in found:
            table_of(one)
        if not no_save:
            write_result(f"peers_{name}", {"versions": _versions(), "trials": trials, "seed": seed, "questions": found})


if __name__ == "__main__":
    main()
