"""How well are the holes of standard tables filled, beside the imputers that people use?

    python benchmarks/imputation.py --tables base
    python benchmarks/imputation.py --tables further,uci --shares 0.3 --seeds 1 --uci FOLDER
    python benchmarks/imputation.py --tables mixed --shares 0.1,0.3 --seeds 1
    python benchmarks/imputation.py --tables uci,iris,wine --shares 0.3 --masks MCAR,MAR,MNAR --seeds 3 --uci FOLDER

Tables of numbers: error is the root mean square over the removed cells, each column in units of its standard deviation (1 is
about what the mean of the column gives), and the mean absolute error; means over the seeds. All imputers get columns
standardised by what is there, and have their defaults; soft-impute gets the best of PENALTIES on a tenth of the entries held out.
Masks: a share s of the cells is removed at random (MCAR); a cell is removed with probability 2 s r, r in (0, 1) the share of
smaller values in the first column, which stays whole (MAR), or in its own column (MNAR).
gcimpute runs if it is installed. Its version 0.0.4 needs a name that NumPy 2 does not have, and gets it here; where it fails,
there are column means in its place.
Mixed tables: root mean square over the removed numbers, and share of removed categories that are wrong, beside forests.
"""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from cases import print_table, write_result
from imputation_tables import BASE, FURTHER, MIXED, UCI, mixed, numbers, removed
from peers import soft_impute
from peers.common import limited
from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

import dmf

SETS = {"base": BASE, "uci": tuple(f"uci/{name}" for name in UCI), "further": FURTHER, "mixed": MIXED}
PENALTIES = np.geomspace(30, 0.3, 9)
THREADS = 1  # the tables are small
TREES, ROUNDS = 50, 4


def by_soft_impute(holed: np.ndarray) -> np.ndarray:
    """SoftImpute, its penalty chosen on held-out entries."""
    seen = np.argwhere(~np.isnan(holed))
    order = np.random.default_rng(0).permutation(len(seen))
    cut = len(seen) // 10
    held, kept = seen[order[:cut]], seen[order[cut:]]

    def filled(index: np.ndarray, penalty: float) -> np.ndarray:
        case = {
            "rows": index[:, 0].astype(np.int32), "cols": index[:, 1].astype(np.int32), "values": holed[tuple(index.T)],
            "shape": holed.shape,
        }  # fmt: skip
        most = min(holed.shape) - 1
        left, right, _ = soft_impute.solve(
            case, most, threads=THREADS, penalty=penalty, first_penalty=1.0, steps=2, iterations=200, tolerance=1e-4
        )
        return left @ right.T

    errors = [np.mean((filled(kept, p) - holed)[tuple(held.T)] ** 2) for p in PENALTIES]
    return filled(seen, PENALTIES[int(np.argmin(errors))])


def by_trees(holed: np.ndarray) -> np.ndarray:
    """A forest of extremely randomised trees for each column, in turn."""
    forest = ExtraTreesRegressor(TREES, random_state=0)
    return IterativeImputer(forest, max_iter=ROUNDS, random_state=0, keep_empty_features=True).fit_transform(holed)


def by_gcimpute(holed: np.ndarray) -> np.ndarray:
    """A Gaussian copula (Zhao and Udell)."""
    from gcimpute.gaussian_copula import GaussianCopula

    np.round_ = np.round  # noqa: NPY003, NPY201
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it fails at
            return GaussianCopula(random_state=0, verbose=0).fit_transform(X=holed)
    except ValueError:
        return SimpleImputer(keep_empty_features=True).fit_transform(holed)


IMPUTERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "complete_table": lambda holed: dmf.complete_table(holed).filled(),
    "complete": lambda holed: dmf.complete(holed, offsets=False).filled(),
    "SoftImpute": by_soft_impute,
    "IterativeImputer": lambda holed: IterativeImputer(random_state=0, keep_empty_features=True).fit_transform(holed),
    "ExtraTrees": by_trees,
    **({"gcimpute": by_gcimpute} if find_spec("gcimpute") else {}),
    "KNNImputer": lambda holed: KNNImputer(keep_empty_features=True).fit_transform(holed),
    "mean": lambda holed: SimpleImputer(keep_empty_features=True).fit_transform(holed),
}


