"""How well are the holes of small standard tables filled, beside the imputers that people use?

    python benchmarks/imputation.py

Tables of scikit-learn without their targets; a random share of the entries is removed. Error: root mean square over the removed
entries, each column in units of its standard deviation (1 is about what the mean of the column gives), means over the seeds.
`DeepMatrixCompletion` and scikit-learn's imputers have their defaults, and all get columns standardised by what is there;
soft-impute gets the best of PENALTIES on a tenth of the entries held out.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import click
import numpy as np
from cases import print_table, write_result
from peers import soft_impute
from peers.common import limited
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

import dmf
from dmf.estimators import DeepMatrixCompletion

TABLES = ("iris", "wine", "diabetes", "breast_cancer", "digits")
SHARES = (0.1, 0.3, 0.5)
PENALTIES = np.geomspace(30, 0.3, 9)
THREADS = 1  # the tables are small


def table(name: str) -> np.ndarray:
    """Columns of a table that are not constant, in units of their standard deviation."""
    data = getattr(datasets, f"load_{name}")().data
    spread = data.std(axis=0)
    return (data[:, spread > 0] - data.mean(axis=0)[spread > 0]) / spread[spread > 0]


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


IMPUTERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "DeepMatrixCompletion": lambda holed: DeepMatrixCompletion().fit_transform(holed),
    "SoftImpute": by_soft_impute,
    "IterativeImputer": lambda holed: IterativeImputer(random_state=0, keep_empty_features=True).fit_transform(holed),
    "KNNImputer": lambda holed: KNNImputer(keep_empty_features=True).fit_transform(holed),
    "mean": lambda holed: SimpleImputer(keep_empty_features=True).fit_transform(holed),
}


def measure(name: str, share: float, seeds: int) -> dict[str, dict[str, float]]:
    """Error and seconds of each imputer on one table with a share of its entries removed."""
    full, found = table(name), {imputer: {"error": [], "seconds": []} for imputer in IMPUTERS}
    for seed in range(seeds):
        removed = np.random.default_rng(seed).random(full.shape) < share
        holed = np.where(removed, np.nan, full)
        center = np.nan_to_num(np.nanmean(holed, axis=0))
        spread = np.nan_to_num(np.nanstd(holed, axis=0), nan=1.0)
        spread[spread == 0] = 1
        for imputer, fill in IMPUTERS.items():
            begin = time.perf_counter()
            filled = fill((holed - center) / spread) * spread + center
            found[imputer]["seconds"].append(time.perf_counter() - begin)
            found[imputer]["error"].append(np.sqrt(np.mean((filled - full)[removed] ** 2)))
    return {
        imputer: {"error": float(np.mean(runs["error"])), "spread": float(np.std(runs["error"])),
                  "seconds": float(np.median(runs["seconds"]))}
        for imputer, runs in found.items()
    }  # fmt: skip


@click.command()
@click.option("--tables", default=",".join(TABLES), show_default=True, help="Names, with commas between.")
@click.option("--seeds", default=5, show_default=True, help="Patterns of removed entries for each share.")
@click.option("--no-save", is_flag=True, help="Write no result.")
@dmf.threads(THREADS)
def main(tables: str, seeds: int, no_save: bool) -> None:
    """Fill all tables by all imputers, print a table, write results/imputation.json."""
    warnings.simplefilter("ignore", ConvergenceWarning)
    results = {}
    with limited(THREADS):
        for name in tables.split(","):
            for share in SHARES:
                results[f"{name}, {share:.0%} removed"] = measure(name, share, seeds)
                print(name, share, flush=True)
    rows = []
    for case, found in results.items():
        best = min(run["error"] for run in found.values())
        rows.append([case, *(f"{r['error']:.3f}{'*' if r['error'] == best else ' '}" for r in found.values())])
    means = [float(np.mean([found[name]["error"] for found in results.values()])) for name in IMPUTERS]
    rows.append(["mean of all", *(f"{mean:.3f} " for mean in means)])
    ours = next(iter(IMPUTERS))
    wins = [sum(found[ours]["error"] < found[name]["error"] for found in results.values()) for name in IMPUTERS]
    rows.append(["cases where dmf is better", "-", *(f"{n} of {len(results)}" for n in wins[1:])])
    seconds = [float(np.mean([found[name]["seconds"] for found in results.values()])) for name in IMPUTERS]
    rows.append(["seconds", *(f"{second:.2f} " for second in seconds)])
    print_table(["table (* best)", *IMPUTERS], rows)
    if not no_save:
        write_result("imputation", {"seeds": seeds, "threads": THREADS, "cases": results})


if __name__ == "__main__":
    main()
