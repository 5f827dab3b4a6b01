"""The paper's experiment with nonlinear networks: a deep linear block inside a perceptron, original and compressed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dmf.arrays.threads import one_blas_thread
from dmf.experiments.images import class_count, digits, fashion_mnist
from dmf.experiments.results import Curve, Experiment, Progress
from dmf.io.pictures import plot_errors
from dmf.nonlinear import (
    SGD,
    Adam,
    Dense,
    Evaluation,
    Network,
    Samples,
    UpdateDiagnostics,
    perceptron,
    spectral_start,
    train,
    with_block,
)
from dmf.nonlinear.pictures import plot_updates
from dmf.solvers import Checkpoint, Snapshot
from dmf.solvers.outcomes import uninterrupted
from dmf.theory import combined

PLAIN, ORIGINAL, COMPRESSED = "perceptron", "deep linear block", "compressed block"
_ADAM = Adam(1e-3)
_NOTE = (
    "accuracies are those of the running average of the weights, seconds those of training; optimiser, batches and starts are "
    "ours, not the paper's: see --published"
)
_PUBLISHED_NOTE = (
    "the paper's protocol: full batch, no biases, random orthogonal factors, another rate for the first layer beside the "
    "compressed block, accuracies of the weights themselves; optimiser and rate are ours, as the paper gives none, and the block "
    "is linear, while the published one has ReLU between its factors"
)


@dataclass(frozen=True)
class Settings:
    """Of the three networks and their training.

    Optimiser and scale are those that benchmarks/nonlinear_block.py chose on validation images; `as_published` gives the paper's
    protocol.

    Attributes
    ----------
    width : int
        Units of both hidden layers.
    depth : int
        Factors of the block.
    rank : int
        r-hat of the compressed block.
    scale : float
        Of each factor of a block at its start. With 1, the ReLU after the block halves the mean square of what passes.
    outer_scale : float
        Steps of the compressed block's outer factors over those of the inner one.
    first_rate : float
        Steps of the network's first layer over those of the others, beside a compressed block.
    spectral : bool
        Start the compressed block in the singular subspaces of the gradient; otherwise from random orthogonal factors.
    biases : bool
    optimizer : SGD or Adam
        For all three.
    ema_decay : float
        Accuracies are those of the running average of the weights; see `dmf.nonlinear.train`.
    batch_size : int, optional
        None: all images.
    iterations, record_every : int
    """

    width: int = 512
    depth: int = 3
    rank: int = 20
    scale: float = 1.4
    outer_scale: float = 1.0
    first_rate: float = 1.0
    spectral: bool = True
    biases: bool = True
    optimizer: SGD | Adam = _ADAM
    ema_decay: float = 0.99
    batch_size: int | None = 256
    iterations: int = 1_250
    record_every: int = 50

    def as_published(self) -> Settings:
        """Full batch, no biases, random orthogonal factors, a rate of the first layer, the weights themselves.

        The paper gives neither the optimiser nor the rate, which are ours. It also applies ReLU between the factors of what it
        calls a linear block; here the block is linear.
        """
        return replace(self, first_rate=2.0, spectral=False, biases=False, batch_size=None, ema_decay=0.0)

    def shown(self) -> dict[str, Any]:
        """As results show them."""
        return vars(self) | {"optimizer": str(self.optimizer)}


SMALL = Settings(width=48, rank=12, scale=1.0, optimizer=Adam(2e-3), batch_size=64, iterations=300, record_every=20)


def starts(settings: Settings, data: Samples, classes: int, seed: int) -> dict[str, Network]:
    """The three networks, with `classes` outputs; the layers around the block are the same.

    The plain perceptron has one matrix in the block's place, before the last layer.
    """
    sizes = (data.inputs.shape[1], settings.width, settings.width, classes)
    plain = perceptron(sizes, biases=settings.biases, seed=seed, like=data.inputs)
    block = with_block(plain, settings.depth, scale=settings.scale, seed=seed + 1)
    if settings.spectral:
        compressed = spectral_start(block, settings.rank, data, scale=settings.scale, outer_scale=settings.outer_scale)
    else:
        compressed = with_block(
            plain,
            settings.depth,
            scale=settings.scale,
            width=settings.rank,
            outer_scale=settings.outer_scale,
            seed=seed + 1,
        )
    first, *rest = compressed.layers
    assert isinstance(first, Dense)
    compressed = Network([replace(first, rate=settings.first_rate), *rest])
    return {PLAIN: plain, ORIGINAL: block, COMPRESSED: compressed}


def fashion(
    small: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    data: Path | None = None,
    checkpoint: Checkpoint | None = None,
    published: bool = False,
) -> Experiment:
    """Test accuracy of a perceptron, and of the same with a deep linear block before its last layer, original and compressed.

    Widths, depth and rank follow the paper, and so does the number of steps. The paper's are of the full batch, and with
    `published` so are ours, with the paper's starts; otherwise optimiser, batches and starts are those that serve the networks
    best. `small` learns scikit-learn's digits instead, unless `data` is a folder with images.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), experiments with nonlinear networks.
    """
    settings = SMALL if small else Settings()
    if published:
        settings = settings.as_published()
    named = small and data is None
    learned, test = digits() if named else fashion_mnist(data)
    shown: dict[str, Any] = {
        "images": "digits" if named else "FashionMNIST",
        "training images": len(learned),
        "test images": len(test),
        **settings.shown(),
        "seed": seed,
    }
    classes = class_count(learned, test)
    title = f"{shown['images']}: perceptrons of width {settings.width}, block of depth {settings.depth}, rank {settings.rank}"
    note = _PUBLISHED_NOTE if published else _NOTE
    experiment = Experiment("fashion-mnist", title, "test accuracy", shown, note=note)
    with (
        one_blas_thread() if small else nullcontext()
    ):  # threads only wait for each other on products of small matrices
        _train(experiment, settings, learned, test, classes, seed, progress, checkpoint)
    return experiment


def _train(
    experiment: Experiment,
    settings: Settings,
    learned: Samples,
    test: Samples,
    classes: int,
    seed: int,
    progress: Progress | None,
    checkpoint: Checkpoint | None,
) -> None:
    """Add the curves of the three networks."""
    for label, network in starts(settings, learned, classes, seed).items():
        callbacks = [_watched(label, progress), Evaluation(test)]
        if label == ORIGINAL:
            diagnostics = UpdateDiagnostics(network, learned, rank=classes, count=min(40, settings.width))
            callbacks.append(diagnostics)
            experiment.settings["weights of the updates"] = diagnostics.names
        run = train(
            network,
            learned,
            settings.optimizer,
            batch_size=settings.batch_size,
            iterations=settings.iterations,
            record_every=settings.record_every,
            ema_decay=settings.ema_decay,
            callback=combined(*callbacks),
            seed=seed,
            checkpoint=checkpoint,
        )
        experiment.curves.append(Curve(label, uninterrupted(run), "accuracy", np.max))


def _watched(label: str, progress: Progress | None):
    def callback(snapshot: Snapshot) -> Mapping[str, float]:
        if progress is not None:
            progress(label, snapshot)
        return {}

    return callback


def draw(experiment: Experiment, path: Path) -> None:
    """Write two PNGs: accuracies to `path`, and beside it, named NAME-updates.png, how low-dimensional the updates are."""
    curves = [(curve.label, curve.run.history) for curve in experiment.curves]
    best = max(float(np.max(history["accuracy"])) for _, history in curves)
    plot_errors(
        path, experiment.title, experiment.error, curves,
        logarithmic=False, column="accuracy", limits=(best - 0.1, min(1.0, best + 0.02)),
    )  # fmt: skip
    original = next(curve for curve in experiment.curves if curve.label == ORIGINAL)
    plot_updates(
        updates_path(path), f"{experiment.settings['images']}: singular values of W(t) - W(0), network with the {ORIGINAL}",
        experiment.settings["weights of the updates"], original.run.history,
    )  # fmt: skip


def updates_path(path: Path) -> Path:
    """Where `draw` puts the second picture."""
    return path.with_name(f"{path.stem}-updates{path.suffix}")
