"""A deep linear block in a perceptron on FashionMNIST: what compressing it saves, and what a step costs beside PyTorch.

    python benchmarks/nonlinear_block.py [--seeds 5] [--iterations 1250] [--steps-only]

Hidden widths 512, block of depth 3, r-hat 20, batches of 256, 12,000 training images, all 10,000 test images, single precision.
Step times are the least over rounds in which all contenders take turns; the time to an accuracy is the iterations to it, of
runs whose accuracy is measured every 50, times that of a step, so that other work on the machine does not enter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click
import numpy as np
from cases import print_table, write_result

from dmf.experiments.fashion import COMPRESSED, ORIGINAL, PLAIN, Settings, starts
from dmf.experiments.images import fashion_mnist
from dmf.nonlinear import SGD, Evaluation, Network, Samples, train

TRAINED = 12_000
TORCH = "PyTorch, perceptron"


@click.command()
@click.option("--seeds", default=5)
@click.option("--iterations", default=Settings.iterations)
@click.option("--steps", default=20, help="Steps of each contender in a round.")
@click.option("--rounds", default=5)
@click.option("--steps-only", is_flag=True, help="Only the times of steps; nothing is written.")
def main(seeds: int, iterations: int, steps: int, rounds: int, steps_only: bool) -> None:
    """Time steps, then train the three networks from several seeds."""
    learned, test = fashion_mnist()
    settings = Settings(iterations=iterations)
    order = np.random.default_rng(0).permutation(len(learned))[:TRAINED]
    data = learned.take(order)
    times = step_times(settings, data, steps, rounds)
    print(f"step of {settings.batch_size} samples, least of {rounds} rounds of {steps}")
    print_table(
        ["", "ms", "x PyTorch"], [[name, f"{1e3 * t:.2f}", t / times.get(TORCH, np.nan)] for name, t in times.items()]
    )
    if steps_only:
        return
    runs = []
    for seed in range(seeds):
        runs.append(one_seed(settings, data, test, seed, times))
        print(f"seed {seed}:", ", ".join(f"{key} {value:.4g}" for key, value in runs[-1].items()), flush=True)
    summary = {key: spread([run[key] for run in runs]) for key in runs[0]}
    print_table(["", "mean", "least", "most"], [[key, *value.values()] for key, value in summary.items()])
    write_result(
        "nonlinear_block",
        {
            "settings": vars(settings) | {"training images": len(data), "test images": len(test), "seeds": seeds},
            "seconds_per_step": times,
            "step_over_pytorch": times[PLAIN] / times[TORCH] if TORCH in times else None,
            "summary": summary,
            "runs": runs,
        },
    )


def one_seed(settings: Settings, data: Samples, test: Samples, seed: int, times: dict[str, float]) -> dict[str, float]:
    """Accuracies of the three networks, and the times to the best one of the plain network."""
    histories = {}
    for label, network in starts(settings, data, seed).items():
        run = train(
            network, data, SGD(settings.step_size, settings.momentum), batch_size=settings.batch_size,
            iterations=settings.iterations, record_every=settings.record_every, callback=Evaluation(test), seed=seed,
        )  # fmt: skip
        histories[label] = run.history
    goal = float(histories[PLAIN]["accuracy"].max())
    result = {f"best, {PLAIN}": goal}
    seconds = {}
    for label, history in histories.items():
        result[f"final, {label}"] = float(history["accuracy"][-1])
        there = np.flatnonzero(history["accuracy"] >= goal)
        # A run that never gets there counts with the whole budget: for the original in our disfavour, for the compressed one not.
        reached = int(history.iteration[there[0] if there.size else -1])
        result[f"iterations to it, {label}"] = reached
        result[f"reached, {label}"] = float(there.size > 0)
        seconds[label] = reached * times[label]
        result[f"seconds to it, {label}"] = seconds[label]
    result["time, compressed over original"] = seconds[COMPRESSED] / seconds[ORIGINAL]
    result["points, compressed less original"] = 100 * (result[f"final, {COMPRESSED}"] - result[f"final, {ORIGINAL}"])
    return result


def spread(values: list[float]) -> dict[str, float]:
    """Mean, least and most."""
    return {"mean": float(np.mean(values)), "least": float(np.min(values)), "most": float(np.max(values))}


def step_times(settings: Settings, data: Samples, steps: int, rounds: int) -> dict[str, float]:
    """Seconds of a step of each contender, the least over rounds."""
    contenders: dict[str, Callable[[], Any]] = {
        label: stepper(network, settings, data, steps) for label, network in starts(settings, data, 0).items()
    }
    plain = starts(settings, data, 0)[PLAIN]
    theirs = torch_stepper(plain, settings, data, steps)
    if theirs is not None:
        contenders[TORCH] = theirs
    found = {name: np.inf for name in contenders}
    for step in contenders.values():
        step()
    for _ in range(rounds):
        for name, step in contenders.items():
            begin = time.perf_counter()
            step()
            found[name] = min(found[name], (time.perf_counter() - begin) / steps)
    return {name: float(seconds) for name, seconds in found.items()}


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
