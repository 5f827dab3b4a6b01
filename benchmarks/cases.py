"""Problems that the benchmarks run on, the machine they ran on, and where results go. Imports NumPy only."""

from __future__ import annotations

import datetime
import json
import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
_BLOCK = 100_000  # samples worked on at a time, so that generating a problem never needs more memory than solving it


def paper_target(seed: int, d: int, rank: int) -> np.ndarray:
    """Matrix (d, d) of the paper: singular values taken evenly from the top half of the spectrum of a Gaussian one."""
    u, s, vt = np.linalg.svd(np.random.default_rng(seed).standard_normal((d, d)))
    chosen = np.arange(0, d / 2, d / (2 * rank)).astype(int)
    return (u[:, :rank] * s[chosen]) @ vt[:rank]


def uniform_mask(seed: int, shape: tuple[int, int], count: int) -> np.ndarray:
    """Boolean matrix with exactly `count` entries seen."""
    mask = np.zeros(shape[0] * shape[1], bool)
    mask[np.random.default_rng([seed, 1]).permutation(mask.size)[:count]] = True
    return mask.reshape(shape)


def sampled_low_rank(
    seed: int, shape: tuple[int, int], rank: int, oversampling: float, condition: float | None = None
) -> dict[str, Any]:
    """Entries, without repetition, of a low-rank matrix X = u v^T whose entries have root mean square 1.

    Parameters
    ----------
    seed : int
    shape : (int, int)
    rank : int
    oversampling : float, >= 1
        The number of samples over the ``rank * (d1 + d2 - rank)`` degrees of freedom.
    condition : float, >= 1, optional
        Ratio of the largest to the smallest singular value, log-spaced between; Gaussian factors unless given.

    Returns
    -------
    dict
        rows, cols (int32, sorted), values, u (d1, rank), v (d2, rank), shape.
    """
    generator = np.random.default_rng([seed, *shape, rank])
    u, v = (generator.standard_normal((d, rank)) for d in shape)
    if condition is not None:
        u, v = np.linalg.qr(u).Q * np.geomspace(condition, 1, rank), np.linalg.qr(v).Q
    u /= np.sqrt(np.vdot(u.T @ u, v.T @ v) / (shape[0] * shape[1]))
    count = round(oversampling * rank * (sum(shape) - rank))
    rows, cols = positions(generator, shape, count)
    return {"rows": rows, "cols": cols, "values": entries(u, v, rows, cols), "u": u, "v": v, "shape": shape}


def positions(generator: np.random.Generator, shape: tuple[int, int], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (int32, sorted) of `count` different positions, drawn uniformly."""
    total = shape[0] * shape[1]
    found = np.empty(0, np.int64)
    while found.size < count:
        found = np.unique(np.concatenate([found, generator.integers(0, total, count - found.size + count // 50)]))
    surplus = generator.choice(found.size, found.size - count, replace=False)
    found = np.delete(found, surplus)
    return (found // shape[1]).astype(np.int32), (found % shape[1]).astype(np.int32)


def entries(u: np.ndarray, v: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Entries of ``u @ v.T``, some at a time."""
    values = np.empty(rows.size, u.dtype)
    for start in range(0, rows.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        values[part] = np.einsum("ij,ij->i", u[rows[part]], v[cols[part]])
    return values


def recovery_error(left: np.ndarray, right: np.ndarray, u: np.ndarray, v: np.ndarray) -> float:
    """``||left @ right - u v^T||_F / ||u v^T||_F`` without forming a matrix; right is (w, d2)."""
    a = np.linalg.qr(np.hstack([left, -u])).R
    b = np.linalg.qr(np.hstack([right.T, v])).R
    return float(np.linalg.norm(a @ b.T) / np.sqrt(np.vdot(u.T @ u, v.T @ v)))


def machine() -> dict[str, Any]:
    """What the numbers depend on: processor, cores, versions of what does the work, date."""
    versions = {}
    for package in ("numpy", "scipy", "numba", "jax", "torch"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **versions,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(map(str.strip, line.split(":", 1)) for line in lines if ":" in line)
    name = fields.get("model name") or platform.machine()
    family, model = fields.get("cpu family"), fields.get("model")
    return f"{name} (family {family}, model {model})" if family and model else name


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Write ``results/<name>.json``: the machine, then `result`. Whole or not at all."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        partial.write_text(json.dumps({"machine": machine(), **result}, indent=2, allow_nan=False) + "\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def print_table(header: list[str], rows: list[list[Any]]) -> None:
    """Aligned columns, the first to the left; numbers with three significant digits."""
    cells = [header, *([c if isinstance(c, str) else f"{c:.3g}" for c in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *rest in cells:
        print("  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]))


def seconds_to(solve: Callable[[Any], Any], error: Callable[..., float], levels: tuple[float, ...]) -> list[float]:
    """Seconds of ``solve(callback)`` until ``error(left, right)`` is below each level, and to the end; inf if never.

    Without those of measuring.
    """
    found, paused, begin = [float("inf")] * len(levels), 0.0, time.perf_counter()

    def look(snapshot: Any) -> None:
        nonlocal paused
        now = time.perf_counter()
        reached = error(*snapshot.model.factors())
        for k, level in enumerate(levels):
            if reached < level and np.isinf(found[k]):
                found[k] = now - begin - paused
        paused += time.perf_counter() - now

    solve(look)
    return [*found, time.perf_counter() - begin - paused]
