"""A deep linear block in a convolutional network and in a transformer of PyTorch: plain, original, compressed.

    python benchmarks/torch_block.py      # pip install '.[torch,sklearn]'; writes results/torch_block.json

On scikit-learn's digits (1,400 to train on, 397 to test), Adam with 0.001, batches of 128, single precision, one thread. In the
convolutional network the block stands in place of the linear layer between the convolutions and the last one, in the transformer
(patches of 2 x 2 pixels, one encoder layer) in place of the first linear layer of the encoder. Depth 3, inner width 20 where
compressed. The step size is not chosen for any of the three. Step times are the least over rounds in which they take turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import click
import numpy as np
import torch
from cases import print_table, write_result

from dmf.experiments.images import digits
from dmf.nonlinear.torch_layers import TorchDeepLinearBlock

DEPTH, RANK, SCALE, BATCH, STEP = 3, 20, 1.0, 128, 1e-3
PLAIN, ORIGINAL, COMPRESSED = "plain", "original block", "compressed block"


class Patches(torch.nn.Module):
    """Images (n, 1, 8, 8) as 16 tokens of width 64, with learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Conv2d(1, 64, 2, stride=2)
        self.position = torch.nn.Parameter(0.02 * torch.randn(16, 64))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Tokens (n, 16, 64)."""
        return self.embed(images).flatten(2).transpose(1, 2) + self.position


class Mean(torch.nn.Module):
    """Average over the tokens."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """From (n, tokens, width) to (n, width)."""
        return tokens.mean(1)


def convolutional() -> tuple[torch.nn.Module, torch.nn.Module, str]:
    """The model, and the owner and name of the layer that a block replaces."""
    nn = torch.nn
    convolutions = nn.Conv2d(1, 16, 3, padding=1), nn.GELU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.GELU()
    model = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(512, 128), nn.GELU(), nn.Linear(128, 10))
    return model, model, "5"


def transformer() -> tuple[torch.nn.Module, torch.nn.Module, str]:
    """The same of a small vision transformer."""
    encoder = torch.nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, activation="gelu", batch_first=True)
    return torch.nn.Sequential(Patches(), encoder, Mean(), torch.nn.Linear(64, 10)), encoder, "linear1"


MODELS = {"convolutional network": convolutional, "transformer": transformer}


def started(kind: str, block: str, seed: int, images: torch.Tensor, labels: torch.Tensor):
    """A model at its start, and a function that trains it on a batch of these positions."""
    torch.manual_seed(seed)
    model, owner, name = MODELS[kind]()
    groups = []
    if block != PLAIN:
        layer = TorchDeepLinearBlock.orthogonal(getattr(owner, name), DEPTH, scale=SCALE, seed=seed)
        setattr(owner, name, layer)
        if block == COMPRESSED:
            setattr(owner, name, layer.spectral_start(RANK, lambda: cost(model(images), labels), scale=SCALE))
        groups = getattr(owner, name).parameter_groups(STEP)
    grouped = {id(parameter) for group in groups for parameter in group["params"]}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in grouped]
    optimizer = torch.optim.Adam([{"params": rest}, *groups], lr=STEP)

    def step(batch: torch.Tensor) -> None:
        optimizer.zero_grad()
        cost(model(images[batch]), labels[batch]).backward()
        optimizer.step()

    return model, step


cost = torch.nn.functional.cross_entropy


def tensors(samples) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 1, 8, 8) and labels."""
    return torch.tensor(samples.inputs).reshape(-1, 1, 8, 8), torch.tensor(samples.targets)


def accuracy(kind: str, block: str, seed: int, epochs: int, train, test) -> float:
    """Share of the test images that a trained model gets right."""
    model, step = started(kind, block, seed, *train)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(train[1]), generator=generator).split(BATCH):
            step(batch)
    with torch.no_grad():
        return float((model.eval()(test[0]).argmax(1) == test[1]).double().mean())


def step_seconds(steps: dict[str, Callable], rounds: int, count: int = 5) -> dict[str, float]:
    """The least seconds of a step of each over rounds in which they take turns."""
    batch = torch.arange(BATCH)
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            begin = time.perf_counter()
            for _ in range(count):
                step(batch)
            found[name].append((time.perf_counter() - begin) / count)
    return {name: min(seconds) for name, seconds in found.items()}


@click.command()
@click.option("--seeds", default=5)
@click.option("--epochs", default=30)
@click.option("--rounds", default=20)
def main(seeds: int, epochs: int, rounds: int) -> None:
    """Train, time, print a table, write results/torch_block.json."""
    torch.set_num_threads(1)
    train, test = map(tensors, digits())
    rows = []
    for kind in MODELS:
        ready = {block: started(kind, block, 0, *train) for block in (PLAIN, ORIGINAL, COMPRESSED)}
        times = step_seconds({block: step for block, (_, step) in ready.items()}, rounds)
        for block, (model, _) in ready.items():
            found = np.array([accuracy(kind, block, seed, epochs, train, test) for seed in range(seeds)])
            rows.append(
                {
                    "model": kind,
                    "block": block,
                    "parameters": sum(parameter.numel() for parameter in model.parameters()),
                    "accuracy": float(found.mean()),
                    "standard deviation": float(found.std(ddof=1)),
                    "milliseconds of a step": 1e3 * times[block],
                }
            )
    print_table(list(rows[0]), [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows])
    write_result("torch_block", {"seeds": seeds, "epochs": epochs, "depth": DEPTH, "rank": RANK, "rows": rows})


if __name__ == "__main__":
    main()
