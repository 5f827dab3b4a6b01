"""A deep linear block in a perceptron on FashionMNIST: what compressing it saves, and what a step costs beside PyTorch.

    python benchmarks/nonlinear_block.py --steps-only                 # on an idle machine; writes results/nonlinear_step.json
    python benchmarks/nonlinear_block.py                              # five seeds; writes results/nonlinear_block.json
    python benchmarks/nonlinear_block.py --small-step                 # after --small-step --steps-only
    python benchmarks/nonlinear_block.py --choose                     # settings on validation images: nonlinear_choice.json

Hidden widths 512, block of depth 3, r-hat 20, batches of 256, 12,000 training images, all 10,000 test images, single precision;
1,250 iterations, as in the paper. Accuracies are those of the running average of the weights: at a constant step size those of
the weights themselves scatter by a point from record to record, so that the largest of a run would be that of its noise.

Five paired seeds are measured on the test images: how long each network needs to the best accuracy of the plain one, and, as that
is one number out of many close ones, to half a point below it. All three take Adam with the settings of the experiment, which are
those of --choose: the best accuracy of a run from a seed that is not reported, on 10,000 training images that nothing is trained
on, from one grid of step sizes and, for both blocks, of scales of their start. With --small-step, they all take SGD with one step
size that is below the best for each of them; the files' names then end in _small_step.

The time to an accuracy is the number of iterations to it (measured every 50) times that of a step, so that other work on the
machine does not enter, plus the seconds of the compressed block's spectral start. Step times are the least over rounds in which
all contenders take turns. A run that never gets there counts as infinitely long (null in the file).
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from typing import Any

import click
import numpy as np
from cases import RESULTS, print_table, write_result
from threadpoolctl import threadpool_limits

from dmf.experiments.fashion import COMPRESSED, ORIGINAL, PLAIN, Settings, starts
from dmf.experiments.images import class_count, fashion_mnist
from dmf.nonlinear import SGD, Adam, Evaluation, Network, Samples, spectral_start, train

TRAINED, VALIDATED = 12_000, 10_000
SMALL_STEP = {"optimizer": SGD(0.01, 0.9), "scale": 1.0, "outer_scale": 4.0}
STEP_SIZES, SCALES = (3e-4, 1e-3, 3e-3), (1.0, 1.4)
CHOICE_SEED = 100  # none of those that are reported
NETWORKS = (PLAIN, ORIGINAL, COMPRESSED)
UNAVERAGED, TORCH = "perceptron, weights not averaged", "PyTorch, perceptron, weights not averaged"
GOALS = {"the best of the perceptron": 0.0, "half a point below it": 0.005}
Curve = tuple[np.ndarray, np.ndarray]  # iterations, accuracies


@click.command()
@click.option("--seeds", default=5)
@click.option("--iterations", default=1_250)
@click.option("--steps", default=20, help="Steps of each contender in a round; a run of ours takes one gradient more.")
@click.option("--rounds", default=12)
@click.option("--workers", default=2, help="Runs at a time, each on one thread.")
@click.option("--small-step", is_flag=True, help="SGD with one small step size.")
@click.option("--steps-only", is_flag=True, help="Only the times of steps.")
@click.option("--choose", "chosen", is_flag=True, help="Only the choice of settings on validation images.")
def main(
    seeds: int, iterations: int, steps: int, rounds: int, workers: int, small_step: bool, steps_only: bool, chosen: bool
):
    """Time steps, or choose settings, or train the three networks from several seeds."""
    suffix = "_small_step" if small_step else ""
    settings = Settings(iterations=iterations, **(SMALL_STEP if small_step else {}))
    if steps_only:
        write_result(f"nonlinear_step{suffix}", timings(settings, steps, rounds))
        return
    if chosen:
        with processes(workers) as pool:
            write_result("nonlinear_choice", {"tried": choose(settings, pool)})
        return
    timed = json.loads((RESULTS / f"nonlinear_step{suffix}.json").read_text())
    times = timed["seconds_per_step"]
    with processes(workers) as pool:
        jobs = [(label, settings, seed) for seed in range(seeds) for label in NETWORKS]
        found = list(pool.map(tested, *zip(*jobs, strict=True)))
    curves = [
        dict(zip(NETWORKS, found[k : k + len(NETWORKS)], strict=True)) for k in range(0, len(jobs), len(NETWORKS))
    ]
    runs = [compared(of_one_seed, times, timed["seconds_of_compressed_start"]) for of_one_seed in curves]
    summary = {key: spread([run[key] for run in runs]) for key in runs[0]}
    print_table(["", *summary[f"best, {PLAIN}"]], [[key, *value.values()] for key, value in summary.items()])
    reached = {
        f"{label} to {goal}": int(sum(np.isfinite(run[f"seconds to {goal}, {label}"]) for run in runs))
        for goal, label in product(GOALS, NETWORKS)
    }
    print_table(["network", "seeds that get there"], [[what, str(count)] for what, count in reached.items()])
    result = {
        "settings": settings.shown(),
        "images": {"training": TRAINED, "test": len(images()[2])},
        "seeds": seeds,
        **{key: value for key, value in timed.items() if key != "machine"},
        "seeds_that_get_there": reached,
        "summary": summary,
        "runs": runs,
        "test accuracies": [
            {label: curve[1].tolist() for label, curve in of_one_seed.items()} for of_one_seed in curves
        ],
    }
    write_result(f"nonlinear_block{suffix}", without_infinities(result))


def timings(settings: Settings, steps: int, rounds: int) -> dict[str, Any]:
    """Seconds of a step of each contender and of the compressed start, with the ratios to PyTorch."""
    data, _, _ = images()
    found = step_times(settings, data, steps, rounds)
    times = {name: float(seconds.min()) for name, seconds in found.items()}
    result = {"seconds_per_step": times, "seconds_of_compressed_start": start_seconds(settings, data)}
    print(f"steps of {settings.batch_size} samples, the least over {rounds} rounds of {steps}")
    print_table(["", "ms"], [[name, f"{1e3 * seconds:.2f}"] for name, seconds in times.items()])
    if TORCH in found:
        result["perceptron_step_over_pytorch"] = times[UNAVERAGED] / times[TORCH]
        result["perceptron_step_over_pytorch_median"] = float(np.median(found[UNAVERAGED] / found[TORCH]))
        print(f"over PyTorch: {result['perceptron_step_over_pytorch']:.3g}, median of rounds "
              f"{result['perceptron_step_over_pytorch_median']:.3g}")  # fmt: skip
    return result


def processes(workers: int) -> ProcessPoolExecutor:
    """A pool of fresh processes."""
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


def images() -> tuple[Samples, Samples, Samples]:
    """12,000 training images and 10,000 other ones to choose settings on, the same for all seeds; all test images."""
    learned, test = fashion_mnist()
    order = np.random.default_rng(0).permutation(len(learned))
    return learned.take(order[:TRAINED]), learned.take(order[TRAINED : TRAINED + VALIDATED]), test


@threadpool_limits.wrap(limits=1)
def trained(label: str, settings: Settings, data: Samples, evaluated: Samples, seed: int) -> Curve:
    """Iterations, and accuracies of one network on `evaluated` at them; 0 where a diverging run has none."""
    history = train(
        starts(settings, data, class_count(data), seed)[label], data, settings.optimizer,
        batch_size=settings.batch_size, iterations=settings.iterations, record_every=settings.record_every,
        ema_decay=settings.ema_decay, callback=Evaluation(evaluated), seed=seed,
    ).history  # fmt: skip
    return history.iteration, np.nan_to_num(history["accuracy"])


def tested(label: str, settings: Settings, seed: int) -> Curve:
    """Iterations, and accuracies on the test images."""
    data, _, test = images()
    return trained(label, settings, data, test, seed)


def validated(label: str, settings: Settings) -> dict[str, Any]:
    """Accuracies of one network on the validation images."""
    data, validation, _ = images()
    _, accuracies = trained(label, settings, data, validation, CHOICE_SEED)
    return {
        "network": label,
        "step_size": settings.optimizer.step_size,
        "scale": settings.scale if label != PLAIN else None,
        "best": float(accuracies.max()),
        "final": float(accuracies[-1]),
    }


def choose(settings: Settings, pool: Executor) -> list[dict[str, Any]]:
    """What was tried, the best of each network first."""
    grid = [
        (label, replace(settings, optimizer=Adam(step), scale=scale))
        for label in NETWORKS
        for step in STEP_SIZES
        for scale in (SCALES if label != PLAIN else SCALES[:1])
    ]
    tried = list(pool.map(validated, *zip(*grid, strict=True)))
    tried.sort(key=lambda found: (NETWORKS.index(found["network"]), -found["best"]))
    print_table(list(tried[0]), [[str(value) for value in found.values()] for found in tried])
    return tried


def compared(found: dict[str, Curve], step_seconds: dict[str, float], start: float) -> dict[str, float]:
    """Accuracies of the three networks from one seed, and the time to those of the plain network; infinite for never."""
    result = {}
    for label, (_, accuracies) in found.items():
        result |= {f"best, {label}": float(accuracies.max()), f"final, {label}": float(accuracies[-1])}
    pairs = (COMPRESSED, ORIGINAL), (ORIGINAL, PLAIN), (COMPRESSED, PLAIN)
    for kind, (label, other) in product(("best", "final"), pairs):
        result[f"{kind} points, {label} less {other}"] = 100 * (result[f"{kind}, {label}"] - result[f"{kind}, {other}"])
    for goal, below in GOALS.items():
        for label, (iterations, accuracies) in found.items():
            there = np.flatnonzero(accuracies >= result[f"best, {PLAIN}"] - below)
            count = float(iterations[there[0]]) if there.size else np.inf
            result[f"iterations to {goal}, {label}"] = count
            result[f"seconds to {goal}, {label}"] = count * step_seconds[label] + start * (label == COMPRESSED)
        times = [result[f"seconds to {goal}, {label}"] for label in (COMPRESSED, ORIGINAL)]
        result[f"time to {goal}, compressed over original"] = ratio(*times)
    return result


def spread(values: list[float]) -> dict[str, float]:
    """Median, mean, least and most; the median of an even number of values is the larger of the middle two."""
    median = sorted(values)[len(values) // 2]
    return {
        "median": float(median),
        "mean": float(np.mean(values)),
        "least": float(np.min(values)),
        "most": float(np.max(values)),
    }


def ratio(first: float, second: float) -> float:
    """`first` over `second`; infinite where both are, as nothing was gained."""
    return first / second if np.isfinite(first) else np.inf


def without_infinities(value: Any) -> Any:
    """`value` with None for infinite numbers, which JSON has none of."""
    if isinstance(value, dict):
        return {key: without_infinities(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_infinities(item) for item in value]
    return None if isinstance(value, float) and np.isinf(value) else value


def start_seconds(settings: Settings, data: Samples, rounds: int = 3) -> float:
    """The least seconds that the compressed block's start takes from the network with the original block."""
    block = starts(settings, data, class_count(data), 0)[ORIGINAL]
    found = []
    for _ in range(rounds):
        begin = time.perf_counter()
        spectral_start(block, settings.rank, data, scale=settings.scale, outer_scale=settings.outer_scale)
        found.append(time.perf_counter() - begin)
    return min(found)


