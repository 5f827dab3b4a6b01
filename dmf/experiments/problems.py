"""Problems of the paper: targets, masks, measurements, and the MovieLens ratings."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from dmf.errors import FileError
from dmf.io.archive import write_atomically
from dmf.observations import LinearMeasurements, SampledEntries

_MOVIELENS_PACKAGE = "recbole==1.2.1"  # its wheel ships the 100,000 ratings as a sample of a file format
_MOVIELENS_MEMBER = "recbole/dataset_example/ml-100k/ml-100k.inter"


def paper_target(d: int, rank: int, seed: int) -> np.ndarray:
    """Matrix (d, d) of the given rank whose singular values lie evenly in the top half of a Gaussian matrix's spectrum.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), experiments.
    """
    u, s, vt = np.linalg.svd(np.random.default_rng(seed).standard_normal((d, d)))
    chosen = np.arange(0, d / 2, d / (2 * rank)).astype(int)[:rank]
    return (u[:, chosen] * s[chosen]) @ vt[chosen]


def sample_entries(target: np.ndarray, share: float, seed: int) -> tuple[SampledEntries, SampledEntries]:
    """A share of the entries of `target`, drawn without replacement, and the others."""
    order = np.random.default_rng([seed, 1]).permutation(target.size)
    count = round(share * target.size)

    def entries(index):
        rows, cols = np.divmod(index, target.shape[1])
        return SampledEntries(rows, cols, target[rows, cols], target.shape)

    return entries(order[:count]), entries(order[count:])


def gaussian_measurements(target: np.ndarray, count: int, seed: int) -> LinearMeasurements:
    """Inner products of `target` with `count` matrices of independent standard normal entries over `count`."""
    matrices = np.random.default_rng([seed, 2]).standard_normal((count, *target.shape))
    matrices /= count
    return LinearMeasurements(matrices, matrices.reshape(count, -1) @ target.ravel())


def movielens_100k() -> Path:
    """File with the MovieLens-100K ratings (943 users, 1,682 films), fetched once and kept in the user's cache folder.

    The ratings may not be redistributed, so they are not part of dmf; pip fetches a package that holds them.

    Raises
    ------
    FileError
        If they are not in the cache and cannot be fetched.
    """
    cache = cache_folder()
    path = cache / "ml-100k.inter"
    if path.is_file():
        return path
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            folder,
            _MOVIELENS_PACKAGE,
        ]
        fetched = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if fetched.returncode or not wheels:
            reason = (fetched.stderr.strip().splitlines() or ["no wheel was found"])[-1]
            raise FileError(
                f"cannot fetch the MovieLens-100K ratings with `pip download {_MOVIELENS_PACKAGE}`: {reason}. Put "
                f"ml-100k.inter (user id, item id, rating; tab-separated, one header line) at {path}, or pass it with --data."
            )
        with zipfile.ZipFile(wheels[0]) as archive:
            ratings = archive.read(_MOVIELENS_MEMBER)
    cache.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(ratings))
    return path


def cache_folder() -> Path:
    """The user's folder for data fetched once; it may not exist yet."""
    return Path(os.environ.get("DMF_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dmf")
