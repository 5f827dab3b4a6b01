"""How much faster is the exact trajectory of the original network than running it?

Factorization of a square matrix by the wide network from its orthogonal start, loss "sum". The dense network is run for a
few iterations and extrapolated from its median time per iteration; the exact trajectory is timed whole, several times,
its bases included, with every iteration recorded. At the iterations that the dense run reached, the lifted end-to-end matrix is
compared with the dense one.
"""

from __future__ import annotations

import time

import click
import numpy as np
from cases import print_table, write_result

import dmf
from dmf.theory import exact_compression

DESCENT = {"step_size": 0.05, "weight_decay": 1e-3, "reduction": "sum"}


@click.command()
@click.option("--d", default=1000, show_default=True, help="Rows and columns.")
@click.option("--rank", default=5, show_default=True)
@click.option("--depth", default=3, show_default=True)
@click.option("--iterations", default=10_000, show_default=True, help="Of the exact trajectory.")
@click.option("--dense-iterations", default=20, show_default=True, help="Of the dense network, at least 3.")
@click.option("--repeats", default=5, show_default=True, help="Of the exact trajectory; their median counts.")
@click.option("--save/--no-save", default=False, help="Write results/exact_trajectory.json.")
def main(d: int, rank: int, depth: int, iterations: int, dense_iterations: int, repeats: int, save: bool) -> None:
    """Time both, compare them where both are known."""
    generator = np.random.default_rng(0)
    u, v = (np.linalg.qr(generator.standard_normal((d, rank))).Q for _ in range(2))
    target = (u * np.linspace(1, 0.4, rank)) @ v.T
    start = dmf.orthogonal_network((d, d), depth, scale=0.1, seed=0)
    small = dmf.orthogonal_network((4 * rank, 4 * rank), depth, scale=0.1)
    exact_compression(np.ones((4 * rank, 4 * rank)), small).trajectory(**DESCENT, iterations=1)  # compiles

    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        compression = exact_compression(target, start, rank)
        bases = time.perf_counter() - begin
        trajectory = compression.trajectory(**DESCENT, iterations=iterations)
        seconds.append((time.perf_counter() - begin, bases))
    exact, bases = sorted(seconds)[repeats // 2]

    products = []
    history = dmf.gradient_descent(
        dmf.FullMatrix(target),
        start,
        **DESCENT,
        iterations=dense_iterations,
        callback=lambda snapshot: products.append(snapshot.network.product()),
    ).history
    dense = float(np.median(np.diff(history.seconds)[1:]))  # the first step touches new memory
    ratio = dense * iterations / exact
    lifts = (trajectory.product(k) for k in range(len(products)))
    off = max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(lifts, products, strict=True))

    print(f"{d} x {d}, rank {rank}, depth {depth}, float64, {iterations:,} iterations")
    table = [
        ["dense network", dense, dense * iterations, f"extrapolated from {dense_iterations}"],
        ["exact trajectory", exact / iterations, exact, f"bases {bases:.3f} s of it"],
    ]
    print_table(["", "s/iteration", "s", ""], table)
    print(
        f"ratio {ratio:,.0f}; end-to-end matrices of {len(products)} iterations differ by at most {off:.1e} (relative)"
    )
    if save:
        result = {
            "case": {"d": d, "rank": rank, "depth": depth, "iterations": iterations, **DESCENT},
            "dense_seconds_per_iteration": dense,
            "dense_iterations": dense_iterations,
            "exact_seconds": exact,
            "exact_seconds_bases": bases,
            "exact_seconds_slowest": max(seconds)[0],
            "ratio": ratio,
            "largest_relative_difference": float(off),
            "relative_error_at_the_end": float(trajectory.error[-1]),
        }
        write_result("exact_trajectory", result)


if __name__ == "__main__":
    main()
