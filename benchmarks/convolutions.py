"""Kernels of convolutions at ranks that variational Bayes finds: planted ranks, and a network on scikit-learn's digits.

    python benchmarks/convolutions.py      # pip install '.[torch,sklearn]'; writes results/convolutions.json

Planted: kernels (out, in, 3, 3) of random ranks up to a fourth of the channels, neither more than five times the other, with
noise whose largest singular value is half of the smallest planted one, in both unfoldings. Errors are relative to the kernel
without noise: over that of the same factorisation with the ranks known, and over that of the projection to the planted frames,
which knows nearly all.

Network: 3 x 3 convolutions of 1 to 32, 32 to 64 (stride 2) and 64 to 64 channels, a linear layer; 1,400 images to train on, 397
to test, Adam with 0.001, batches of 128, 30 epochs. The last two convolutions are compressed, one after the other; then 10 epochs
of fine-tuning. For comparison a network of the compressed shape, trained from its random start for all 40 epochs, and the first
network for 10 epochs more.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from cases import print_table, write_result
from torch_block import BATCH, STEP, cost, tensors

from dmf.experiments.images import digits
from dmf.nonlinear import compress_convolution

EPOCHS, TUNING = 30, 10
SHAPES = ((32, 32), (64, 32), (128, 64))


def unfolded(tensor, mode):
    """Matrix with one axis of the kernel along its rows."""
    return np.moveaxis(tensor, mode, 0).reshape(tensor.shape[mode], -1)


def planted(shape, trials):
    """Share of kernels whose ranks are found, and errors."""
    found, known, projected = 0, [], []
    for seed in range(trials):
        rng = np.random.default_rng([seed, *shape])
        ranks = 1, 6
        while max(ranks) > 5 * min(ranks):
            ranks = tuple(int(rng.integers(1, n // 4 + 1)) for n in shape)
        frames = [np.linalg.qr(rng.standard_normal((n, r)))[0] for n, r in zip(shape, ranks, strict=True)]
        truth = np.einsum("oa,ib,abhw->oihw", *frames, rng.standard_normal((*ranks, 3, 3)))
        noise = rng.standard_normal(truth.shape)
        least = min(np.linalg.svd(unfolded(truth, m), compute_uv=False)[ranks[m] - 1] for m in (0, 1))
        noise *= 0.5 * least / max(np.linalg.norm(unfolded(noise, m), 2) for m in (0, 1))
        small = compress_convolution(truth + noise)
        found += small.ranks == ranks
        error = np.linalg.norm(small.merged() - truth)
        known.append(error / np.linalg.norm(compress_convolution(truth + noise, ranks).merged() - truth))
        u, v = (f @ f.T for f in frames)
        projected.append(error / np.linalg.norm(np.einsum("ao,bi,oihw->abhw", u, v, noise)))
    return {
        "shape": [*shape, 3, 3],
        "trials": trials,
        "found": found,
        "error_over_known_ranks": max(known),
        "error_over_known_frames": float(np.median(projected)),
    }


def network(seed):
    torch.manual_seed(seed)
    nn = torch.nn
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10)),
    )


def compressed(layer):
    """Three convolutions in place of one, and the ranks."""
    small = compress_convolution(layer.weight.detach())
    first, core, last = small.factors
    layers = (
        torch.nn.Conv2d(*first.shape[1::-1], 1, bias=False),
        torch.nn.Conv2d(*core.shape[1::-1], 3, stride=layer.stride, padding=layer.padding, bias=False),
        torch.nn.Conv2d(*last.shape[1::-1], 1),
    )
    with torch.no_grad():
        for new, kernel in zip(layers, (first, core, last), strict=True):
            new.weight.copy_(kernel)
        layers[-1].bias.copy_(layer.bias)
    return torch.nn.Sequential(*layers), small.ranks


def train(model, images, labels, epochs, seed):
    optimizer = torch.optim.Adam(model.parameters(), lr=STEP)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(labels), generator=generator).split(BATCH):
            optimizer.zero_grad()
            cost(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return model


def accuracy(model, test):
    with torch.no_grad():
        return float((model(test[0]).argmax(1) == test[1]).double().mean())


def size(model):
    """Parameters, and multiplications of one image."""
    count = [0]

    def seen(layer, _inputs, output):
        places = output.shape[-1] * output.shape[-2] if isinstance(layer, torch.nn.Conv2d) else 1
        count[0] += layer.weight.numel() * places

    hooks = [m.register_forward_hook(seen) for m in model.modules() if hasattr(m, "weight")]
    model(torch.zeros(1, 1, 8, 8))
    for hook in hooks:
        hook.remove()
    return sum(p.numel() for p in model.parameters()), count[0]


def digit_network(seeds):
    train_set, test = map(tensors, digits())
    stages: dict[str, list] = {}

    def note(stage, model, ranks=()):
        stages.setdefault(stage, []).append((*size(model), accuracy(model, test), ranks))

    for seed in range(seeds):
        model = train(network(seed), *train_set, EPOCHS, seed)
        note("trained", model)
        longer = network(seed)
        longer.load_state_dict(model.state_dict())
        note("trained on", train(longer, *train_set, TUNING, seed + 100))
        found = []
        for place in (2, 4):
            model[place], ranks = compressed(model[place])
            found.append(ranks)
            note(f"{len(found)} compressed", model, tuple(found))
        note("fine-tuned", train(model, *train_set, TUNING, seed + 100), tuple(found))
        for module in model.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        note("its shape from scratch", train(model, *train_set, EPOCHS + TUNING, seed), tuple(found))
    rows = []
    for stage, runs in stages.items():
        parameters, multiplications, accuracies, ranks = zip(*runs, strict=True)
        rows.append(
            {"stage": stage, "parameters": float(np.mean(parameters)), "multiply_adds": float(np.mean(multiplications))}
            | {"accuracy": float(np.mean(accuracies)), "standard_deviation": float(np.std(accuracies, ddof=1))}
            | {"ranks": [list(map(list, r)) for r in ranks]}
        )
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    kernels = [planted(shape, args.trials) for shape in SHAPES]
    print_table(list(kernels[0]), [list(map(str, row.values())) for row in kernels])
    stages = digit_network(args.seeds)
    names = ["stage", "parameters", "multiply_adds", "accuracy", "standard_deviation"]
    print_table(names, [[row[n] if n == "stage" else f"{row[n]:.6g}" for n in names] for row in stages])
    write_result("convolutions", {"planted": kernels, "digits": stages})


if __name__ == "__main__":
    main()
