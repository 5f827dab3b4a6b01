"""Deep LoRA on a few-shot language task: a small transformer that knows Python's manual meets Python's code.

    python benchmarks/language_adaptation.py      # pip install '.[torch]'; writes results/language_adaptation.json

A transformer of characters (two layers of width 32, contexts of 32 characters) is trained on the texts of `pydoc_data.topics`,
which Python ships. It then adapts to source code of the standard library, from few passages of 33 characters, all in one batch,
by 40 steps of Adam; the loss (nats for each character) is measured on 256 passages of other modules. Adapters are put on every
linear layer of the encoder:

- LoRA: two factors, one of them zero at the start;
- narrow: the factors of Deep LoRA, but U and V random;
- compressed: Deep LoRA, U and V the singular vectors of the gradient at the start; outer factors slow (gamma 0.01), or as fast as
  the others.

Step sizes are chosen for each adapter and number of passages from one grid, by the loss on passages of further modules at the
lowest and the highest rank, with a seed that is not reported. Three seeds train a transformer and draw passages each.
"""

from __future__ import annotations

import sysconfig
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import product
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import click
import numpy as np
import torch
from cases import print_table, write_result

from dmf.nonlinear import LowRankAdapter, deep_lora_factors
from dmf.nonlinear.torch_layers import TorchAdapter

CONTEXT, WIDTH, HEADS, LAYERS = 32, 32, 2, 2
LEARNED = ("argparse", "inspect", "pickle", "tarfile", "typing", "unittest/mock")
VALIDATED, TESTED = ("subprocess", "doctest", "ssl"), ("_pydecimal", "statistics", "ast")
COUNTS, RANKS, STEP_SIZES, ITERATIONS = (8, 64), (2, 8, 32), (3e-4, 1e-3, 3e-3, 1e-2), 40
MEASURED = 256  # passages

cost = torch.nn.functional.cross_entropy


class Attention(torch.nn.Module):
    """Causal attention, its projections plain linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.out = torch.nn.Linear(WIDTH, 3 * WIDTH), torch.nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (n, length, width) to the same."""
        n, length, _ = x.shape
        q, k, v = self.project(x).reshape(n, length, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.transpose(1, 2).reshape(n, length, WIDTH))


class Layer(torch.nn.Module):
    """Attention and a perceptron, each added to what it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norms = Attention(), torch.nn.ModuleList(torch.nn.LayerNorm(WIDTH) for _ in range(2))
        self.up, self.down = torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From (n, length, width) to the same."""
        x = x + self.attention(self.norms[0](x))
        return x + self.down(torch.nn.functional.gelu(self.up(self.norms[1](x))))


class Transformer(torch.nn.Module):
    """Logits of the next of 128 characters."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(128, WIDTH), torch.nn.Linear(WIDTH, 128)
        self.position = torch.nn.Parameter(0.02 * torch.randn(CONTEXT, WIDTH))
        self.layers = torch.nn.Sequential(*(Layer() for _ in range(LAYERS)), torch.nn.LayerNorm(WIDTH))

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """From (n, CONTEXT) to (n, CONTEXT, 128)."""
        return self.head(self.layers(self.embed(text) + self.position))

    def loss(self, passages: torch.Tensor) -> torch.Tensor:
        """Mean over characters, of passages (n, CONTEXT + 1)."""
        return cost(self(passages[:, :-1]).flatten(0, 1), passages[:, 1:].flatten())


def encoded(text: str) -> np.ndarray:
    """Codes of the characters; 127 for what is not ASCII."""
    return np.array([min(ord(character), 127) for character in text])


def code_of(modules: tuple[str, ...]) -> np.ndarray:
    """Source of modules of the standard library."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    return encoded("\n".join((folder / f"{module}.py").read_text(encoding="utf-8") for module in modules))


def passages(text: np.ndarray, count: int, seed: int) -> torch.Tensor:
    """Random passages (count, CONTEXT + 1) of a text."""
    starts = np.random.default_rng(seed).integers(0, len(text) - CONTEXT, count)
    return torch.tensor(text[starts[:, None] + np.arange(CONTEXT + 1)])


def pretrained(text: np.ndarray, seed: int, steps: int) -> Transformer:
    """A transformer trained on the manual."""
    torch.manual_seed(seed)
    model = Transformer()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    falling = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        optimizer.zero_grad()
        model.loss(passages(text, 16, [seed, step])).backward()
        optimizer.step()
        falling.step()
    return model


Start = Callable[[torch.nn.Linear, int, int], TorchAdapter]


