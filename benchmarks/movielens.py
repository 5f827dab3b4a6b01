"""How well are the ratings of MovieLens-100K predicted without a number chosen, beside other programs tuned for them?

    python benchmarks/movielens.py
    python benchmarks/movielens.py --peers none --seeds 1
    python benchmarks/movielens.py --published u1.base u1.test --features --time

943 x 1,682, 100,000 ratings from 1 to 5; a random fifth is the test set, once for each seed. `dmf.complete(observations)` is
called with no option and looks at nothing but the other four fifths; its seconds include the choice of the model.
Predictions of all programs are clipped to 1..5. The options of the peers (PEERS) were tuned on the test set of a split that
is not among those reported, which favours them. Intervals: a tenth of the training ratings calibrates a fit to the rest. The
folds are those of a five-fold cross-validation, for comparison with numbers that other projects publish. `--published` fits and
tests on a split in files, such as u1 of the data's authors; `--features` then adds age, gender, occupation and zip code of users,
year and genres of films, `--time` when ratings were given. This is known of those to be predicted, too; most were given within
seconds of others by the same user.

The ratings may not be redistributed: they are fetched once, see `ratings_data.py`.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy as np
from cases import print_table, write_result
from peers.common import limited

import dmf
from dmf.arrays.threads import thread_count
from dmf.models.offsets import fit_offsets

from ratings_data import NotToBeHad, movielens_100k

SHAPE, LOW, HIGH, FOLDS, COVERAGE = (943, 1_682), 1, 5, 5, 0.9
THREADS = min(2, thread_count())
PEERS: dict[str, dict[str, Any]] = {
    "soft_impute": {"rank": 30, "penalty": 15.0, "steps": 2, "bias": True, "iterations": 60, "tolerance": 1e-3},
    "als": {"rank": 10, "ridge": 14.0, "bias": True, "tolerance": 1e-3},
    "cornac_mf": {"rank": 40, "ridge": 0.05, "rate": 0.01, "bias": True, "iterations": 36},
    "cmfrec_als": {"rank": 10, "ridge": 12.0, "bias": True, "iterations": 15},
    "lenskit_als": {"rank": 25, "ridge": 0.15, "iterations": 10},
    "libmf_sgd": {"rank": 20, "ridge": 0.12, "rate": 0.05, "bias": True, "iterations": 40},
}
PACKAGES = ("cornac", "cmfrec", "lenskit", "libmf")

Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # rows, columns, values and times
Split = tuple[np.ndarray, np.ndarray]  # indices of training and of test ratings


def ratings(path: str | Path | None = None, header: int = 1) -> Data:
    """All ratings, or those of a file."""
    path = movielens_100k() if path is None else path
    users, films, values, times = np.loadtxt(path, skiprows=header, usecols=(0, 1, 2, 3), unpack=True)
    return users.astype(np.int32) - 1, films.astype(np.int32) - 1, values, times


def split_in_files(paths: tuple[str, str]) -> tuple[Data, Split]:
    """All ratings of a training and a test set, and which are which."""
    parts = [ratings(path, header=0) for path in paths]
    count = parts[0][2].size
    users, films, values, times = (np.concatenate(pair) for pair in zip(*parts, strict=True))
    return (users, films, values, times), (np.arange(count), np.arange(count, values.size))


def features() -> dict[str, Any]:
    """What is known of users and of films, by position."""
    users, films = (
        [line.split("\t") for line in movielens_100k(what).read_text("utf-8", "replace").splitlines()[1:]]
        for what in ("user", "item")
    )
    names = ("age", "gender", "occupation", "zip code")
    return {
        "row_features": {
            int(key) - 1: dict(zip(names, (float(age), *others), strict=True)) for key, age, *others in users
        },
        "column_features": {
            int(key) - 1: {"year": float(year) if year.isdecimal() else None, "genres": genres.replace(" ", "|")}
            for key, _, year, genres in films
        },
    }


def random_splits(count: int, seeds: int) -> Iterator[Split]:
    """A random fifth as the test set, once for each seed."""
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(count)
        yield order[count // 5 :], order[: count // 5]


def folds(count: int) -> Iterator[Split]:
    """Five-fold cross-validation."""
    parts = np.array_split(np.random.default_rng(0).permutation(count), FOLDS)
    for k, test in enumerate(parts):
        yield np.concatenate([part for other, part in enumerate(parts) if other != k]), test


def observed(data: Data, index: np.ndarray, with_times: bool = False) -> dmf.SampledEntries:
    """Some of the ratings."""
    rows, cols, values, times = (array[index] for array in data)
    return dmf.SampledEntries(rows, cols, values, SHAPE, times=times if with_times else None)


def errors(data: Data, test: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Root mean square and mean absolute error of predictions, clipped."""
    off = np.clip(predicted, LOW, HIGH) - data[2][test]
    return {"rmse": float(np.sqrt(np.mean(off**2))), "mae": float(np.mean(np.abs(off)))}


