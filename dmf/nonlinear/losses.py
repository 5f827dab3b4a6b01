"""Losses of the outputs of a network: value and gradient, averaged over the samples."""

from __future__ import annotations

from collections.abc import Callable

from dmf.arrays.backend import Array, device, namespace

LossAndGradient = tuple[Array, Array]


def softmax_cross_entropy(outputs: Array, labels: Array) -> LossAndGradient:
    """Mean of ``-log softmax(outputs)[label]`` over the samples.

    Parameters
    ----------
    outputs : array, shape (n, k)
        Logits.
    labels : integer array, shape (n,)
        Classes, 0 <= label < k.

    Returns
    -------
    loss : array, shape ()
    gradient : array, shape (n, k)
        With respect to the outputs.
    """
    xp = namespace(outputs, labels)
    shifted = outputs - xp.max(outputs, axis=1, keepdims=True)
    exponentials = xp.exp(shifted)
    totals = xp.sum(exponentials, axis=1, keepdims=True)
    classes = xp.arange(outputs.shape[1], dtype=labels.dtype, device=device(outputs))
    wanted = xp.astype(labels[:, None] == classes[None, :], outputs.dtype)
    count = outputs.shape[0]
    loss = (xp.sum(xp.log(totals)) - xp.sum(wanted * shifted)) / count
    return loss, (exponentials / totals - wanted) / count


def squared_loss(outputs: Array, targets: Array) -> LossAndGradient:
    """Mean over the samples of half the squared distance between output and target.

    Parameters
    ----------
    outputs, targets : arrays, shape (n, k)

    Returns
    -------
    loss : array, shape ()
    gradient : array, shape (n, k)
        With respect to the outputs.
    """
    xp = namespace(outputs, targets)
    residual = (outputs - targets) / outputs.shape[0]
    return 0.5 * outputs.shape[0] * xp.sum(residual * residual), residual


LOSSES: dict[str, Callable[[Array, Array], LossAndGradient]] = {
    "cross-entropy": softmax_cross_entropy,
    "squared": squared_loss,
}
