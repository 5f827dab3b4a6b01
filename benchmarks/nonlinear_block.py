"""A deep linear block in a perceptron on FashionMNIST: what compressing it saves, and what a step costs beside PyTorch.

    python benchmarks/nonlinear_block.py [--seeds 5] [--iterations 500] [--choose] [--steps-only]

Hidden widths 512, block of depth 3, r-hat 20, batches of 256, 12,000 training images, all 10,000 test images, single precision.
Step times are the least over rounds in which all contenders take turns; the time to an accuracy is the number of iterations to
it (measured every 50) times that of a step, so that other work on the machine does not enter, plus the seconds of the compressed
block's spectral start. A run that never gets there counts as infinitely long (null in the file). With --choose, step sizes of
the three networks and the outer scale are chosen first, on 10,000 training images that nothing is trained on.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import click
import numpy as np
from cases import print_table, write_result
from threadpoolctl import threadpool_limits

from dmf.experiments.fashion import COMPRESSED, ORIGINAL, PLAIN, Settings, starts
from dmf.experiments.images import fashion_mnist
from dmf.nonlinear import SGD, Evaluation, Network, Samples, spectral_start, train

TRAINED, VALIDATED = 12_000, 10_000
SETTLED = 5  # last records, whose mean accuracy counts as settled
STEP_SIZES, OUTER_SCALES = (0.01, 0.02, 0.05, 0.1), (1.0, 2.0, 4.0)
CHOICE_SEED = 100  # none of those that are reported
TORCH = "PyTorch, perceptron"


@click.command()
@click.option("--seeds", default=5)
@click.option("--iterations", default=500)
@click.option("--steps", default=20, help="Steps of each contender in a round; a run of ours takes one gradient more.")
@click.option("--rounds", default=12)
@click.option("--workers", default=2, help="Seeds trained at a time, each on one thread.")
@click.option("--choose", "chosen", is_flag=True, help="Choose step size and outer scale on validation images first.")
@click.option("--steps-only", is_flag=True, help="Only the times of steps.")
def main(seeds: int, iterations: int, steps: int, rounds: int, workers: int, chosen: bool, steps_only: bool) -> None:
    """Time steps, then train the three networks from several seeds."""
    settings, choice = Settings(iterations=iterations), []
    each = dict.fromkeys((PLAIN, ORIGINAL, COMPRESSED), settings)
    if chosen:
        with processes(workers) as pool:
            each, choice = choose(settings, pool)
    data, _, test = images()
    rounds_of = step_times(settings, data, steps, rounds)
    times = {name: float(seconds.min()) for name, seconds in rounds_of.items()}
    over = {name: float(np.median(seconds / rounds_of.get(TORCH, np.nan))) for name, seconds in rounds_of.items()}
    print(
        f"step of {settings.batch_size} samples, {rounds} rounds of {steps}: the least, and the median of ratios in a round"
    )
    rows = [[name, f"{1e3 * t:.2f}", t / times.get(TORCH, np.nan), over[name]] for name, t in times.items()]
    print_table(["", "ms", "x PyTorch", "median"], rows)
    result = {
        "settings": {label: vars(own) for label, own in each.items()},
        "images": {"training": len(data), "test": len(test)},
        "seeds": seeds,
        "seconds_per_step": times,
    }
    if chosen:
        result["choice on validation images"] = choice
    if TORCH in times:
        result |= {
            "perceptron_step_over_pytorch": times[PLAIN] / times[TORCH],
            "perceptron_step_over_pytorch_median": over[PLAIN],
        }
    if steps_only:
        write_result("nonlinear_step", result)
        return
    setup = {PLAIN: 0.0, ORIGINAL: 0.0, COMPRESSED: start_seconds(settings, data)}
    with processes(workers) as pool:
        runs = list(pool.map(one_seed, [each] * seeds, range(seeds)))
    for run in runs:
        seconds = {label: setup[label] + run[f"iterations to it, {label}"] * times[label] for label in setup}
        run |= {f"seconds to it, {label}": value for label, value in seconds.items()}
        run["time to it, compressed over original"] = ratio(seconds[COMPRESSED], seconds[ORIGINAL])
    summary = {key: spread([run[key] for run in runs]) for key in runs[0]}
    print(f"seconds of the compressed start: {setup[COMPRESSED]:.3g}; 'reached' is a number of the {seeds} seeds")
    print_table(["", *summary[f"best, {PLAIN}"]], [[key, *value.values()] for key, value in summary.items()])
    reached = {label: int(sum(run[f"reached, {label}"] for run in runs)) for label in setup}
    print_table(["network", "reached"], [[label, f"{count} of {seeds}"] for label, count in reached.items()])
    result |= {"seconds_of_compressed_start": setup[COMPRESSED], "seeds_that_reached_it": reached}
    write_result("nonlinear_block", without_infinities(result | {"summary": summary, "runs": runs}))


def processes(workers: int) -> ProcessPoolExecutor:
    """A pool of fresh processes."""
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))


def images() -> tuple[Samples, Samples, Samples]:
    """12,000 training images and 10,000 other ones to choose settings on, the same for all seeds; all test images."""
    learned, test = fashion_mnist()
    order = np.random.default_rng(0).permutation(len(learned))
    return learned.take(order[:TRAINED]), learned.take(order[TRAINED : TRAINED + VALIDATED]), test


def trained(
    settings: Settings, network: Network, data: Samples, evaluated: Samples, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Iterations, and accuracies on `evaluated` at them; 0 where a diverging run has none."""
    history = train(
        network, data, SGD(settings.step_size, settings.momentum), batch_size=settings.batch_size,
        iterations=settings.iterations, record_every=settings.record_every, callback=Evaluation(evaluated), seed=seed,
    ).history  # fmt: skip
    return history.iteration, np.nan_to_num(history["accuracy"])


