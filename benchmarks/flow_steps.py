"""Descent with a fixed step against its limit, the gradient flow followed by steps as long as its accuracy allows.

    python benchmarks/flow_steps.py

The paper's completion problem: 100 x 100 of rank 5, 30 % seen, a compressed network of width 10 and depth 3, scale 1e-2, outer
scale 5; the fixed step is the paper's. Gradients and seconds (without those of measuring) to a relative error of 1e-4, and the
times of the flow at which the singular values of the product pass half of their true values: both methods must learn the
components in one order, and at about the same times. A fixed step costs one gradient.
"""

from __future__ import annotations

from typing import Any

import click
import numpy as np
from cases import paper_target, print_table, uniform_mask, write_result

import dmf
from dmf.theory import Diagnostics

D, RANK, SEEN, WIDTH, DEPTH, SCALE, OUTER_SCALE = 100, 5, 3_000, 10, 3, 1e-2, 5.0
STEP, LEVEL, MOST = 10.0, 1e-4, 50_000
RECORD_EVERY = 5  # fixed steps between two looks at the error
FIXED = "fixed step"
ACCURACIES = 1e-2, 1e-3


class Until:
    """Measure singular values and error; end the run once the error is below a level."""

    def __init__(self, triplets: Any) -> None:
        self._measure = Diagnostics(RANK, triplets)
        self._reached = False

    def __call__(self, snapshot: Any) -> dict[str, Any]:
        if self._reached:
            raise StopIteration("the error is below the level")
        measured = self._measure(snapshot)
        self._reached = measured["error"] < LEVEL
        return {name: measured[name] for name in ("error", "singular_values")}


def half_times(times: np.ndarray, values: np.ndarray, final: np.ndarray) -> list[float]:
    """First times at which each singular value passes half of its final value, interpolated."""
    found = []
    for column, half in zip(values.T, final / 2, strict=True):
        after = int(np.argmax(column >= half))
        share = (half - column[after - 1]) / (column[after] - column[after - 1])
        found.append(float(times[after - 1] + share * (times[after] - times[after - 1])))
    return found


def runs(seed: int, rounds: int) -> dict[str, dict[str, Any]]:
    """One entry for each method: gradients, seconds (the least of some rounds), error and times."""
    target, mask = paper_target(seed, D, RANK), uniform_mask(seed, (D, D), SEEN)
    rows, cols = np.nonzero(mask)
    observations = dmf.SampledEntries(rows, cols, target[mask], (D, D))
    start = dmf.spectral_network(observations, WIDTH, DEPTH, SCALE)
    u, s, vt = np.linalg.svd(target)
    triplets = u[:, :RANK], s[:RANK], vt[:RANK]

    def descend(callback):
        return dmf.gradient_descent(
            observations, start, STEP, OUTER_SCALE, iterations=MOST, record_every=RECORD_EVERY, callback=callback
        )

    def follow(accuracy):
        return lambda callback: dmf.solvers.follow_gradient_flow(
            observations, start, outer_scale=OUTER_SCALE, accuracy=accuracy, iterations=MOST, callback=callback
        )

    methods = {FIXED: descend} | {f"flow, accuracy {accuracy:g}": follow(accuracy) for accuracy in ACCURACIES}
    found = {}
    for name, method in methods.items():
        seconds = []
        for _ in range(rounds):
            history = method(Until(triplets)).history
            errors = history["error"]
            if not np.any(errors < LEVEL):
                raise RuntimeError(f"{name}: the error is {errors[-1]:.3g} after {history.iteration[-1]} iterations")
            at = int(np.argmax(errors < LEVEL))
            seconds.append(float(history.seconds[at]))
        fixed = name == FIXED
        times = STEP * history.iteration if fixed else history["time"]
        gradients = history.iteration if fixed else history["evaluations"]
        found[name] = {
            "iterations": int(history.iteration[at]), "gradients": int(gradients[at]), "seconds": min(seconds),
            "error": float(errors[at]), "end_time": float(times[at]),
            "half_times": half_times(times[: at + 1], history["singular_values"][: at + 1], triplets[1]),
        }  # fmt: skip
    return found


@click.command()
@click.option("--seed", default=0, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--no-save", is_flag=True, help="Write no result.")
def main(seed: int, rounds: int, no_save: bool) -> None:
    """Print a table with ratios, write results/flow_steps.json."""
    found = runs(seed, rounds)
    base = found[FIXED]
    for result in found.values():
        result["gradients_ratio"] = base["gradients"] / result["gradients"]
        result["seconds_ratio"] = base["seconds"] / result["seconds"]
        result["order"] = [int(k) for k in np.argsort(result["half_times"])]
        offs = np.abs(np.array(result["half_times"]) / base["half_times"] - 1)
        result["largest_difference_of_times"] = float(np.max(offs))
    keys = "iterations", "gradients", "gradients_ratio", "seconds", "seconds_ratio", "end_time"
    table = [[name, str(r["iterations"]), str(r["gradients"]), *(r[k] for k in keys[2:])] for name, r in found.items()]
    header = ["to an error of 1e-4", "iterations", "gradients", "fewer", "seconds", "faster", "time of the flow"]
    print_table(header, table)
    print()
    table = [[name, str(r["order"]), *r["half_times"], r["largest_difference_of_times"]] for name, r in found.items()]
    print_table(["half-way", "order", *(f"s_{k + 1}" for k in range(RANK)), "off by"], table)
    if not no_save:
        write_result("flow_steps", {"seed": seed, "rounds": rounds, "level": LEVEL, "methods": found})


if __name__ == "__main__":
    main()
