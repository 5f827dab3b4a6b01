"""Nonlinear networks on scikit-learn's digits: the paper's protocol beside the fair one, and where updates go.

    python benchmarks/nonlinear_dynamics.py      # pip install '.[sklearn]'; writes results/nonlinear_dynamics.json

Protocols: perceptrons of width 64, plain, with a deep linear block, with a compressed one of rank 12, 600 iterations of Adam
with 0.001 from three paired seeds; `dmf.experiments.fashion` has both protocols. Accuracies are those at the end. Seconds are
those of training on one shared core: only ratios mean something, as the three networks of a seed train one after the other.

Updates: share of the energy of W(t) - W(0) outside the 2K-dimensional subspaces that the gradient at the start predicts (K = 10
classes), and outside the best subspaces of that dimension, for ReLU and for smooth activations, after full-batch descent to a
quarter of the first loss; medians over three seeds. "theory" is the setting of arXiv 2602.06208: whitened inputs, two layers of
which the second is fixed, the squared loss, a small semi-orthogonal start. The others are of three layers, all trained, from
pixels: "squared" with the squared loss from small orthogonal weights, "cross-entropy" from the usual weights.
"""

from __future__ import annotations

import time
from itertools import product
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
from cases import print_table, write_result

from dmf.arrays.threads import one_blas_thread
from dmf.experiments.fashion import Settings, starts
from dmf.experiments.images import digits
from dmf.models import orthogonal_network
from dmf.nonlinear import SGD, Activation, Dense, Evaluation, Network, Samples, UpdateDiagnostics, perceptron, train
from dmf.solvers import Outcome

CLASSES, WIDTH = 10, 64
ACTIVATIONS = ("relu", "gelu", "silu", "tanh")
FAIR = Settings(width=WIDTH, rank=12, batch_size=64, iterations=600, record_every=600)


def protocols(seeds: int) -> list[dict[str, Any]]:
    """Accuracies and times of the three networks under both protocols."""
    data, test = digits()
    rows = []
    for name, settings in (("fair", FAIR), ("published", FAIR.as_published())):
        found: dict[str, list[tuple[float, float]]] = {}
        for seed in range(seeds):
            for label, network in starts(settings, data, CLASSES, seed).items():
                begin = time.perf_counter()
                run = train(
                    network, data, settings.optimizer, batch_size=settings.batch_size, iterations=settings.iterations,
                    record_every=settings.record_every, ema_decay=settings.ema_decay, callback=Evaluation(test), seed=seed,
                )  # fmt: skip
                seconds = time.perf_counter() - begin
                found.setdefault(label, []).append((float(run.history["accuracy"][-1]), seconds))
        for label, pairs in found.items():
            accuracies, seconds = np.array(pairs).T
            rows.append(
                {
                    "protocol": name,
                    "network": label,
                    "accuracy": float(accuracies.mean()),
                    "standard deviation": float(accuracies.std(ddof=1)),
                    "median seconds": float(np.median(seconds)),
                }
            )
    return rows


def whitened(samples: Samples) -> Samples:
    """Coordinates along the principal components that vary, each of mean square 1, and one-hot targets."""
    centred = samples.inputs - samples.inputs.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    return Samples(u[:, s > 1e-3 * s[0]] * len(u) ** 0.5, np.eye(CLASSES, dtype=np.float32)[samples.targets])


def problem(setting: str, activation: str, seed: int) -> tuple[Network, Samples, str]:
    """The start, the samples and the loss of a setting."""
    data, _ = digits()
    if setting == "theory":
        data = whitened(data)
        inputs = data.inputs.shape[1]
        first, last = (orthogonal_network(shape, 1, scale, seed=seed, like=data.inputs).weights[0]
                       for shape, scale in (((WIDTH, inputs), 0.01), ((CLASSES, WIDTH), 1.0)))  # fmt: skip
        return Network([Dense(first), Activation(activation), Dense(last, rate=0.0)]), data, "squared"
    network = perceptron((64, WIDTH, WIDTH, CLASSES), activation, biases=False, seed=seed, like=data.inputs)
    if setting == "cross-entropy":
        return network, data, "cross-entropy"
    weights = [
        orthogonal_network(w.shape, 1, 0.3, seed=seed + k, like=w).weights[0] for k, w in enumerate(network.parameters)
    ]
    return (
        network.with_parameters(weights),
        Samples(data.inputs, np.eye(CLASSES, dtype=np.float32)[data.targets]),
        "squared",
    )


STEPS = {"theory": 0.3, "squared": 0.3, "cross-entropy": 0.3}


def updates(seeds: int) -> list[dict[str, Any]]:
    """Shares of the updates' energy outside, for each setting, activation and hidden weight."""
    rows = []
    for (setting, step), activation in product(STEPS.items(), ACTIVATIONS):
        runs = [shares(*problem(setting, activation, seed), step) for seed in range(seeds)]
        for k in range(runs[0][1].shape[1]):
            predicted, best = np.median([found[:, k] for _, found in runs], axis=0)
            rows.append(
                {
                    "setting": setting,
                    "step": step,
                    "activation": activation,
                    "weight": f"W{k + 1}",
                    "outside the predicted": float(predicted),
                    "outside the best": float(best),
                    "iterations": int(np.median([count for count, _ in runs])),
                }
            )
    return rows


def shares(start: Network, samples: Samples, loss: str, step: float) -> tuple[int, np.ndarray]:
    """Iterations to a quarter of the first loss, and the shares outside (2, hidden weights)."""
    first, _ = start.loss_and_gradients(samples, loss)
    run = train(start, samples, SGD(step), loss=loss, iterations=4_000, tolerance=0.25 * float(first), record_every=10)
    if run.outcome is not Outcome.TOLERANCE:
        raise RuntimeError(f"{start} does not get to a quarter of its loss: {run.message}")
    found = UpdateDiagnostics(start, samples, rank=CLASSES, loss=loss, count=WIDTH)(
        SimpleNamespace(network=run.network)
    )
    energies = found["update_singular_values"][:-1] ** 2
    best = energies[:, 2 * CLASSES :].sum(axis=1) / energies.sum(axis=1)
    return int(run.history.iteration[-1]), np.array([found["energy_outside"][:-1], best])


@click.command()
@click.option("--seeds", default=3)
def main(seeds: int) -> None:
    """Measure both, print the tables, write results/nonlinear_dynamics.json."""
    with one_blas_thread():
        result = {"updates": updates(seeds), "protocols": protocols(seeds)}
    for rows in result.values():
        print_table(
            list(rows[0]), [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
        )
    shown = {"fair": FAIR.shown(), "published": FAIR.as_published().shown()}
    write_result("nonlinear_dynamics", {"settings": shown, **result})


if __name__ == "__main__":
    main()