def by_forests(holed: pd.DataFrame) -> pd.DataFrame:
    """In the manner of missForest: a forest for each column, from those with the fewest holes on, over and over."""
    filled = holed.copy()
    for name in holed:
        categories = isinstance(holed[name].dtype, pd.CategoricalDtype)
        filled[name] = holed[name].fillna(holed[name].mode()[0] if categories else holed[name].mean())
    for _ in range(ROUNDS):
        for name in holed.isna().sum().sort_values().index:
            gone = holed[name].isna().to_numpy()
            if gone.any() and not gone.all():
                kind = (
                    RandomForestClassifier
                    if isinstance(holed[name].dtype, pd.CategoricalDtype)
                    else RandomForestRegressor
                )
                others = pd.get_dummies(filled.drop(columns=name)).to_numpy(float)
                forest = kind(TREES, random_state=0).fit(others[~gone], holed[name][~gone].to_numpy())
                filled.loc[gone, name] = forest.predict(others[gone])
    return filled


def by_most_common(holed: pd.DataFrame) -> pd.DataFrame:
    """Means and most frequent categories."""
    return holed.apply(lambda c: c.fillna(c.mode()[0] if isinstance(c.dtype, pd.CategoricalDtype) else c.mean()))


MIXED_IMPUTERS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "complete_table": lambda holed: dmf.complete_table(holed).filled(),
    "forests": by_forests,
    "mean, mode": by_most_common,
}


def measure_numbers(
    full: np.ndarray, share: float, mask: str, seed: int, imputers: list[str]
) -> dict[str, dict[str, float]]:
    """Errors and seconds of each imputer on one table with a share of its entries removed."""
    gone = removed(full, share, mask, seed)
    holed = np.where(gone, np.nan, full)
    center, spread = np.nan_to_num(np.nanmean(holed, axis=0)), np.nan_to_num(np.nanstd(holed, axis=0), nan=1.0)
    spread[spread == 0] = 1
    found = {}
    for imputer in imputers:
        units = (holed - center) / spread
        begin = time.perf_counter()
        off = np.nan_to_num(IMPUTERS[imputer](units)) * spread + center - full
        seconds = time.perf_counter() - begin
        found[imputer] = {
            "error": float(np.sqrt(np.mean(off[gone] ** 2))), "absolute": float(np.mean(np.abs(off[gone]))), "seconds": seconds,
        }  # fmt: skip
    return found


def covered(full: np.ndarray, share: float, seed: int) -> tuple[int, int]:
    """Removed cells within 90 % intervals, and all removed cells."""
    gone = removed(full, share, "MCAR", seed)
    low, high = dmf.complete_table(np.where(gone, np.nan, full)).intervals(0.9)
    return int(np.sum(((low <= full) & (full <= high))[gone])), int(gone.sum())


def measure_mixed(full: pd.DataFrame, share: float, seed: int) -> dict[str, dict[str, float]]:
    """Error of numbers, share of wrong categories and seconds of each imputer."""
    gone = np.random.default_rng(seed).random(full.shape) < share
    holed = full.mask(gone)
    found = {}
    for imputer, fill in MIXED_IMPUTERS.items():
        begin = time.perf_counter()
        filled = fill(holed)
        seconds = time.perf_counter() - begin
        squares, wrong = [], []
        for j, name in enumerate(full):
            lost = gone[:, j]
            if isinstance(full[name].dtype, pd.CategoricalDtype):
                wrong.append((filled[name].astype(str) != full[name].astype(str))[lost])
            else:
                squares.append((((filled[name] - full[name]) / full[name].std(ddof=0)) ** 2)[lost])
        found[imputer] = {
            "error": float(np.sqrt(np.concatenate(squares).mean())), "wrong": float(np.concatenate(wrong).mean()),
            "seconds": seconds,
        }  # fmt: skip
    return found