def by_default(
    data: Data, split: Split, known: dict[str, Any] | None = None, with_times: bool = False
) -> dict[str, float]:
    """`dmf.complete` with its defaults, and what is known besides ratings: errors, seconds, and the rank that it found."""
    train, test = split
    observations = observed(data, train, with_times)
    begin = time.perf_counter()
    recovery = dmf.complete(observations, **(known or {}))
    seconds = time.perf_counter() - begin
    rows, cols, _, times = (array[test] for array in data)
    found = errors(data, test, recovery.predict(rows, cols, times))
    return found | {"seconds": seconds, "rank": recovery.found.rank}


def offsets_alone(data: Data, split: Split) -> dict[str, float]:
    """Mean, row and column offsets."""
    train, test = split
    begin = time.perf_counter()
    left, right = fit_offsets(observed(data, train)).factors()
    seconds = time.perf_counter() - begin
    return errors(data, test, np.sum(left[data[0][test]] * right.T[data[1][test]], axis=1)) | {"seconds": seconds}


def by_peer(name: str, data: Data, split: Split, seed: int) -> dict[str, float]:
    """A peer with its tuned options."""
    train, test = split
    rows, cols, values = (array[train] for array in data[:3])
    case = {"rows": rows, "cols": cols, "values": values, "shape": SHAPE}
    module = importlib.import_module(f"peers.{name}")
    left, right, seconds = module.solve(case, threads=THREADS, seed=seed, **PEERS[name])
    return errors(data, test, np.sum(left[data[0][test]] * right[data[1][test]], axis=1)) | {"seconds": seconds}


def intervals(data: Data, split: Split, seed: int) -> dict[str, float]:
    """Coverage of test ratings by intervals calibrated within the training ratings, and their width over the error."""
    train, test = split
    kept, held = observed(data, train).split(0.1, seed)
    recovery = dmf.calibrate(dmf.complete(kept), held)
    rows, cols, values = (array[test] for array in data[:3])
    low, high = dmf.prediction_interval(recovery, rows, cols, COVERAGE)
    rmse = errors(data, test, recovery.predict(rows, cols))["rmse"]
    return {
        "coverage": float(np.mean((low <= values) & (values <= high))),
        "width_over_rmse": float(np.mean(high - low)) / rmse,
        "clipped_width_over_rmse": float(np.mean(np.clip(high, LOW, HIGH) - np.clip(low, LOW, HIGH))) / rmse,
        "rmse": rmse,
    }


def summary(runs: list[dict[str, float]]) -> dict[str, float]:
    """Mean of every number, and the standard deviation of the errors over the runs."""
    found = {key: float(np.mean([run[key] for run in runs])) for key in runs[0]}
    return found | {
        f"{key}_spread": float(np.std([run[key] for run in runs])) for key in ("rmse", "coverage") if key in found
    }