def step_times(settings: Settings, data: Samples, steps: int, rounds: int) -> dict[str, np.ndarray]:
    """Seconds of a step of each contender, one number for each of the rounds in which they take turns."""
    networks = starts(settings, data, class_count(data), 0)
    contenders: dict[str, Callable[[], Any]] = {
        label: stepper(network, settings, data, steps) for label, network in networks.items()
    }
    contenders[UNAVERAGED] = stepper(networks[PLAIN], replace(settings, ema_decay=0.0), data, steps)
    theirs = torch_stepper(networks[PLAIN], settings, data, steps)
    if theirs is not None:
        contenders[TORCH] = theirs
    for step in contenders.values():
        step()
    found = {name: np.empty(rounds) for name in contenders}
    for k in range(rounds):
        for name, step in contenders.items():
            begin = time.perf_counter()
            step()
            found[name][k] = (time.perf_counter() - begin) / steps
    return found


def stepper(network: Network, settings: Settings, data: Samples, steps: int) -> Callable[[], Any]:
    """Function that takes so many steps of ours."""
    optimizer = settings.optimizer
    return lambda: train(
        network, data, optimizer, batch_size=settings.batch_size, iterations=steps, record_every=steps,
        ema_decay=settings.ema_decay,
    )  # fmt: skip


