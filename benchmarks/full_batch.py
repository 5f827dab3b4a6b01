"""The paper's nonlinear experiment by its own protocol, all 60,000 images of FashionMNIST in every step, on a device.

    python benchmarks/full_batch.py [--seeds 5] [--device cuda]
    python benchmarks/full_batch.py --seeds 1 --images 12000 --device cpu --checkpoint runs.npz      # an hour of an idle core

Hidden widths 512, block of depth 3, r-hat 20, no biases, 1,250 iterations, accuracies of the weights themselves on 10,000 test
images every 50 iterations. The compressed block starts from random orthogonal factors, as published, and from the singular
subspaces of the gradient. The optimiser, Adam with a step of 0.001 for all, is ours: the paper names none. Seconds are those of
training, callbacks aside. Prints means over seeds, and writes results/full_batch.json after each seed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from cases import print_table, write_result
from nonlinear_block import compared, spread, without_infinities

from dmf.arrays.backend import move
from dmf.experiments.fashion import COMPRESSED, ORIGINAL, PLAIN, Settings, starts
from dmf.experiments.images import class_count, fashion_mnist
from dmf.nonlinear import Evaluation, Samples, train
from dmf.solvers import Checkpoint

STARTS = {"random orthogonal": False, "spectral": True}


@click.command()
@click.option("--seeds", default=5)
@click.option("--iterations", default=1_250)
@click.option("--images", default=60_000, help="So many of the training images, fewer to try it.")
@click.option("--device", default="cuda", show_default=True)
@click.option("--checkpoint", type=Path, help="Where runs are kept; started again, it goes on from there.")
def main(seeds: int, iterations: int, images: int, device: str, checkpoint: Path | None) -> None:
    """Train the networks from several seeds, and compare them."""
    settings = replace(Settings().as_published(), iterations=iterations)
    kept = None if checkpoint is None else Checkpoint(checkpoint, resume=True)
    learned, test = fashion_mnist()
    learned = learned.take(np.arange(images))
    learned, test = (Samples(move(part.inputs, device), move(part.targets, device)) for part in (learned, test))
    runs: dict[str, list[dict[str, float]]] = {start: [] for start in STARTS}
    for seed in range(seeds):
        found = {
            PLAIN: trained(PLAIN, settings, learned, test, seed, kept),
            ORIGINAL: trained(ORIGINAL, settings, learned, test, seed, kept),
        }
        for start, spectral in STARTS.items():
            found[COMPRESSED] = trained(COMPRESSED, replace(settings, spectral=spectral), learned, test, seed, kept)
            seconds = {label: part[2] for label, part in found.items()}
            both = compared({label: part[:2] for label, part in found.items()}, seconds, 0.0)
            runs[start].append(both | {f"seconds of a step, {label}": took for label, took in seconds.items()})
        summary = {start: {key: spread([run[key] for run in of]) for key in of[0]} for start, of in runs.items()}
        shown = {"settings": settings.shown(), "images": images, "device": device, "seeds": seed + 1}
        write_result("full_batch", without_infinities(shown | {"summary": summary, "runs": runs}))
    for start, numbers in summary.items():
        print_table(
            [f"compressed block: {start}", *numbers[f"best, {PLAIN}"]], [[k, *v.values()] for k, v in numbers.items()]
        )


def trained(
    label: str, settings: Settings, data: Samples, test: Samples, seed: int, checkpoint: Checkpoint | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Iterations, accuracies at them, and seconds of a step."""
    history = train(
        starts(settings, data, class_count(data), seed)[label], data, settings.optimizer,
        iterations=settings.iterations, record_every=settings.record_every, callback=Evaluation(test), seed=seed,
        checkpoint=checkpoint,
    ).history  # fmt: skip
    print(f"seed {seed}, {label}: best {np.nanmax(history['accuracy']):.4f}, {history.seconds[-1]:.1f} s", flush=True)
    return history.iteration, np.nan_to_num(history["accuracy"]), float(history.seconds[-1]) / settings.iterations


if __name__ == "__main__":
    main()
