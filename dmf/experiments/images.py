"""Labelled images: FashionMNIST from its files, and scikit-learn's digits, which need no download."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from dmf.errors import FileError, MissingPackageError
from dmf.io.idx import read_idx
from dmf.nonlinear import Samples

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
_SOURCE = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
_CHECKSUMS = {  # as the authors publish them
    "train-images-idx3-ubyte.gz": "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "md5:25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "md5:bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "md5:bb300cfdad3c16e7a12a480ee83cd310",
}
_DIGITS_TRAINED = 1_400


def fashion_mnist(folder: Path | None = None, *, square: bool = False) -> tuple[Samples, Samples]:
    """FashionMNIST: 60,000 images of clothes to train on, 10,000 to test, in ten classes.

    Parameters
    ----------
    folder : path, optional
        With the four IDX files, plain or gzipped; any images in files of these names will do. Unless given, that of the Debian
        package dataset-fashion-mnist, or else the user's cache folder, into which they are fetched once.
    square : bool
        Refuse images that are not as high as they are wide, as rows do not tell.

    Returns
    -------
    train, test : Samples
        Images as rows of float32 in [0, 1].

    Raises
    ------
    FileError
        If the files cannot be found, fetched or read, or do not hold images of one size, square where that is asked for.
    MissingPackageError
        If they must be fetched and the package pooch is not installed.

    References
    ----------
    .. [1] Xiao, Rasul, Vollgraf, arXiv 1708.07747.
    """
    if folder is None:
        folder = DEBIAN_FOLDER if DEBIAN_FOLDER.is_dir() else _fetched()
    train, test = _read(folder, "train", square), _read(folder, "t10k", square)
    if train.inputs.shape[1] != test.inputs.shape[1]:
        raise FileError(
            f"cannot use {folder}: images of 'train' have {train.inputs.shape[1]} pixels, those of 't10k' "
            f"{test.inputs.shape[1]}. Pass the files of one data set."
        )
    return train, test


def digits() -> tuple[Samples, Samples]:
    """Handwritten digits of 8 x 8 pixels that scikit-learn holds: 1,400 to train on, 397 to test.

    Returns
    -------
    train, test : Samples
        Images as rows of float32 in [0, 1], in one fixed random order.

    Raises
    ------
    MissingPackageError
        If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingPackageError(
            "the digits need the package scikit-learn. Run: pip install 'dmf[sklearn]'"
        ) from error
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    samples = Samples((images[order] / 16).astype(np.float32), labels[order])
    return samples.take(np.arange(_DIGITS_TRAINED)), samples.take(np.arange(_DIGITS_TRAINED, len(labels)))


def class_count(*sets: Samples) -> int:
    """Number of classes: one more than the largest label in any of the sets."""
    return 1 + max(int(samples.targets.max()) for samples in sets)


def _read(folder: Path, part: str, square: bool) -> Samples:
    images, labels = (
        read_idx(_file(folder, f"{part}-{kind}-idx{dimensions}-ubyte"), dimensions)
        for kind, dimensions in (("images", 3), ("labels", 1))
    )
    if len(images) != len(labels):
        raise FileError(
            f"cannot use {folder}: {len(images)} images but {len(labels)} labels in the files of {part!r}. Pass the files of one "
            "data set."
        )
    height, width = images.shape[1:]
    if square and height != width:
        raise FileError(
            f"cannot use {folder}: the images of {part!r} have {height} x {width} pixels, but square ones are needed, as they "
            "are rotated. Pad or crop them first."
        )
    rows = images.reshape(len(images), -1).astype(np.float32)
    rows /= 255
    return Samples(rows, labels.astype(np.int64))


def _file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileError(
        f"cannot find {name} or {name}.gz in {folder}. Pass a folder with the four IDX files of FashionMNIST: "
        f"{', '.join(_CHECKSUMS)}."
    )


def _fetched() -> Path:
    """Folder in the user's cache with the four files; fetched and checked where they are missing."""
    try:
        import pooch
    except ImportError as error:
        raise MissingPackageError(
            "FashionMNIST must be fetched, which needs the package pooch. Run: pip install 'dmf[data]', or install the Debian "
            f"package dataset-fashion-mnist, or pass a folder with {', '.join(_CHECKSUMS)}."
        ) from error
    cache = Path(
        os.environ.get("DMF_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dmf"
    )
    folder = cache / "fashion-mnist"
    try:
        fetcher = pooch.create(folder, _SOURCE, registry=_CHECKSUMS)
        for name in _CHECKSUMS:
            fetcher.fetch(name)
    except (OSError, ValueError) as error:  # no network, or a wrong checksum
        raise FileError(
            f"cannot fetch FashionMNIST from {_SOURCE}: {error}. Install the Debian package dataset-fashion-mnist, or pass a "
            f"folder with {', '.join(_CHECKSUMS)}."
        ) from error
    return folder