def averaged(runs: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Means over the seeds, and the standard deviation of the error."""
    result = {}
    for imputer in runs[0]:
        result[imputer] = {key: float(np.mean([run[imputer][key] for run in runs])) for key in runs[0][imputer]}
        result[imputer]["spread"] = float(np.std([run[imputer]["error"] for run in runs]))
    return result


def show(results: dict[str, dict[str, dict[str, float]]], key: str) -> None:
    """A table of one kind of error, the best marked, and in how many cases the first imputer is better than each."""
    names = list(next(iter(results.values())))
    rows: list[list[Any]] = []
    for case, found in results.items():
        best = min(run[key] for run in found.values())
        rows.append([case, *(f"{run[key]:.3f}{'*' if run[key] == best else ' '}" for run in found.values())])
    wins = [sum(found[names[0]][key] < found[name][key] for found in results.values()) for name in names[1:]]
    rows.append(["cases where dmf is better", "-", *(f"{n} of {len(results)}" for n in wins)])
    rows.append(
        ["seconds", *(f"{np.mean([found[name]['seconds'] for found in results.values()]):.2f} " for name in names)]
    )
    print_table([f"{key} (* best)", *names], rows)


@click.command()
@click.option(
    "--tables", default="base", show_default=True, help=f"Names or sets ({', '.join(SETS)}), with commas between."
)
@click.option("--shares", default="0.1,0.3,0.5", show_default=True, help="Shares of the entries removed.")
@click.option("--masks", default="MCAR", show_default=True, help="MCAR, MAR, MNAR.")
@click.option("--seeds", default=5, show_default=True, help="Patterns of removed entries for each share.")
@click.option(
    "--coverage",
    is_flag=True,
    help="Only count how many of the removed cells lie in 90 % intervals; print, write nothing.",
)
@click.option("--without", default="", help="Imputers left out, with commas between.")
@click.option("--uci", type=click.Path(exists=True, path_type=Path), envvar="DMF_UCI", help="Folder of the UCI tables.")
@click.option("--save", default=None, help="Name of the result; by default imputation, or imputation_mixed.")
@click.option("--no-save", is_flag=True, help="Write no result.")
def main(tables, shares, masks, seeds, coverage, without, uci, save, no_save) -> None:
    """Fill all tables by all imputers, print tables of errors, write results/imputation.json."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    names = [name for part in tables.split(",") for name in SETS.get(part, (part,))]
    imputers = [name for name in IMPUTERS if name not in without.split(",")]
    of_numbers, of_both = {}, {}
    if coverage:
        parts = [
            covered(numbers(name, uci), share, seed)
            for name in names
            for share in map(float, shares.split(","))
            for seed in range(seeds)
        ]
        inside, cells = np.sum(parts, axis=0)
        print(f"{inside / cells:.1%} of {cells:,} removed cells lie in 90 % intervals")
        return
    with dmf.threads(THREADS), limited(THREADS):
        for name in names:
            for share in map(float, shares.split(",")):
                if name in MIXED:
                    full = mixed(name)
                    of_both[f"{name}, {share:.0%}"] = averaged(
                        [measure_mixed(full, share, seed) for seed in range(seeds)]
                    )
                    print(name, share, flush=True)
                    continue
                for mask in masks.split(","):
                    table = numbers(name, uci)
                    runs = [measure_numbers(table, share, mask, seed, imputers) for seed in range(seeds)]
                    of_numbers[f"{name}, {share:.0%} {mask}"] = averaged(runs)
                    print(name, share, mask, {k: round(v["error"], 3) for k, v in averaged(runs).items()}, flush=True)
    for found, keys, file in (
        (of_numbers, ("error", "absolute"), save or "imputation"),
        (of_both, ("error", "wrong"), save or "imputation_mixed"),
    ):
        for key in keys if found else ():
            show(found, key)
        if found and not no_save:
            write_result(file, {"seeds": seeds, "threads": THREADS, "trees": TREES, "rounds": ROUNDS, "cases": found})


if __name__ == "__main__":
    main()
