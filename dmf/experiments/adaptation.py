"""Few-sample adaptation: plain and deep low-rank adapters on a network that meets its images rotated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from dmf.arrays.threads import one_blas_thread
from dmf.errors import ObservationError
from dmf.experiments.adaptation_pictures import plot_adaptation
from dmf.experiments.images import class_count, digits, fashion_mnist
from dmf.nonlinear import SGD, Adam, Network, Samples, accuracy, deep_lora, lora, perceptron, train
from dmf.solvers import Checkpoint, Snapshot
from dmf.solvers.outcomes import uninterrupted
from dmf.solvers.packing import fingerprint

Progress = Callable[[str, Snapshot], None]
Optimizer = SGD | Adam
Start = Callable[[Network, int, Samples, float, int], Network]

ANGLE = 30  # degrees
ADAPTERS: dict[str, Start] = {
    "LoRA": lambda network, rank, few, scale, seed: lora(network, rank, scale=scale, seed=seed)
} | {
    f"Deep LoRA, gamma {gamma:g}": lambda network, rank, few, scale, seed, gamma=gamma: deep_lora(
        network, rank, few, scale=scale, outer_rate=gamma
    )
    for gamma in (0.0, 0.01, 1.0)
}
ALL_WEIGHTS, NOTHING = "all weights", "nothing trained"
_SEEDS_APART = 1_000  # between those of two values of `seed`
_SOURCE_STEPS, _SOURCE_BATCH = 400, 128
_IMAGES = 6_000  # of a part of a task, at most


@dataclass(frozen=True)
class _Sizes:
    hidden: int
    counts: tuple[int, ...]
    ranks: tuple[int, ...]
    seeds: int
    iterations: int
    optimizers: tuple[Optimizer, ...]
    scales: tuple[float, ...]  # of an adapter's start
    tuning_seeds: int


_FULL = _Sizes(
    128, (16, 64, 256), (8, 16, 32, 64), 20, 60,
    (*(SGD(step, 0.9) for step in (0.01, 0.03, 0.1)), *(Adam(step) for step in (1e-3, 3e-3, 1e-2))), (0.3, 1.0, 3.0), 5,
)  # fmt: skip
_SMALL = _Sizes(64, (16, 64), (8, 32), 3, 40, (SGD(0.03, 0.9), Adam(3e-3)), (0.3,), 2)


@dataclass(frozen=True)
class Adaptation:
    """Accuracies of adapted networks on rotated test images, with the settings that produced them.

    `accuracies` maps (adapter, samples) to an array (ranks, seeds), with one rank where there is none to choose; `tuning` maps
    the same pairs to the settings tried, with their accuracies on validation images at the lowest and the highest rank, best
    mean first.
    """

    title: str
    settings: dict[str, Any]
    accuracies: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    tuning: dict[tuple[str, int], list[dict[str, Any]]] = field(default_factory=dict)
    name: str = "adaptation"
    note: str = (
        "mean accuracy on test images ± standard deviation over seeds; 'over ranks': largest less smallest mean; "
        "'less LoRA': mean of paired differences ± its standard error; optimiser, step size and scale are chosen for each row "
        "on validation images, with other seeds than those shown, from one grid"
    )

    def rows(self) -> list[dict[str, Any]]:
        """One table row for each number of samples and adapter."""
        return [self._row(name, count) for name, count in self.accuracies]

    def _row(self, name: str, count: int) -> dict[str, Any]:
        found = self.accuracies[name, count]
        ranked = len(found) > 1
        chosen = self.tuning[name, count][0] if (name, count) in self.tuning else {"optimiser": "", "scale": ""}
        row: dict[str, Any] = {"samples": count, "adapter": name}
        row |= {"optimiser": chosen["optimiser"], "scale": str(chosen["scale"])}
        for k, rank in enumerate(self.settings["ranks"]):
            row[f"rank {rank}"] = _with_spread(found[k]) if ranked else ""
        row["all ranks"] = _with_spread(found.mean(axis=0))
        row["over ranks"] = f"{np.ptp(found.mean(axis=1)):.3f}" if ranked else ""
        difference = (found - self.accuracies["LoRA", count]).mean(axis=0)
        error = difference.std(ddof=1) / len(difference) ** 0.5
        row["less LoRA"] = "" if name == "LoRA" else f"{difference.mean():+.3f} ± {error:.3f}"
        return row

    def as_json(self) -> dict[str, Any]:
        """Settings, table and the accuracy of each run, as JSON holds them."""
        runs = [
            {
                "adapter": name,
                "samples": count,
                "accuracies": found.tolist(),
                "tuning": self.tuning.get((name, count), []),
            }
            for (name, count), found in self.accuracies.items()
        ]
        return {
            "experiment": self.name,
            "title": self.title,
            "settings": self.settings,
            "note": self.note,
            "table": self.rows(),
            "runs": runs,
        }


def _with_spread(values: np.ndarray) -> str:
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


@dataclass(frozen=True)
class _Task:
    """Upright images to train the network on; rotated ones to adapt to, to tune with, to test on."""

    source: Samples
    pool: Samples
    validation: Samples
    test: Samples


def _rotated(samples: Samples) -> Samples:
    from scipy.ndimage import rotate

    count, pixels = samples.inputs.shape
    side = round(pixels**0.5)
    images = rotate(samples.inputs.reshape(count, side, side), ANGLE, axes=(1, 2), reshape=False, order=1)
    return Samples(images.reshape(count, pixels), samples.targets)


def _task(train_set: Samples, test_set: Samples, most: int) -> _Task:
    """Half of the training images are the source's; of the others two thirds are the pool; each at most `_IMAGES`.

    ObservationError if the pool has fewer than `most` images.
    """
    half = len(train_set) // 2
    pool = half + 2 * half // 3
    if pool - half < most:
        raise ObservationError(
            f"there are {len(train_set)} training images, a third of which ({pool - half}) are there to adapt to, but {most} of "
            f"these are drawn. Pass at least {3 * most} training images.",
            argument="data",
            value=len(train_set),
            limit=3 * most,
        )
    parts = [(train_set, 0, half), (train_set, half, pool), (train_set, pool, 2 * half), (test_set, 0, len(test_set))]
    source, *targets = (part.take(np.arange(begin, min(end, begin + _IMAGES))) for part, begin, end in parts)
    return _Task(source, *map(_rotated, targets))


class _Runner:
    def __init__(
        self, task: _Task, sizes: _Sizes, seed: int, progress: Progress | None, checkpoint: Checkpoint | None
    ) -> None:
        self._task, self._sizes, self._first, self._progress = task, sizes, _SEEDS_APART * seed, progress
        self._checkpoint = checkpoint
        self._networks: dict[int, Network] = {}

    def network(self, seed: int) -> Network:
        """Trained on the source, once for each seed."""
        if seed not in self._networks:
            task, hidden = self._task, self._sizes.hidden
            source, classes = task.source, class_count(task.source, task.pool, task.validation, task.test)
            start = perceptron((source.inputs.shape[1], hidden, classes), seed=seed, like=source.inputs)
            self._networks[seed] = self._train(
                "source network", start, source, Adam(1e-3), _SOURCE_STEPS, _SOURCE_BATCH, seed
            )
        return self._networks[seed]

    def few(self, count: int, seed: int) -> Samples:
        """Rotated samples to adapt to, other ones for each seed."""
        generator = np.random.default_rng([seed, count])
        return self._task.pool.take(generator.choice(len(self._task.pool), count, replace=False))

    def adapted(self, name: str, rank: int, count: int, seed: int, optimizer: Optimizer, scale: float) -> Network:
        """Plain weights after training on `count` rotated samples."""
        network, few = self.network(seed), self.few(count, seed)
        start = ADAPTERS[name](network, rank, few, scale, seed) if name in ADAPTERS else network
        label = f"{name}, {count} samples"
        return self._train(label, start, few, optimizer, self._sizes.iterations, None, seed).merged()

    def fill(self, result: Adaptation, name: str, count: int) -> None:
        """Choose the settings of one row, then measure it."""
        sizes, task = self._sizes, self._task
        ranks, scales = (sizes.ranks, sizes.scales) if name in ADAPTERS else ((0,), (1.0,))

        def measured(samples: Samples, ranks: Sequence[int], seeds: range, *settings: Any) -> np.ndarray:
            """Accuracies, shape (ranks, seeds)."""

            def compute() -> np.ndarray:
                return np.array(
                    [
                        [accuracy(self.adapted(name, rank, count, seed, *settings), samples) for seed in seeds]
                        for rank in ranks
                    ]
                )

            if self._checkpoint is None:
                return compute()
            return self._checkpoint.array(compute, adapter=name, count=count, ranks=ranks, seeds=seeds, tried=settings)

        tried = []
        for optimizer, scale in product(sizes.optimizers, scales):
            found = measured(task.validation, sorted({ranks[0], ranks[-1]}), self.tuning_seeds, optimizer, scale)
            label = f"{type(optimizer).__name__} {optimizer.step_size:g}"
            tried.append(
                (
                    {
                        "optimiser": label,
                        "scale": scale if name in ADAPTERS else "",
                        "accuracies": found.mean(1).tolist(),
                    },
                    (optimizer, scale),
                )
            )
        tried.sort(key=lambda pair: -float(np.mean(pair[0]["accuracies"])))
        result.tuning[name, count] = [record for record, _ in tried]
        result.accuracies[name, count] = measured(task.test, ranks, self.seeds, *tried[0][1])

    @property
    def seeds(self) -> range:
        """Those that are reported."""
        return range(self._first, self._first + self._sizes.seeds)

    @property
    def tuning_seeds(self) -> range:
        """Those that settings are chosen with."""
        return range(self.seeds.stop, self.seeds.stop + self._sizes.tuning_seeds)

    def untrained(self) -> np.ndarray:
        """Accuracy of the source networks on the test images, shape (1, seeds)."""
        return np.array([[accuracy(self.network(seed), self._task.test) for seed in self.seeds]])

    def _train(
        self,
        label: str,
        start: Network,
        samples: Samples,
        optimizer: Optimizer,
        iterations: int,
        batch: int | None,
        seed: int,
    ) -> Network:
        def show(snapshot: Snapshot) -> None:
            if self._progress is not None:
                self._progress(label, snapshot)

        run = train(
            start, samples, optimizer, batch_size=batch, iterations=iterations, record_every=iterations, callback=show,
            seed=seed,
        )  # fmt: skip
        return uninterrupted(run).network


def adaptation(
    small: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    data: Path | None = None,
    checkpoint: Checkpoint | None = None,
) -> Adaptation:
    """Adapt networks to rotated images with few samples: plain LoRA, deep LoRA, all weights.

    Each seed trains a network on upright images and draws other samples of the same classes, rotated by 30 degrees, to adapt
    to, all in one batch. Optimiser, step size and start scale of each adapter and number of samples come from one grid, by
    the accuracy on validation images at the lowest and the highest rank, with seeds that are not reported.

    Parameters
    ----------
    small : bool
        Fewer samples, ranks and seeds.
    seed : int
        First of the seeds.
    progress : callable, optional
        Called with a label and a snapshot.
    data : path, optional
        Folder with FashionMNIST; scikit-learn's digits unless given.
    checkpoint : Checkpoint, optional
        Where the accuracies of each setting are kept once they are measured.

    Returns
    -------
    Adaptation

    Raises
    ------
    FileError
        If the folder does not hold square images.
    ObservationError
        If it holds too few, or too small ones.

    References
    ----------
    .. [1] Yaras et al., ICML 2024 (arXiv 2406.04112), section 4.
    """
    sizes = _SMALL if small else _FULL
    sets = digits() if data is None else fashion_mnist(data, square=True)
    pixels, rank = sets[0].inputs.shape[1], max(sizes.ranks)
    if pixels < rank:
        raise ObservationError(
            f"the images have {pixels} pixels, but adapters of rank {rank} are put on weights of as many columns. Pass images of "
            f"at least {rank} pixels.",
            argument="data",
            value=pixels,
            limit=rank,
        )
    task = _task(*sets, most=max(sizes.counts))
    images = "digits" if data is None else "FashionMNIST"
    settings = {
        "images": images, "angle": ANGLE, "hidden units": sizes.hidden, "samples": list(sizes.counts),
        "ranks": list(sizes.ranks), "seeds": sizes.seeds, "iterations": sizes.iterations, "batch": "all samples",
        "momentum of SGD": 0.9, "scales tried": list(sizes.scales),
        "seeds to choose them": sizes.tuning_seeds,
        "source images": len(task.source), "validation images": len(task.validation), "test images": len(task.test),
        "seed": seed,
    }  # fmt: skip
    result = Adaptation(f"Adaptation of {images} networks to images rotated by {ANGLE} degrees", settings)
    if checkpoint is not None:
        seen = tuple((part.inputs, part.targets) for part in (task.source, task.pool, task.validation, task.test))
        checkpoint.expect(experiment="adaptation", settings=settings, data=fingerprint(seen))
    runner = _Runner(task, sizes, seed, progress, checkpoint)
    with one_blas_thread():
        for count in sizes.counts:
            for name in (*ADAPTERS, ALL_WEIGHTS):
                runner.fill(result, name, count)
            result.accuracies[NOTHING, count] = runner.untrained()
    return result


def draw_adaptation(result: Adaptation, path: Path) -> None:
    """Write the figure of the experiment as a PNG: accuracy against rank for each number of samples."""
    panels = []
    for count in result.settings["samples"]:
        curves = {name: found for (name, number), found in result.accuracies.items() if number == count}
        panels.append((f"{count} samples (untrained: {curves.pop(NOTHING).mean():.3f})", curves))
    plot_adaptation(path, result.title, result.settings["ranks"], panels)
