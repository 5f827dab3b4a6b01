"""Search for counter-examples to theorem B: is the compressed network ahead of the original at every iteration?

Draws random problems in each region and moves each of them uphill, towards a larger ``compressed - original``, by random
changes of spectrum, scale, step and start. Factorization runs on the exact small networks, so that a problem takes
milliseconds; completion and sensing run the networks themselves and are only drawn. The notes of `dmf.theory.compare`
document what was found.

    python benchmarks/ordering_search.py --draws 60 --moves 30
"""

import argparse
import time
from dataclasses import dataclass, replace

import numpy as np

import dmf
from dmf.theory import Diagnostics, compare, exact_compression, reduced_dynamics, stable_step_size

REGIONS = {  # bounds of log10(eps / s^{1/L}), of which s, bounds of eta / (largest stable step), lambda, alpha
    "within: eps^L <= s_r, eta <= 1/2 stable": (-1.2, 0.0, "least", 0.02, 0.5, 0.0, 1.0),
    "within, alpha = 3": (-1.2, 0.0, "least", 0.02, 0.5, 0.0, 3.0),
    "within, alpha = 0.3": (-1.2, 0.0, "least", 0.02, 0.5, 0.0, 0.3),
    "s_r < eps^L <= s_1": (-0.3, 0.0, "largest", 0.02, 0.5, 0.0, 1.0),
    "eps^L > s_1": (0.0, 0.15, "largest", 0.02, 0.5, 0.0, 1.0),
    "eta from 1/2 to 1 of the stable step": (-1.2, 0.0, "least", 0.5, 0.99, 0.0, 1.0),
    "eta above the stable step": (-1.2, 0.0, "least", 1.01, 1.6, 0.0, 1.0),
    "weight decay 0.02": (-1.2, 0.0, "least", 0.02, 0.5, 0.02, 1.0),
}


@dataclass(frozen=True)
class Problem:
    """One problem; `scale` and `speed` are relative to the bounds of its region, from 0 to 1."""

    size: int
    depth: int
    log_values: tuple
    scale: float
    speed: float
    seed: int


def draw(rng):
    """Random problem."""
    size = int(rng.integers(5, 25))
    rank = int(rng.integers(1, min(4, (size - 1) // 2) + 1))
    spectrum = tuple(rng.uniform(-2, 0, rank))
    return Problem(size, int(rng.integers(2, 6)), spectrum, rng.random(), rng.random(), int(rng.integers(2**31)))


def move(problem, rng):
    """A problem nearby."""
    return replace(
        problem,
        log_values=tuple(np.clip(problem.log_values + rng.normal(0, 0.2, len(problem.log_values)), -3, 0)),
        scale=float(np.clip(problem.scale + rng.normal(0, 0.1), 0, 1)),
        speed=float(np.clip(problem.speed + rng.normal(0, 0.1), 0, 1)),
        seed=problem.seed if rng.random() < 0.7 else int(rng.integers(2**31)),
    )


def low_rank(rng, size, values):
    """Matrix of random singular vectors, and its triplets."""
    u, v = (np.linalg.qr(rng.standard_normal((size, len(values))))[0] for _ in range(2))
    return (u * values) @ v.T, (u, values, v.T)


def factorization(problem, region, iterations=3000):
    """Comparison of the two exact trajectories."""
    least, most, which, slow, fast, decay, alpha = region
    values = np.sort(np.exp(problem.log_values))[::-1]
    values = values / values[0]
    anchor = values[-1 if which == "least" else 0] ** (1 / problem.depth)
    scale = float(anchor * 10 ** (least + problem.scale * (most - least)))
    step = (slow + problem.speed * (fast - slow)) * stable_step_size(values, problem.depth, alpha)
    target, _ = low_rank(np.random.default_rng(problem.seed), problem.size, values)
    start = dmf.orthogonal_network((problem.size,) * 2, problem.depth, scale, seed=problem.seed)
    original = exact_compression(target, start, len(values)).trajectory(step, alpha, decay, "sum", iterations)
    compressed = reduced_dynamics(values, problem.depth, scale, step, alpha, decay, iterations)
    history = {
        "iteration": compressed.iteration,
        "error": compressed.error,
        "singular_values": -np.sort(-compressed.values, axis=1),
    }
    return compare(original.history(), history, values)


def observed(kind, rng, iterations=800):
    """Comparison of two runs from some entries or Gaussian measurements; with the sampling rate and excess width."""
    size, rank, depth = int(rng.integers(10, 17)), int(rng.integers(1, 4)), int(rng.integers(2, 5))
    values = np.sort(rng.uniform(0.2, 1, rank))[::-1]
    target, triplets = low_rank(rng, size, values)
    freedom = rank * (2 * size - rank)
    count = int(min(size * size - 1, rng.uniform(1, 6) * freedom))
    if kind == "completion":
        rows, cols = np.divmod(np.sort(rng.permutation(size * size)[:count]), size)
        observations = dmf.SampledEntries(rows, cols, target[rows, cols], target.shape)
    else:
        operator = rng.standard_normal((count, size, size)) / np.sqrt(count)
        observations = dmf.LinearMeasurements(operator, np.tensordot(operator, target, 2))
    width = rank if rng.random() < 0.5 else min(2 * rank, size)
    scale = float(10 ** rng.uniform(-1.5, -0.5))
    step = 0.1 * stable_step_size(values, depth)
    runs = [
        dmf.gradient_descent(
            observations,
            network,
            step,
            reduction="sum",
            iterations=iterations,
            record_every=8,
            callback=Diagnostics(rank, triplets),
        )
        for network in (
            dmf.orthogonal_network(target.shape, depth, scale, seed=int(rng.integers(2**31))),
            dmf.spectral_network(observations, width, depth, scale),
        )
    ]
    return compare(*runs, values), count / freedom, width > rank


def report(name, comparisons, seconds):
    """One line."""
    violated = [c for c in comparisons if not c.held]
    one_at_a_time = [c for c in comparisons if c.incremental]
    worst = max(c.excess for c in comparisons)
    print(
        f"{name:42s} {len(comparisons):6d} {len(violated):6d} {len(one_at_a_time):6d} {sum(not c.held for c in one_at_a_time):6d}"
        f"   {worst:9.2g} {seconds:6.0f} s",
        flush=True,
    )


def main():
    """Print one line for each region."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--moves", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{'':42s}  tried broken  1-by-1 broken largest excess (of the first error)")
    for name, region in REGIONS.items():
        rng, begin, found = np.random.default_rng(options.seed), time.perf_counter(), []
        for _ in range(options.draws):
            best = draw(rng)
            found.append(factorization(best, region))
            highest = found[-1].excess
            for _ in range(options.moves):
                other = move(best, rng)
                found.append(factorization(other, region))
                if found[-1].excess > highest:
                    best, highest = other, found[-1].excess
        report(name, found, time.perf_counter() - begin)
    for kind in ("completion", "sensing"):
        rng, begin = np.random.default_rng(options.seed), time.perf_counter()
        found = [observed(kind, rng) for _ in range(options.draws)]
        seconds = time.perf_counter() - begin
        for label, kept in (
            ("all", lambda rate, wide: True),
            ("width = rank", lambda rate, wide: not wide),
            ("width = 2 rank", lambda rate, wide: wide),
            ("oversampling > 3", lambda rate, wide: rate > 3),
        ):
            chosen = [c for c, rate, wide in found if kept(rate, wide)]
            if chosen:
                report(f"{kind}, {label}", chosen, seconds)


if __name__ == "__main__":
    main()
