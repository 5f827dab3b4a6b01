"""Make own_reference.npz: short trajectories by finite differences of dense losses, with NumPy alone.

    python tests/paper/make_own_reference.py

Nothing of dmf is imported and no gradient is derived by hand. Each entry of each layer is moved up and down by h. As the
product of the layers is affine in one entry, the loss is a quadratic polynomial in it, and for a quadratic polynomial the
central difference ``(f(x + h) - f(x - h)) / 2h`` is exact for every h: h = 1 makes rounding smallest.
"""

from functools import reduce
from pathlib import Path

import numpy as np

D1, D2, DEPTH, RANK, STEPS, H = 6, 5, 3, 2, 20, 1.0
STEP_SIZES = {"full": 0.5, "completion": 0.4, "sensing": 0.02}
OUTER_SCALE, WEIGHT_DECAY = 2.0, 0.01


def end_to_end(weights):
    return reduce(lambda below, weight: weight @ below, weights)


def gradient(loss, weights):
    gradients = [np.zeros_like(w) for w in weights]
    for layer, weight in enumerate(weights):
        for index in np.ndindex(weight.shape):
            ends = []
            for step in (H, -H):
                moved = [w.copy() for w in weights]
                moved[layer][index] += step
                ends.append(loss(end_to_end(moved)))
            gradients[layer][index] = (ends[0] - ends[1]) / (2 * H)
    return gradients


def descend(loss, weights, step_size):
    """Losses at iterations 0..STEPS and the weights at the end."""
    rates = [step_size * OUTER_SCALE, *[step_size] * (DEPTH - 2), step_size * OUTER_SCALE]
    losses = [loss(end_to_end(weights))]
    for _ in range(STEPS):
        gradients = gradient(loss, weights)
        weights = [
            (1 - step_size * WEIGHT_DECAY) * w - rate * g for w, g, rate in zip(weights, gradients, rates, strict=True)
        ]
        losses.append(loss(end_to_end(weights)))
    return losses, weights


def reference():
    """Name -> array: the problems, their starts, and the trajectories."""
    rng = np.random.default_rng(20240501)
    target = rng.standard_normal((D1, RANK)) @ rng.standard_normal((RANK, D2))
    mask = rng.random((D1, D2)) < 0.7
    operator = rng.standard_normal((12, D1, D2))
    labels = np.array([np.sum(a * target) for a in operator])
    sizes = (D2, RANK, RANK, D1)
    start = [0.6 * rng.standard_normal((b, a)) for a, b in zip(sizes, sizes[1:], strict=False)]
    losses = {
        "full": lambda matrix: 0.5 * np.mean((matrix - target) ** 2),
        "completion": lambda matrix: 0.5 * np.mean((matrix[mask] - target[mask]) ** 2),
        "sensing": lambda matrix: (
            0.5 * np.mean([(np.sum(a * matrix) - y) ** 2 for a, y in zip(operator, labels, strict=True)])
        ),
    }
    data = {
        "target": target,
        "mask": mask,
        "operator": operator,
        "labels": labels,
        "outer_scale": OUTER_SCALE,
        "weight_decay": WEIGHT_DECAY,
        **{f"start_{k}": w for k, w in enumerate(start, start=1)},
    }
    for kind, loss in losses.items():
        data[f"{kind}_loss"], final = descend(loss, start, STEP_SIZES[kind])
        data[f"{kind}_step_size"] = STEP_SIZES[kind]
        data |= {f"{kind}_final_{k}": w for k, w in enumerate(final, start=1)}
    return data


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_name("own_reference.npz"), **reference())
