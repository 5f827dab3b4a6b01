"""Arguments of the theory as numbers: singular values, the rate of each layer, what is recorded."""

from __future__ import annotations

import numpy as np

from dmf.arrays.backend import as_array, floating, to_host
from dmf.arrays.checks import REDUCTIONS, check_choice, check_option, layer_factors
from dmf.errors import ArgumentError


def descent_coefficients(
    depth: int, step_size: float, outer_scale: float, weight_decay: float, reduction: str, n_measurements: int
) -> tuple[np.ndarray, float]:
    """Rate of each layer's gradient (L,) of the summed loss, and the factor ``1 - eta lambda`` of its weight.

    The loss "mean" is the summed one over `n_measurements`; weight decay is not part of the loss and keeps its rate.
    """
    check_option("step_size", step_size, strictly=True)
    check_option("outer_scale", outer_scale)
    check_option("weight_decay", weight_decay)
    check_choice("reduction", reduction, REDUCTIONS)
    divisor = n_measurements if reduction == "mean" else 1
    return step_size / divisor * layer_factors(depth, outer_scale), 1 - step_size * weight_decay


def recorded_iterations(iterations: int, record_every: int) -> np.ndarray:
    """0, every multiple of `record_every`, and the last iteration."""
    check_option("iterations", iterations, whole=True)
    check_option("record_every", record_every, least=1, whole=True)
    steps = np.arange(0, iterations + 1, record_every)
    return steps if steps[-1] == iterations else np.append(steps, iterations)


def checked_values(singular_values) -> np.ndarray:
    """Singular values as a float64 vector; ArgumentError unless they are finite, at least 0 and at least one."""
    values = to_host(floating(as_array(singular_values, "singular_values"), "singular_values")).astype(float)
    if values.ndim != 1 or not values.size or not np.all(np.isfinite(values)) or np.any(values < 0):
        raise ArgumentError(
            f"singular_values={singular_values!r}, but they are a sequence of at least one finite number of at least 0.",
            argument="singular_values",
            value=singular_values,
            limit=0,
        )
    return values
