"""Which training is recorded on a device: chains of plain weights, blocks and activations, with steps that are small."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dmf.arrays.backend import library
from dmf.kernels.gpu_network import ACTIVATIONS, Linear, NetworkSteps, Rule
from dmf.nonlinear.layers import Activation, DeepLinearBlock, Dense
from dmf.nonlinear.network import Network
from dmf.nonlinear.samples import Samples
from dmf.solvers.optimizers import SGD, Adam

_MOST_OPERATIONS = 2e10  # of a step; beyond, cuBLAS gains more than launches cost


def recorded_steps(
    network: Network, samples: Samples, optimizer: Any, loss: str, batch_size: int, ema_decay: float
) -> NetworkSteps | None:
    """Recorded steps for this training; None where array code does them: off a device, for other layers, for large steps."""
    rule, chain = _rule(optimizer), _chain(network)
    operations = 6 * batch_size * network.n_parameters  # a product and a sum for each, in one pass forward and two back
    if library(samples.inputs) != "cupy" or not rule or not chain or operations > _MOST_OPERATIONS:
        return None
    shapes = [tuple(array.shape) for array in network.parameters]
    return NetworkSteps(
        chain, shapes, network.rates, samples.inputs, samples.targets, batch_size, loss, rule, ema_decay
    )


def _rule(optimizer: Any) -> Rule | None:
    """Only of these types themselves: one derived from them may step in another way."""
    if type(optimizer) is Adam:
        options = optimizer.step_size, optimizer.beta1, optimizer.beta2, optimizer.epsilon
        return Rule("adam", 2, options, (optimizer.beta1, optimizer.beta2))
    if type(optimizer) is SGD:
        return Rule("descend", int(optimizer.momentum > 0), (optimizer.step_size, optimizer.momentum))
    return None


def _chain(network: Network) -> list[Linear] | None:
    """Linear maps, each with the activation that follows, which has a kernel; none at either end or after another one."""
    chain: list[Linear] = []
    place = 0
    for layer in network.layers:
        if type(layer) is Dense:
            chain.append(Linear(place, None if layer.bias is None else place + 1))
        elif type(layer) is DeepLinearBlock:
            chain += [Linear(place + k) for k in range(layer.depth - 1)]
            chain.append(Linear(place + layer.depth - 1, None if layer.bias is None else place + layer.depth))
        elif type(layer) is Activation and layer.name in ACTIVATIONS and chain and not chain[-1].activation:
            chain[-1] = replace(chain[-1], activation=layer.name)
        else:
            return None
        place += len(layer.parameters)
    return None if chain[-1].activation else chain
