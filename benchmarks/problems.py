"""Problems by which solvers are compared: few samples, noise, bad conditioning, a large matrix, ratings. Imports NumPy only.

Every generator returns a dict: rows, cols, values, shape, and u, v of the true matrix ``u @ v.T`` where there is one. One
seed gives one problem on every machine, so numbers measured on different days or by other programs are about the same data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from cases import entries

Case = dict[str, Any]
_RATINGS_BLOCK = 1_000_000  # ratings drawn at a time; part of the definition, as the noise is drawn with them


def low_rank_samples(
    seed: int,
    d1: int = 300,
    d2: int = 300,
    r: int = 5,
    oversampling: float = 1.5,
    condition: float | None = None,
    snr_db: float | None = None,
    redraw: bool = True,
) -> Case:
    """Some entries of a rank-r matrix whose entries have root mean square 1.

    Parameters
    ----------
    seed, d1, d2, r : int
        All four seed the generator.
    oversampling : float, >= 1
        The number of samples over the ``r * (d1 + d2 - r)`` degrees of freedom.
    condition : float, >= 1, optional
        Singular values are log-spaced with this ratio of the largest to the smallest; Gaussian factors unless given.
    snr_db : float, optional
        Signal-to-noise ratio of the samples in decibels; no noise unless given.
    redraw : bool
        Draw positions until every row and every column holds at least r, without which the matrix cannot be determined.

    Returns
    -------
    dict
        rows, cols, values, u (d1, r), v (d2, r), shape.
    """
    generator = np.random.default_rng([seed, d1, d2, r])
    u, v = (generator.standard_normal((d, r)) for d in (d1, d2))
    if condition is not None:
        u, v = np.linalg.qr(u).Q * np.logspace(0, np.log10(condition), r), np.linalg.qr(v).Q
    u /= _norm(u, v) / np.sqrt(d1 * d2)
    count = round(oversampling * r * (d1 + d2 - r))
    accepted = False
    while not accepted:
        drawn = generator.choice(d1 * d2, count, replace=False)
        accepted = not redraw or (
            np.bincount(drawn // d2, minlength=d1).min() >= r and np.bincount(drawn % d2, minlength=d2).min() >= r
        )
    rows, cols = np.divmod(np.sort(drawn), d2)
    values = entries(u, v, rows, cols)
    if snr_db is not None:
        values += noise_level(snr_db) * generator.standard_normal(count)
    return {"rows": rows, "cols": cols, "values": values, "u": u, "v": v, "shape": (d1, d2)}


def noise_level(snr_db: float) -> float:
    """Standard deviation of the noise on entries of root mean square 1."""
    return 10 ** (-snr_db / 20)


def large_completion(seed: int = 0, d: int = 10_000, r: int = 10, oversampling: float = 5) -> Case:
    """A d x d matrix of rank r, ``oversampling * r * (2 d - r)`` of its entries seen (999,500 unless told otherwise)."""
    generator = np.random.default_rng(seed)
    u, v = generator.standard_normal((d, r)) / np.sqrt(r), generator.standard_normal((d, r))
    count = oversampling * r * (2 * d - r)
    found = np.unique(generator.integers(0, d * d, int(count * 1.02)))
    chosen = np.sort(generator.permutation(found)[: int(count)])
    rows, cols = ((part).astype(np.int32) for part in np.divmod(chosen, d))
    return {"rows": rows, "cols": cols, "values": entries(u, v, rows, cols), "u": u, "v": v, "shape": (d, d)}


def ratings(
    seed: int = 0,
    n: int = 25_000_000,
    n_users: int = 160_000,
    n_items: int = 60_000,
    r: int = 16,
    n_test: int = 1_000_000,
) -> Case:
    """Ratings from 0.5 to 5 of which few users and items hold most: 3.5, a rank-r signal and noise of deviation 0.6, clipped.

    Parameters
    ----------
    seed, n, n_users, n_items, r : int
        A user is drawn with probability proportional to ``(rank + 200)^-0.8``, an item to ``(rank + 100)^-1``.
    n_test : int
        The first this many are held out.

    Returns
    -------
    dict
        rows, cols (int32), values (float32), n_test, shape, the factors u and v of the signal, the prior variances of their
        columns (spectrum), and oracle: the root-mean-square error of the clipped signal without noise on the held-out ratings.
    """
    generator = np.random.default_rng(seed)
    shares = [
        np.cumsum(p / p.sum())
        for p in (
            generator.permutation((np.arange(size) + offset) ** -power)
            for size, offset, power in ((n_users, 200.0, 0.8), (n_items, 100.0, 1.0))
        )
    ]
    pairs = np.empty(0, np.int64)
    while pairs.size < n:
        draws = int((n - pairs.size) * 1.3) + 1_000
        users, items = (np.searchsorted(share, generator.random(draws) * share[-1]) for share in shares)
        pairs = np.unique(np.concatenate([pairs, users * np.int64(n_items) + items]))
    pairs = generator.permutation(pairs)[:n]
    rows, cols = (part.astype(np.int32) for part in np.divmod(pairs, n_items))
    del pairs
    spectrum = np.arange(1, r + 1) ** -0.5
    spectrum *= 0.8 / np.linalg.norm(spectrum)
    u, v = ((generator.standard_normal((d, r)) * np.sqrt(spectrum)).astype(np.float32) for d in (n_users, n_items))
    values, clean = np.empty((2, n), np.float32)
    for start in range(0, n, _RATINGS_BLOCK):
        part = slice(start, start + _RATINGS_BLOCK)
        signal = 3.5 + np.einsum("ij,ij->i", u[rows[part]], v[cols[part]])
        clean[part] = np.clip(signal, 0.5, 5)
        values[part] = np.clip(signal + 0.6 * generator.standard_normal(signal.size), 0.5, 5)
    oracle = float(np.sqrt(np.mean((clean[:n_test] - values[:n_test]) ** 2)))
    return {
        "rows": rows,
        "cols": cols,
        "values": values,
        "n_test": n_test,
        "oracle": oracle,
        "shape": (n_users, n_items),
        "u": u,
        "v": v,
        "spectrum": spectrum,
    }


def relative_error(left: np.ndarray, right: np.ndarray, case: Case) -> float:
    """``||left right^T - u v^T||_F / ||u v^T||_F`` without forming a matrix; left is (d1, w), right (d2, w)."""
    u, v = case["u"], case["v"]
    a, b = np.linalg.qr(np.hstack([left, -u])).R, np.linalg.qr(np.hstack([right, v])).R
    return float(np.linalg.norm(a @ b.T) / _norm(u, v))


def tangent_space_oracle(case: Case, sigma: float) -> float:
    """Relative error of least squares that knows the tangent space at the true matrix: root of its expected square.

    No estimator knows that space, so an error of 1 to 1.1 times this is as good as it gets. Dense, (number of samples) times
    (degrees of freedom): for small matrices.
    """
    (d1, d2), rank = case["shape"], case["u"].shape[1]
    rows, cols = case["rows"], case["cols"]
    frame = np.linalg.qr(case["u"], mode="complete").Q
    inside, outside = frame[:, :rank], frame[:, rank:]
    across = np.linalg.qr(case["v"]).Q
    design = np.zeros((rows.size, rank, d2 + d1 - rank))  # of inside B^T + outside C across^T: unknown B and C
    design[np.arange(rows.size), :, cols] = inside[rows]
    np.multiply(across[cols][:, :, None], outside[rows][:, None, :], out=design[:, :, d2:])
    design = design.reshape(rows.size, -1)
    curvatures = np.linalg.eigvalsh(design.T @ design)
    kept = curvatures[curvatures > 1e-15 * curvatures[-1]]
    return float(sigma * np.sqrt(np.sum(1 / kept)) / _norm(case["u"], case["v"]))


def _norm(u: np.ndarray, v: np.ndarray) -> float:
    """``||u v^T||_F``."""
    return float(np.sqrt(np.sum((u.T @ u) * (v.T @ v))))
