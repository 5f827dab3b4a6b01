"""A deep linear block in a perceptron on FashionMNIST: what compressing it saves, and what a step costs beside PyTorch.

    python benchmarks/nonlinear_block.py [--seeds 5] [--iterations 500] [--steps-only]

Hidden widths 512, block of depth 3, r-hat 20, batches of 256, 12,000 training images, all 10,000 test images, single precision.
Step times are the least over rounds in which all contenders take turns; the time to an accuracy is the number of iterations to
it (measured every 50) times that of a step, so that other work on the machine does not enter.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import click
import numpy as np
from cases import print_table, write_result
from threadpoolctl import threadpool_limits

from dmf.experiments.fashion import COMPRESSED, ORIGINAL, PLAIN, Settings, starts
from dmf.experiments.images import fashion_mnist
from dmf.nonlinear import SGD, Evaluation, Network, Samples, train

TRAINED = 12_000
TORCH = "PyTorch, perceptron"


@click.command()
@click.option("--seeds", default=5)
@click.option("--iterations", default=500)
@click.option("--steps", default=3, help="Steps of each contender in a round.")
@click.option("--rounds", default=40)
@click.option("--workers", default=2, help="Seeds trained at a time, each on one thread.")
@click.option("--steps-only", is_flag=True, help="Only the times of steps.")
def main(seeds: int, iterations: int, steps: int, rounds: int, workers: int, steps_only: bool) -> None:
    """Time steps, then train the three networks from several seeds."""
    settings = Settings(iterations=iterations)
    data, test = images()
    rounds_of = step_times(settings, data, steps, rounds)
    times = {name: float(seconds.min()) for name, seconds in rounds_of.items()}
    over = {name: float(np.median(seconds / rounds_of.get(TORCH, np.nan))) for name, seconds in rounds_of.items()}
    print(
        f"step of {settings.batch_size} samples, {rounds} rounds of {steps}: the least, and the median of ratios in a round"
    )
    rows = [[name, f"{1e3 * t:.2f}", t / times.get(TORCH, np.nan), over[name]] for name, t in times.items()]
    print_table(["", "ms", "x PyTorch", "median"], rows)
    result = {
        "settings": vars(settings) | {"training images": len(data), "test images": len(test), "seeds": seeds},
        "seconds_per_step": times,
    }
    if TORCH in times:
        result |= {
            "perceptron_step_over_pytorch": times[PLAIN] / times[TORCH],
            "perceptron_step_over_pytorch_median": over[PLAIN],
        }
    if steps_only:
        write_result("nonlinear_step", result)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        runs = list(pool.map(one_seed, [settings] * seeds, range(seeds)))
    for run in runs:
        seconds = {label: run[f"iterations to it, {label}"] * times[label] for label in (ORIGINAL, COMPRESSED)}
        run["time to it, compressed over original"] = seconds[COMPRESSED] / seconds[ORIGINAL]
    summary = {key: spread([run[key] for run in runs]) for key in runs[0]}
    print_table(["", "mean", "least", "most"], [[key, *value.values()] for key, value in summary.items()])
    write_result("nonlinear_block", result | {"summary": summary, "runs": runs})


def images() -> tuple[Samples, Samples]:
    """12,000 training images, the same for all seeds, and all test images."""
    learned, test = fashion_mnist()
    return learned.take(np.random.default_rng(0).permutation(len(learned))[:TRAINED]), test


@threadpool_limits.wrap(limits=1)
def one_seed(settings: Settings, seed: int) -> dict[str, float]:
    """Accuracies of the three networks, and the iterations to the best one of the plain network."""
    data, test = images()
    histories = {}
    for label, network in starts(settings, data, seed).items():
        run = train(
            network, data, SGD(settings.step_size, settings.momentum), batch_size=settings.batch_size,
            iterations=settings.iterations, record_every=settings.record_every, callback=Evaluation(test), seed=seed,
        )  # fmt: skip
        histories[label] = run.history
    goal = float(histories[PLAIN]["accuracy"].max())
    result = {f"best, {PLAIN}": goal}
    for label, history in histories.items():
        there = np.flatnonzero(history["accuracy"] >= goal)
        result[f"final, {label}"] = float(history["accuracy"][-1])
        result[f"best, {label}"] = float(history["accuracy"].max())
        # A run that never gets there counts with its whole budget, which flatters it: see `reached`.
        result[f"iterations to it, {label}"] = int(history.iteration[there[0] if there.size else -1])
        result[f"reached, {label}"] = float(there.size > 0)
    result["points, compressed less original"] = 100 * (result[f"final, {COMPRESSED}"] - result[f"final, {ORIGINAL}"])
    return result


def spread(values: list[float]) -> dict[str, float]:
    """Mean, least and most."""
    return {"mean": float(np.mean(values)), "least": float(np.min(values)), "most": float(np.max(values))}


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