def narrow(linear: torch.nn.Linear, rank: int, seed: int) -> TorchAdapter:
    """Deep LoRA from random directions."""
    weight = linear.weight.detach()
    random = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    return TorchAdapter(LowRankAdapter(weight, linear.bias.detach(), deep_lora_factors(random, rank, scale=0.3)))


def compressed(gamma: float) -> Start:
    """Deep LoRA, from the gradient that is there."""
    return lambda linear, rank, seed: TorchAdapter.deep_lora(linear, rank, scale=0.3, outer_rate=gamma)


ADAPTERS: dict[str, Start] = {
    "LoRA": lambda linear, rank, seed: TorchAdapter.lora(linear, rank, seed=seed),
    "narrow": narrow,
    "compressed, gamma 0.01": compressed(0.01),
    "compressed, gamma 1": compressed(1.0),
}
ALL_WEIGHTS = "all weights"


def linears(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str, torch.nn.Linear]]:
    """Owner, name and layer of each linear layer of the encoder."""
    for owner in list(model.modules()):
        for name, child in list(owner.named_children()):
            if isinstance(child, torch.nn.Linear):
                yield owner, name, child


def adapted(source: Transformer, name: str, rank: int, few: torch.Tensor, step_size: float, seed: int) -> Transformer:
    """The transformer after training adapters on few passages."""
    model = deepcopy(source)
    groups: list[dict[str, Any]] = [{"params": list(model.parameters()), "lr": step_size}]
    if name != ALL_WEIGHTS:
        model.zero_grad()
        model.loss(few).backward()
        groups = []
        for k, (owner, attribute, linear) in enumerate(linears(model.layers)):
            adapter = ADAPTERS[name](linear, rank, 1_000 * seed + k)
            setattr(owner, attribute, adapter)
            groups += adapter.parameter_groups(step_size)
    optimizer = torch.optim.Adam(groups)
    for _ in range(ITERATIONS):
        optimizer.zero_grad()
        model.loss(few).backward()
        optimizer.step()
    return model


@torch.no_grad()
def measured(model: Transformer, held_out: torch.Tensor) -> float:
    """Loss on passages that nothing was trained on."""
    return float(model.loss(held_out))


@click.command()
@click.option("--seeds", default=3)
@click.option("--steps", default=600, help="Of the training on the manual.")
def main(seeds: int, steps: int) -> None:
    """Train, choose, adapt, print a table, write results/language_adaptation.json."""
    torch.set_num_threads(1)
    begin = time.perf_counter()
    manual, code = encoded("\n".join(topics.values())), code_of(LEARNED)
    validation, test = (passages(code_of(m), MEASURED, 0) for m in (VALIDATED, TESTED))
    sources = [pretrained(manual, seed, steps) for seed in range(seeds + 1)]
    own = passages(manual, MEASURED, 1)
    before = {
        "manual": [measured(m, own) for m in sources[:seeds]],
        "code": [measured(m, test) for m in sources[:seeds]],
    }
    rows = []
    for count, name in product(COUNTS, (*ADAPTERS, ALL_WEIGHTS)):
        ranks = (0,) if name == ALL_WEIGHTS else RANKS

        def losses(rank: int, seed: int, step_size: float, held_out: torch.Tensor, name=name, count=count) -> float:
            few = passages(code, count, [seed, count])
            return measured(adapted(sources[seed], name, rank, few, step_size, seed), held_out)

        tried = {
            step: np.mean([losses(rank, seeds, step, validation) for rank in sorted({ranks[0], ranks[-1]})])
            for step in STEP_SIZES
        }
        step = min(tried, key=lambda step: tried[step])
        found = np.array([[losses(rank, seed, step, test) for seed in range(seeds)] for rank in ranks])
        row: dict[str, Any] = {"passages": count, "adapter": name, "step size": step}
        row |= (
            {f"rank {rank}": float(mean) for rank, mean in zip(RANKS, found.mean(1), strict=False)}
            if len(found) > 1
            else {}
        )
        row |= {"all ranks": float(found.mean()), "over ranks": float(np.ptp(found.mean(1))), "runs": found.tolist()}
        rows.append(row)
        print(f"{time.perf_counter() - begin:.0f} s", {k: v for k, v in row.items() if k != "runs"}, flush=True)
    header = ["passages", "adapter", "step size", *(f"rank {rank}" for rank in RANKS), "all ranks", "over ranks"]
    cells = [[row.get(key, "") for key in header] for row in rows]
    print_table(header, [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in line] for line in cells])
    settings = {
        "seeds": seeds,
        "steps": steps,
        "iterations": ITERATIONS,
        "loss before": before,
        "characters": len(manual),
    }
    write_result("language_adaptation", {**settings, "rows": rows})


if __name__ == "__main__":
    main()
