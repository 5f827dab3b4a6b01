"""Compiled recursions on the host: descent of scalars and of small matrices, for millions of iterations.

At 10 x 10 and depth 3 a step of gradient descent takes 4 microseconds compiled and 50 in NumPy, where the overhead of
each call dominates. tests/unit/theory/test_recursions.py ties both recursions to plain NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
from threadpoolctl import threadpool_limits

_PARALLEL_WIDTHS = 48, 256  # between, BLAS starts threads that wait for each other longer than one would take


def scalar_descent(
    start: np.ndarray, targets: np.ndarray, rates: np.ndarray, shrink: float, steps: np.ndarray
) -> np.ndarray:
    """Gradient descent on ``1/2 (prod_l w_l - s)^2``, for each component on its own.

    Parameters
    ----------
    start : float64 array, shape (L, k)
    targets : float64 array, shape (k,)
        s.
    rates : float64 array, shape (L,)
        Step size of each layer.
    shrink : float
        Factor of the weights in each step, ``1 - eta lambda``.
    steps : int array, shape (n,), ascending
        Iterations to record.

    Returns
    -------
    float64 array, shape (n', L, k)
        n' <= n: records end before the first at which the loss of a component is not finite.
    """
    start, targets, rates = (np.ascontiguousarray(a, np.float64) for a in (start, targets, rates))
    from dmf.kernels.recursions import scalar_descent as compiled

    return compiled(start, targets, rates, float(shrink), np.asarray(steps, np.int64))


def crossing(start: np.ndarray, target: float, rates: np.ndarray, level: float, limit: int) -> int:
    """First iteration at which ``prod_l w_l`` is at or above `level`; -1 if that is not within `limit` iterations."""
    from dmf.kernels.recursions import crossing as compiled

    return compiled(start, target, rates, level, limit)


def matrix_descent(
    start: Sequence[np.ndarray], target: np.ndarray, rates: np.ndarray, shrink: float, steps: np.ndarray
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Gradient descent of a small deep linear network on ``1/2 ||W_L...W_1 - target||_F^2``, in float64.

    Parameters
    ----------
    start : sequence of L arrays, shapes (n_l, n_{l-1})
    target : array, shape (n_L, n_0)
    rates : array, shape (L,)
        Step size of each layer.
    shrink : float
        Factor of the weights in each step.
    steps : int array, shape (n,), ascending
        Iterations to record.

    Returns
    -------
    weights : tuple of L float64 arrays, shapes (n', n_l, n_{l-1})
        n' <= n: records end before the first at which the loss is not finite.
    losses : float64 array, shape (n',)
    """
    from dmf.kernels.recursions import matrix_descent as compiled

    layers = [np.asarray(w, np.float64) for w in start]
    sizes = np.array([layers[0].shape[1], *(w.shape[0] for w in layers)])
    flat, ends = np.concatenate([w.ravel() for w in layers]), np.cumsum([w.size for w in layers])
    options = np.asarray(rates, np.float64), float(shrink), np.asarray(steps, np.int64)
    least, enough = _PARALLEL_WIDTHS
    # Setting the number of threads takes milliseconds, which is not worth it for the smallest.
    with threadpool_limits(1, "blas") if least <= sizes.max() < enough else nullcontext():
        target = np.ascontiguousarray(target, np.float64)
        records, losses = compiled(flat, np.empty_like(flat), sizes, ends, target, *options)
    count = len(options[2])
    parts = np.split(records, count * ends[:-1])
    return tuple(p.reshape(count, *w.shape)[: len(losses)] for p, w in zip(parts, layers, strict=True)), losses
