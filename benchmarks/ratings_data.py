"""The MovieLens-100K ratings, for benchmarks and tests: fetched once, kept outside the repository."""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

_PACKAGE = "recbole==1.2.1"  # its wheel ships the 100,000 ratings as a sample of a file format
_MEMBER = "recbole/dataset_example/ml-100k/ml-100k."


class NotToBeHad(Exception):  # noqa: N818
    """The ratings are not in the cache and cannot be fetched."""


def movielens_100k(what: str = "inter") -> Path:
    """File with the ratings of 943 users for 1,682 films ("inter"), or what is known of each "user" and each "item".

    They may not be redistributed: pip fetches a package with them.
    """
    cache = Path(
        os.environ.get("DMF_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dmf"
    )
    path = cache / f"ml-100k.{what}"
    if path.is_file():
        return path
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, _PACKAGE]
        fetched = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if fetched.returncode or not wheels:
            reason = (fetched.stderr.strip().splitlines() or ["no wheel was found"])[-1]
            raise NotToBeHad(f"cannot fetch MovieLens-100K with `pip download {_PACKAGE}`: {reason}")
        with zipfile.ZipFile(wheels[0]) as archive:
            content = archive.read(f"{_MEMBER}{what}")
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)
    return path
