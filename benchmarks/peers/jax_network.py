"""Deep linear networks as one writes them in JAX: a dense loss, automatic differentiation, jit, float64."""

from __future__ import annotations

from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

jax.config.update("jax_enable_x64", True)


class _Descent:
    """Gradient descent on ``loss(product, *data)``; data are arguments, as XLA would fold large constants into the program."""

    def __init__(self, loss_of_product, data, weights, target, rates) -> None:
        self._start, self._data = tuple(jnp.asarray(w) for w in weights), data
        known = jnp.asarray(target)

        def product(layers):
            return reduce(jnp.matmul, layers[::-1])  # W_L first: the cheap order for a compressed network

        def loss(layers, data):
            return loss_of_product(product(layers), *data)

        def step(layers, data):
            gradients = jax.grad(loss)(layers, data)
            return tuple(w - rate * g for w, g, rate in zip(layers, gradients, rates, strict=True))

        def loop(layers, data, count):
            return lax.fori_loop(0, count, lambda _, state: step(state, data), layers)

        self._step, self._loop = jax.jit(step), jax.jit(loop)
        self._error = jax.jit(lambda layers: jnp.linalg.norm(product(layers) - known) / jnp.linalg.norm(known))

    def call_per_step(self, iterations: int, layers=None) -> tuple[jax.Array, ...]:
        """Weights after `iterations` calls of one jitted step, from `layers` or from the start."""
        layers = self._start if layers is None else layers
        for _ in range(iterations):
            layers = self._step(layers, self._data)
        return jax.block_until_ready(layers)

    def one_loop(self, iterations: int, layers=None) -> tuple[jax.Array, ...]:
        """Weights after one call of a jitted `lax.fori_loop`, from `layers` or from the start."""
        layers = self._start if layers is None else layers
        return jax.block_until_ready(self._loop(layers, self._data, iterations))

    def until(self, tolerance: float, form: str = "one_loop", every: int = 100, most: int = 10**6) -> tuple[int, float]:
        """Descend until the relative error is at most `tolerance`, looked at after each `every` iterations.

        `form` is "call_per_step" or "one_loop". Returns the iterations made and the error.
        """
        layers, iterations, error = self._start, 0, np.inf
        while error > tolerance and iterations < most:
            layers = getattr(self, form)(every, layers)
            iterations, error = iterations + every, float(self._error(layers))
        return iterations, error


class JaxNetwork(_Descent):
    """Completion: ``1/2 mean (W_L...W_1 - target)^2`` over the entries seen.

    Parameters
    ----------
    weights : sequence of arrays
        (W_1, ..., W_L) at the start.
    target, mask : arrays, shape (d1, d2)
    rates : sequence of float
        Step size of each layer.
    """

    def __init__(self, weights, target, mask, rates) -> None:
        count = int(mask.sum())

        def loss(product, known, seen):
            return 0.5 * jnp.sum((seen * product - known) ** 2) / count

        data = jnp.asarray(np.where(mask, target, 0.0)), jnp.asarray(mask, float)
        super().__init__(loss, data, weights, target, rates)


class JaxFactorization(_Descent):
    """Factorization: ``1/2 mean (W_L...W_1 - target)^2``; parameters as of `JaxNetwork`."""

    def __init__(self, weights, target, rates) -> None:
        def loss(product, known):
            return 0.5 * jnp.mean((product - known) ** 2)

        super().__init__(loss, (jnp.asarray(target),), weights, target, rates)


class JaxSensing(_Descent):
    """Sensing: ``1/2 sum_k (<A_k, W_L...W_1> - <A_k, target>)^2``.

    Parameters
    ----------
    weights : sequence of arrays
        (W_1, ..., W_L) at the start.
    target : array, shape (d1, d2)
    matrices : array, shape (m, d1, d2)
    rates : sequence of float
        Step size of each layer.
    form : {"published", "einsum"}
        Measurements as the sum of the elementwise product, or as one contraction.
    """

    def __init__(self, weights, target, matrices, rates, form: str = "einsum") -> None:
        def measure(product, matrices):
            if form == "published":
                return jnp.sum(matrices * product, axis=(1, 2))
            return jnp.einsum("kij,ij->k", matrices, product)

        def loss(product, matrices, labels):
            return 0.5 * jnp.sum((measure(product, matrices) - labels) ** 2)

        labels = np.asarray(matrices).reshape(len(matrices), -1) @ np.ravel(target)
        super().__init__(loss, (jnp.asarray(matrices), jnp.asarray(labels)), weights, target, rates)
