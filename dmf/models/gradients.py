"""Gradients of a loss of the end-to-end matrix with respect to each layer, by hand.

With R the gradient of the loss with respect to ``W = W_L ... W_1``:  dW_l = (W_L...W_{l+1})^T R (W_{l-1}...W_1)^T.
Of R only two products with the factors ``left = W_L...W_2`` and ``right = W_1`` are needed, ``R right^T`` and
``left^T R``; all else is products of small matrices (Kwon et al. 2024, section 2). Of complex matrices every transpose is the
conjugate one.
"""

from __future__ import annotations

from collections.abc import Callable

from dmf.arrays.backend import Array, namespace
from dmf.arrays.linalg import conjugate_transpose, identity

Weights = tuple[Array, ...]


def loss_and_gradients(weights: Weights, evaluate: Callable[[Array, Array], tuple[Array, Array, Array]]):
    """Loss and its gradient with respect to each layer.

    Parameters
    ----------
    weights : tuple of arrays
        (W_1, ..., W_L).
    evaluate : callable
        ``evaluate(left, right)`` gives the loss at ``left @ right``, ``R right^T`` and ``left^T R``.

    Returns
    -------
    loss : array of shape ()
    gradients : tuple of arrays
        Shaped as `weights`.
    """
    namespace(*weights)
    if len(weights) == 1:  # the only depth at which a gradient is d1 x d2
        weight = weights[0]
        loss, _, gradient = evaluate(identity(weight.shape[0], weight), weight)
        return loss, (gradient,)
    if weights[0].shape[1] < weights[0].shape[0]:  # fewer numbers in what reaches a layer than in products of layers
        return _through_inputs(weights, evaluate)
    below = [None, *weights[1:2]]  # below[k] = W_{k+1} ... W_2
    for weight in weights[2:]:
        below.append(weight @ below[-1])
    loss, back, gradient = evaluate(below[-1], weights[0])
    gradients = [gradient]
    for layer in range(len(weights) - 1, 0, -1):  # back = (W_L...W_{layer+2})^T R W_1^T
        gradients.insert(1, back if layer == 1 else back @ conjugate_transpose(below[layer - 1]))
        if layer > 1:
            back = conjugate_transpose(weights[layer]) @ back
    return loss, tuple(gradients)


def _through_inputs(weights: Weights, evaluate: Callable[[Array, Array], tuple[Array, Array, Array]]):
    """`loss_and_gradients` through ``left = W_L`` and ``right = W_{L-1}...W_1``."""
    reached = [weights[0]]  # reached[k] = W_{k+1} ... W_1
    for weight in weights[1:-1]:
        reached.append(weight @ reached[-1])
    loss, last, back = evaluate(weights[-1], reached[-1])
    gradients = [last]
    for layer in range(len(weights) - 2, 0, -1):  # back = (W_L...W_{layer+2})^T R
        gradients.insert(0, back @ conjugate_transpose(reached[layer - 1]))
        back = conjugate_transpose(weights[layer]) @ back
    return loss, (back, *gradients)


def pull_back(weights: Weights, adjoint: Callable[[Array, Array], tuple[Array, Array]]) -> Weights:
    """Gradient with respect to each layer of ``<R, W_L...W_1>`` for a fixed R known by `adjoint` (`R right^T`, `left^T R`)."""
    return loss_and_gradients(weights, lambda left, right: (None, *adjoint(left, right)))[1]


def push_forward(weights: Weights, directions: Weights) -> tuple[Array, Array]:
    """Derivative of ``W_L...W_1`` along `directions`, as factors (d1, 2w) and (2w, d2) (of depth 1: with an identity).

    ``d(left right) = d(left) right + left d(right)`` with ``left = W_L...W_2``.
    """
    xp = namespace(*weights)
    if len(weights) == 1:
        return identity(weights[0].shape[0], weights[0]), directions[0]
    left, moved = weights[1], directions[1]
    for weight, direction in zip(weights[2:], directions[2:], strict=True):
        left, moved = weight @ left, weight @ moved + direction @ left
    return xp.concat([moved, left], axis=1), xp.concat([weights[0], directions[0]], axis=0)