def torch_stepper(network: Network, settings: Settings, data: Samples, steps: int) -> Callable[[], Any] | None:
    """The same perceptron, batches and optimiser in PyTorch, its loss read at each step as ours is; None without PyTorch."""
    try:
        import torch
    except ImportError:
        return None
    modules = []
    for weight, bias in zip(network.parameters[::2], network.parameters[1::2], strict=True):
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data, linear.bias.data = torch.tensor(weight), torch.tensor(bias)
        modules += [linear, torch.nn.ReLU()]
    model = torch.nn.Sequential(*modules[:-1])
    ours = settings.optimizer
    kind, more = (torch.optim.SGD, {"momentum": ours.momentum}) if isinstance(ours, SGD) else (torch.optim.Adam, {})
    optimizer = kind(model.parameters(), ours.step_size, **more)
    cost = torch.nn.CrossEntropyLoss()
    inputs, labels = torch.tensor(data.inputs), torch.tensor(data.targets)

    def run() -> None:
        order = torch.randperm(len(inputs))
        for k in range(steps):
            index = order[k * settings.batch_size % len(inputs) :][: settings.batch_size]
            optimizer.zero_grad()
            loss = cost(model(inputs[index]), labels[index])
            loss.backward()
            optimizer.step()
            loss.item()

    return run


if __name__ == "__main__":
    main()