def installed_peers(names: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Peers that can be run, and why the others cannot."""
    reasons = {name: importlib.import_module(f"peers.{name}").available() for name in names}
    return [name for name in names if reasons[name][0]], {
        n: reason for n, (usable, reason) in reasons.items() if not usable
    }


def version(package: str) -> str | None:
    """Of an installed package."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@click.command()
@click.option("--peers", default=",".join(PEERS), show_default=True, help='Names, with commas between; or "none".')
@click.option("--seeds", default=5, show_default=True, help="Random splits.")
@click.option("--published", nargs=2, type=click.Path(exists=True), help="Training and test set: this split alone.")
@click.option(
    "--features", "with_features", is_flag=True, help="With --published: what is known of users and films, too."
)
@click.option("--time", "with_times", is_flag=True, help="With --published: when the ratings were given, too.")
@click.option("--no-save", is_flag=True, help="Write no result.")
@dmf.threads(THREADS)
def main(
    peers: str, seeds: int, published: tuple[str, str] | None, with_features: bool, with_times: bool, no_save: bool
) -> None:
    """Run all on every split, print tables, write results/movielens.json."""
    if published is not None:
        found = by_default(*split_in_files(published), features() if with_features else None, with_times)
        return print(
            f"RMSE {found['rmse']:.4f}, MAE {found['mae']:.4f}, {found['seconds']:.2f} s, rank {found['rank']}"
        )
    names = () if peers == "none" else tuple(peers.split(","))
    if set(names) - set(PEERS):
        raise click.BadParameter(f"known are {', '.join(PEERS)}", param_hint="--peers")
    try:
        data = ratings()
    except NotToBeHad as error:
        return print(f"skipped: {error}")
    usable, missing = installed_peers(names)
    splits = list(random_splits(len(data[2]), seeds))
    with limited(THREADS):
        for name in usable:  # kernels are compiled before anything is timed
            by_peer(name, data, splits[0], 0)
        by_default(data, splits[0])
        programs = {"dmf.complete, defaults": summary([by_default(data, split) for split in splits])}
        for what, more in (
            ("features", (features(),)),
            ("time", (None, True)),
            ("features and time", (features(), True)),
        ):
            programs[f"dmf.complete, with {what}"] = summary([by_default(data, split, *more) for split in splits])
        for name in usable:
            programs[name] = summary([by_peer(name, data, split, seed) for seed, split in enumerate(splits)])
        programs["offsets alone"] = summary([offsets_alone(data, split) for split in splits])
        covered = summary([intervals(data, split, seed) for seed, split in enumerate(splits)])
        folded = summary([by_default(data, split) for split in folds(len(data[2]))])
    print(f"MovieLens-100K, 80/20, {seeds} splits, {THREADS} threads")
    keys = ("rmse", "rmse_spread", "mae", "seconds")
    lines = [
        [name, *(f"{found[key]:.4f}" for key in keys[:3]), f"{found['seconds']:.2f}"]
        for name, found in programs.items()
    ]
    print_table(["program", "RMSE", "+-", "MAE", "seconds"], lines)
    for name, reason in missing.items():
        print(f"{name}: {reason}")
    print(
        f"rank {programs['dmf.complete, defaults']['rank']:.1f}; five folds: RMSE {folded['rmse']:.4f}, MAE {folded['mae']:.4f}"
    )
    print(
        f"intervals for {COVERAGE:.0%}: coverage {covered['coverage']:.2%} +- {covered['coverage_spread']:.2%}, width "
        f"{covered['width_over_rmse']:.3f} RMSE ({covered['clipped_width_over_rmse']:.3f} within {LOW} to {HIGH})"
    )
    if not no_save:
        write_result(
            "movielens",
            {"seeds": seeds, "threads": THREADS, "versions": {package: version(package) for package in PACKAGES},
             "programs": programs, "options": {name: PEERS[name] for name in usable}, "missing": missing,
             "intervals": covered, "five_folds": folded},
        )  # fmt: skip
    return None


if __name__ == "__main__":
    main()