def choose(settings: Settings, pool: Executor) -> tuple[dict[str, Settings], list[dict[str, Any]]]:
    """Settings of each network, by its settled accuracy on the validation images; and what was tried.

    Single accuracies will not do: at constant steps they scatter by a point from record to record.
    """
    grid = [
        (label, replace(settings, step_size=step, outer_scale=scale))
        for label in (PLAIN, ORIGINAL, COMPRESSED)
        for step in STEP_SIZES
        for scale in (OUTER_SCALES if label == COMPRESSED else (1.0,))
    ]
    choice = list(pool.map(validated, [own for _, own in grid], [label for label, _ in grid]))
    print("chosen on validation images")
    print_table(list(choice[0]), [[str(value) for value in found.values()] for found in choice])
    each = {}
    for label in (PLAIN, ORIGINAL, COMPRESSED):
        tried = [k for k, (of, _) in enumerate(grid) if of == label]
        each[label] = grid[max(tried, key=lambda k: choice[k]["settled"])][1]
        print(f"{label}: step_size={each[label].step_size:g}, outer_scale={each[label].outer_scale:g}")
    return each, choice


@threadpool_limits.wrap(limits=1)
def validated(settings: Settings, label: str) -> dict[str, Any]:
    """Accuracies of one network on the validation images."""
    data, validation, _ = images()
    _, accuracies = trained(settings, starts(settings, data, CHOICE_SEED)[label], data, validation, CHOICE_SEED)
    return {
        "network": label,
        "step_size": settings.step_size,
        "outer_scale": settings.outer_scale if label == COMPRESSED else None,
        "best": float(accuracies.max()),
        "final": float(accuracies[-1]),
        "settled": float(accuracies[-SETTLED:].mean()),
    }


@threadpool_limits.wrap(limits=1)
def one_seed(each: dict[str, Settings], seed: int) -> dict[str, float]:
    """Accuracies of the three networks, and the iterations to the best one of the plain network."""
    data, _, test = images()
    found = {label: trained(own, starts(own, data, seed)[label], data, test, seed) for label, own in each.items()}
    goal = float(found[PLAIN][1].max())
    result = {f"best, {PLAIN}": goal}
    for label, (iterations, accuracies) in found.items():
        there = np.flatnonzero(accuracies >= goal)
        result[f"final, {label}"] = float(accuracies[-1])
        result[f"settled, {label}"] = float(accuracies[-SETTLED:].mean())
        result[f"best, {label}"] = float(accuracies.max())
        result[f"iterations to it, {label}"] = float(iterations[there[0]]) if there.size else np.inf
        result[f"reached, {label}"] = float(there.size > 0)
    for kind in ("final", "settled"):
        points = 100 * (result[f"{kind}, {COMPRESSED}"] - result[f"{kind}, {ORIGINAL}"])
        result[f"{kind} points, compressed less original"] = points
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
    block = starts(settings, data, 0)[ORIGINAL]
    found = []
    for _ in range(rounds):
        begin = time.perf_counter()
        spectral_start(block, settings.rank, data, outer_scale=settings.outer_scale)
        found.append(time.perf_counter() - begin)
    return min(found)


def step_times(settings: Settings, data: Samples, steps: int, rounds: int) -> dict[str, np.ndarray]:
    """Seconds of a step of each contender, one number for each of the rounds in which they take turns."""
    networks = starts(settings, data, 0)
    contenders: dict[str, Callable[[], Any]] = {
        label: stepper(network, settings, data, steps) for label, network in networks.items()
    }
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
    optimizer = SGD(settings.step_size, settings.momentum)
    return lambda: train(network, data, optimizer, batch_size=settings.batch_size, iterations=steps, record_every=steps)


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
    optimizer = torch.optim.SGD(model.parameters(), settings.step_size, momentum=settings.momentum)
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
