"""What gradient flow conserves, and how fast gradient descent loses it.

Under the flow W_l' = -lambda W_l - alpha_l dW_l every matrix ``C_l = W_{l+1}^T W_{l+1} / alpha_{l+1} - W_l W_l^T / alpha_l``
obeys C_l' = -2 lambda C_l, for any observations: ``W_{l+1}^T dW_{l+1} = dW_l W_l^T``. With alpha_l = 1 this is the usual
balancedness; with the discrepant rate alpha on W_1 and W_L it is ``W_2^T W_2 - W_1 W_1^T / alpha`` at the input, and for
scalars ``w_outer^2 - alpha w_inner^2``. A step of gradient descent moves it, exactly, to

    C_l^+ = (1 - eta lambda)^2 C_l + eta^2 (alpha_{l+1} dW_{l+1}^T dW_{l+1} - alpha_l dW_l dW_l^T),

so the drift per unit of time eta * iteration is proportional to eta.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, namespace, number
from dmf.arrays.checks import check_option, layer_factors
from dmf.arrays.linalg import conjugate_transpose
from dmf.models import DeepLinearNetwork


def balancedness(network: DeepLinearNetwork, outer_scale: float = 1.0) -> tuple[Array, ...]:
    """What the gradient flow with discrepant rates conserves.

    Parameters
    ----------
    network : DeepLinearNetwork
        Of depth L.
    outer_scale : float, > 0
        alpha, rate of W_1 and W_L relative to the others.

    Returns
    -------
    tuple of L - 1 arrays, shapes (w_l, w_l)
        ``W_{l+1}^T W_{l+1} / alpha_{l+1} - W_l W_l^T / alpha_l`` for l = 1..L-1; empty for depth 1.

    Raises
    ------
    ArgumentError
        If `outer_scale` is out of range.

    References
    ----------
    .. [1] Arora, Cohen, Hazan, ICML 2018 (arXiv 1802.06509), theorem 1, for alpha = 1.
    """
    factors = layer_factors(network.depth, check_option("outer_scale", outer_scale, strictly=True)).tolist()
    pairs = zip(network.weights, network.weights[1:], factors, factors[1:], strict=False)
    return tuple(
        (1 / b) * (conjugate_transpose(above) @ above) - (1 / a) * (below @ conjugate_transpose(below))
        for below, above, a, b in pairs
    )


class BalanceDrift:
    """Callback: how far the conserved quantities have drifted since the start, layer by layer.

    Returns for each recorded iteration t "drift", the Frobenius norms of ``C_l(t) - (1 - eta lambda)^{2t} C_l(0)``, and
    "balance", those of C_l(t); float64 arrays of shape (L - 1,).

    Parameters
    ----------
    start : DeepLinearNetwork
        The network at iteration 0.
    outer_scale : float, > 0
        alpha of the descent.
    weight_decay : float, >= 0
        lambda of the descent.
    step_size : float, >= 0
        eta of the descent; only needed with weight decay.

    Raises
    ------
    ArgumentError
        If an option is out of range.
    """

    def __init__(
        self, start: DeepLinearNetwork, outer_scale: float = 1.0, weight_decay: float = 0.0, step_size: float = 0.0
    ) -> None:
        check_option("weight_decay", weight_decay)
        check_option("step_size", step_size, strictly=weight_decay > 0)
        self._start = balancedness(start, outer_scale)
        self._outer_scale = outer_scale
        self._shrink = (1 - step_size * weight_decay) ** 2

    def __call__(self, snapshot: Any) -> Mapping[str, np.ndarray]:
        """Drift of ``snapshot.network`` at ``snapshot.iteration``."""
        now = balancedness(snapshot.network, self._outer_scale)
        kept = self._shrink**snapshot.iteration
        xp = namespace(*snapshot.network.weights)

        def norms(matrices):
            return np.array([number(xp.linalg.vector_norm(m)) for m in matrices])

        differences = [c - kept * start for c, start in zip(now, self._start, strict=True)]
        return {"drift": norms(differences), "balance": norms(now)}
