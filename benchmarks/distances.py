"""Distances completed by dmf and by shortest paths over the pairs seen; a tree in the Euclidean and in the hyperbolic plane.

python benchmarks/distances.py writes benchmarks/results/distances.json. Errors are root mean squares over pairs not seen,
medians of 3 problems; distortion is the mean of |fitted / true - 1|.
"""

import json
from pathlib import Path

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import shortest_path

import dmf


def plane(rng, geometry, n):
    """Distances of points: normal ones, or uniform in a hyperbolic disc of radius 3."""
    if geometry == "euclidean":
        x = rng.standard_normal((n, 2))
        return np.linalg.norm(x[:, None] - x, axis=2)
    radius, angle = np.arccosh(1 + rng.random(n) * (np.cosh(3) - 1)), 2 * np.pi * rng.random(n)
    x = np.sinh(radius)[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    cosines = np.cosh(radius)[:, None] * np.cosh(radius) - x @ x.T
    return np.where(np.eye(n) > 0, 0, np.arccosh(np.maximum(cosines, 1)))


def completion(geometry, share, noise, n=300):
    """Errors of dmf and of shortest paths, of one problem each for three seeds."""
    errors = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        truth, hidden = plane(rng, geometry, n), np.triu(rng.random((n, n)) >= share, 1)
        noisy = np.maximum(truth + noise * rng.standard_normal((n, n)), 0)
        seen = np.where(np.triu(~hidden, 1), noisy, np.nan)
        known = np.nan_to_num(seen)
        paths = shortest_path(scipy.sparse.csr_array(known + known.T), directed=False)
        found = dmf.complete_distances(seen, geometry).product()
        errors.append([np.sqrt(np.mean((estimate - truth)[hidden] ** 2)) for estimate in (found, paths)])
    mine, theirs = np.median(errors, axis=0)
    return {"geometry": geometry, "share": share, "noise": noise, "dmf": float(mine), "shortest_paths": float(theirs)}


def tree(branching=3, depth=5):
    """All distances along a tree."""
    n = sum(branching**level for level in range(depth + 1))
    parents = [(child - 1) // branching for child in range(1, n)]
    graph = scipy.sparse.coo_array((np.ones(n - 1), (parents, range(1, n))), (n, n)).tocsr()
    return shortest_path(graph, directed=False)


def distortion(truth, share, geometry, radius=1.0):
    """Of all pairs, from a share of them."""
    pairs = np.triu_indices(len(truth), 1)
    seen = np.where(np.random.default_rng(0).random(truth.shape) < share, truth, np.nan)
    found = dmf.complete_distances(np.triu(seen, 1) + np.tril(np.full(truth.shape, np.nan)), geometry, radius=radius)
    return float(np.mean(np.abs(found.product()[pairs] / truth[pairs] - 1)))


def main():
    """Run all, print and write."""
    cases = [completion(g, 0.1, noise) for g in ("euclidean", "hyperbolic") for noise in (0.0, 0.1, 0.3)]
    truth = tree()
    trees = [
        {"share": share, "euclidean": distortion(truth, share, "euclidean")}
        | {f"hyperbolic R={r:g}": distortion(truth, share, "hyperbolic", r) for r in (0.25, 0.5, 1.0)}
        for share in (1.0, 0.3)
    ]
    results = {"completion": cases, "tree": trees}
    for row in [*cases, *trees]:
        print(row, flush=True)
    (Path(__file__).parent / "results" / "distances.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
