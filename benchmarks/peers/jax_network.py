"""The compressed network as one writes it in JAX: a masked dense loss, automatic differentiation, jit, float64."""

from __future__ import annotations

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

jax.config.update("jax_enable_x64", True)


class JaxNetwork:
    """Gradient descent on ``1/2 mean (W_L...W_1 - target)^2`` over the entries seen.

    Parameters
    ----------
    weights : sequence of arrays
        (W_1, ..., W_L) at the start.
    target, mask : arrays, shape (d1, d2)
    rates : sequence of float
        Step size of each layer.
    """

    def __init__(self, weights, target, mask, rates) -> None:
        self._start = tuple(jnp.asarray(w) for w in weights)
        known, seen, count = jnp.asarray(np.where(mask, target, 0.0)), jnp.asarray(mask, float), int(mask.sum())

        def loss(layers):
            product = reduce(jnp.matmul, layers[::-1])  # W_L first: the cheap order for a compressed network
            return 0.5 * jnp.sum((seen * product - known) ** 2) / count

        def step(layers):
            gradients = jax.grad(loss)(layers)
            return tuple(w - rate * g for w, g, rate in zip(layers, gradients, rates, strict=True))

        self._loss, self._step = jax.jit(loss), jax.jit(step)
        self._loop = jax.jit(lambda layers, count: lax.fori_loop(0, count, lambda _, state: step(state), layers))

    def call_per_step(self, iterations: int) -> tuple[jax.Array, ...]:
        """Weights after `iterations` calls of one jitted step."""
        layers = self._start
        for _ in range(iterations):
            layers = self._step(layers)
        return jax.block_until_ready(layers)

    def one_loop(self, iterations: int) -> tuple[jax.Array, ...]:
        """Weights after one call of a jitted `lax.fori_loop`."""
        return jax.block_until_ready(self._loop(self._start, iterations))
