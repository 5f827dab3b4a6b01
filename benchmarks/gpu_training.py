"""What a step of training costs on a device beside PyTorch, and what the first use of a fresh machine costs; run by gpu.py."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dmf.arrays.backend import cupy_module, to_host
from dmf.nonlinear import Adam, Network, Samples, perceptron, recorded, spectral_start, train, with_block

SIZES, BATCH, RANK, STEPS, ROUNDS = (784, 512, 512, 10), 256, 20, 200, 5
BLOCK, COMPRESSED, TORCH = "with a block", "compressed block", "PyTorch, plain"
SHAPE, RATED = (943, 1_682), 100_000  # of the ratings of the first use


def problem() -> tuple[Network, Samples]:
    """Random images whose labels a random network of one layer gives, 12,000 of them; single precision, on the device."""
    cupy, generator = cupy_module(), np.random.default_rng(0)
    images = generator.random((12_000, SIZES[0]), np.float32)
    labels = np.argmax((images - 0.5) @ generator.standard_normal((SIZES[0], SIZES[-1]), np.float32), axis=1)
    data = Samples(cupy.asarray(images), cupy.asarray(labels))
    return perceptron(SIZES, like=data.inputs), data


def training_steps() -> dict[str, Any]:
    """Milliseconds of a step of Adam on batches of 256, the least over rounds in which all take turns, and the last loss of each.

    "every loss": with a record of every step, as PyTorch's loss is read at every step. "off": the largest deviation of recorded
    steps from those of array code, over the largest weight, after 20 steps.
    """
    plain, data = problem()
    block = with_block(plain)
    networks = {"plain": plain, BLOCK: block, COMPRESSED: spectral_start(block, RANK, data)}
    contenders = {name: stepper(network, data, STEPS) for name, network in networks.items()}
    contenders |= {f"{name}, every loss": stepper(network, data, 1) for name, network in networks.items()}
    if (theirs := torch_stepper(plain, data)) is not None:
        contenders[TORCH] = theirs
    found: dict[str, dict[str, float]] = {}
    for round_number in range(ROUNDS + 1):  # the first one compiles
        for name, step in contenders.items():
            cupy_module().cuda.Device().synchronize()
            begin = time.perf_counter()
            loss = step()
            took = 1e3 * (time.perf_counter() - begin) / STEPS
            if round_number:
                found[name] = {"milliseconds": min(took, found.get(name, {}).get("milliseconds", took)), "loss": loss}
    return {"contenders": found, "off": deviation(plain, data)}


def stepper(network: Network, data: Samples, record_every: int) -> Callable[[], float]:
    """Function that takes the steps and returns the last loss."""
    options = {"batch_size": BATCH, "iterations": STEPS, "record_every": record_every}
    return lambda: float(train(network, data, Adam(), **options).history.loss[-1])


def deviation(network: Network, data: Samples) -> float:
    """See `training_steps`."""
    options: dict[str, Any] = {"batch_size": BATCH, "iterations": 20, "record_every": 20}
    most, runs = recorded._MOST_OPERATIONS, [train(network, data, Adam(), **options)]
    recorded._MOST_OPERATIONS = 0
    runs.append(train(network, data, Adam(), **options))
    recorded._MOST_OPERATIONS = most
    pairs = zip(*(map(to_host, run.network.parameters) for run in runs), strict=True)
    return max(float(np.max(np.abs(one - other)) / np.max(np.abs(other))) for one, other in pairs)


def torch_stepper(network: Network, data: Samples) -> Callable[[], float] | None:
    """The same perceptron and optimiser in PyTorch, its loss read at each step; None without PyTorch."""
    try:
        import torch
    except ImportError:
        return None
    inputs, labels = (torch.tensor(to_host(a), device="cuda") for a in (data.inputs, data.targets))

    def run() -> float:
        modules: list[Any] = []
        for weight, bias in zip(network.parameters[::2], network.parameters[1::2], strict=True):
            linear = torch.nn.Linear(weight.shape[1], weight.shape[0], device="cuda")
            linear.weight.data, linear.bias.data = (torch.tensor(to_host(a), device="cuda") for a in (weight, bias))
            modules += [linear, torch.nn.ReLU()]
        model, cost = torch.nn.Sequential(*modules[:-1]), torch.nn.CrossEntropyLoss()
        optimizer = torch.optim.Adam(model.parameters())
        for k in range(STEPS):
            if k * BATCH % len(inputs) < BATCH:
                order = torch.randperm(len(inputs), device="cuda")
            index = order[k * BATCH % len(inputs) :][:BATCH]
            optimizer.zero_grad()
            loss = cost(model(inputs[index]), labels[index])
            loss.backward()
            optimizer.step()
            last = loss.item()
        return last

    return run


def first_use() -> dict[str, Any]:
    """Seconds of ``dmf complete --device cuda`` on 100,000 ratings, the first time with an empty cache of CuPy, and again.

    And the number of kernels that were compiled, CuPy's and dmf's.
    """
    generator = np.random.default_rng(0)
    rows, cols = (np.minimum(n * generator.random(RATED) ** 2, n - 1).astype(int) for n in SHAPE)
    left, right = (generator.standard_normal((n, 6)) for n in SHAPE)
    ratings = np.clip(np.round(3.5 + 0.4 * np.sum(left[rows] * right[cols], axis=1)), 1, 5)
    with tempfile.TemporaryDirectory() as name:
        folder, seconds = Path(name), []
        table = np.unique(np.column_stack([rows, cols]), axis=0, return_index=True)
        lines = [f"{r},{c},{ratings[k]:g}" for (r, c), k in zip(*table, strict=True)]
        (folder / "ratings.csv").write_text("\n".join(["user,item,rating", *lines]))
        program = "from dmf_cli.main import main; main()"
        command = [sys.executable, "-c", program, "complete", "ratings.csv", "-o", "model.npz", "--device", "cuda"]
        environment = os.environ | {"CUPY_CACHE_DIR": str(folder / "cache")}
        for _ in range(2):
            begin = time.perf_counter()
            subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
            seconds.append(time.perf_counter() - begin)
        kernels = len(list((folder / "cache").glob("*.cubin")))
    return {"first": seconds[0], "again": seconds[1], "kernels": kernels}
