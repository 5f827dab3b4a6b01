"""Compiled recursions on the host: descent of scalars and of small matrices, for millions of iterations.

At 10 x 10 and depth 3 a step of gradient descent takes 4 microseconds compiled and 50 in NumPy, where the overhead of
each call dominates. tests/unit/theory/test_recursions.py ties both recursions to plain NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
from numba import njit
from threadpoolctl import threadpool_limits

_PARALLEL_WIDTHS = 48, 256  # between, BLAS starts threads that wait for each other longer than one would take


@njit(cache=True)
def _scalar_step(weights, below, above, target, rates, shrink):
    """One step of ``w_l <- shrink w_l - rate_l (p - s) prod_{k != l} w_k``; False, nothing done, if (p - s)^2 overflows."""
    depth = weights.shape[0]
    below[0] = 1.0
    for layer in range(1, depth):
        below[layer] = below[layer - 1] * weights[layer - 1]
    above[depth - 1] = 1.0
    for layer in range(depth - 1, 0, -1):
        above[layer - 1] = above[layer] * weights[layer]
    residual = above[0] * weights[0] - target
    if not np.isfinite(residual * residual):
        return False
    for layer in range(depth):
        weights[layer] = shrink * weights[layer] - rates[layer] * residual * (below[layer] * above[layer])
    return True


@njit(cache=True)
def _scalar_descent(start, targets, rates, shrink, steps):
    depth, count = start.shape
    records = np.empty((steps.shape[0], depth, count))
    weights, below, above = np.empty(depth), np.empty(depth), np.empty(depth)
    good = steps.shape[0]
    for component in range(count):
        weights[:] = start[:, component]
        done = 0
        for row in range(good):
            while done < steps[row]:
                if not _scalar_step(weights, below, above, targets[component], rates, shrink):
                    break
                done += 1
            residual = np.prod(weights) - targets[component]
            if done < steps[row] or not np.isfinite(residual * residual):
                good = row
                break
            records[row, :, component] = weights
    return records[:good]


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
    return _scalar_descent(start, targets, rates, float(shrink), np.asarray(steps, np.int64))


@njit(cache=True)
def crossing(start, target, rates, level, limit):
    """First iteration at which ``prod_l w_l`` is at or above `level`; -1 if that is not within `limit` iterations."""
    weights, below, above = start.copy(), np.empty_like(start), np.empty_like(start)
    for step in range(limit + 1):
        if np.prod(weights) >= level:
            return step
        if not _scalar_step(weights, below, above, target, rates, 1.0):
            return -1
    return -1


@njit(cache=True)
def _matrix_descent(flat, sizes, target, rates, shrink, steps):
    """`flat`: W_1, ..., W_L row by row, W_l of shape (sizes[l], sizes[l - 1]): one compilation for all depths."""
    depth, columns = rates.shape[0], sizes[0]
    flat, slopes = flat.copy(), np.empty_like(flat)
    ends = np.cumsum(sizes[1:] * sizes[:-1])
    shapes = [(sizes[k + 1], sizes[k]) for k in range(depth)]
    weights = [flat[ends[k] - r * c : ends[k]].reshape((r, c)) for k, (r, c) in enumerate(shapes)]
    gradient = [slopes[ends[k] - r * c : ends[k]].reshape((r, c)) for k, (r, c) in enumerate(shapes)]
    forward = [np.empty((r, columns)) for r, c in shapes]  # W_l...W_1
    back = [np.empty((c, columns)) for r, c in shapes]  # (W_L...W_l)^T R
    count = steps.shape[0]
    records, losses = np.empty(count * flat.shape[0]), np.empty(count)  # W_1 at all steps, then W_2, ...
    residual, done = np.empty(target.shape), 0
    for row in range(count):
        while True:
            forward[0][:] = weights[0]
            for layer in range(1, depth):
                np.dot(weights[layer], forward[layer - 1], forward[layer])
            loss, product = 0.0, forward[depth - 1]
            for i in range(target.shape[0]):
                for j in range(columns):
                    residual[i, j] = product[i, j] - target[i, j]
                    loss += residual[i, j] * residual[i, j]
            if not np.isfinite(loss):
                return records, losses[:row]
            if done == steps[row]:
                break
            through = residual
            for layer in range(depth - 1, 0, -1):
                np.dot(through, forward[layer - 1].T, gradient[layer])
                np.dot(weights[layer].T, through, back[layer])
                through = back[layer]
            gradient[0][:] = through
            for layer in range(depth):
                weight, slope = weights[layer], gradient[layer]
                for i in range(weight.shape[0]):
                    for j in range(weight.shape[1]):
                        weight[i, j] = shrink * weight[i, j] - rates[layer] * slope[i, j]
            done += 1
        for k in range(depth):
            size = weights[k].size
            at = count * (ends[k] - size) + row * size
            records[at : at + size] = flat[ends[k] - size : ends[k]]
        losses[row] = 0.5 * loss
    return records, losses


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
    layers = [np.asarray(w, np.float64) for w in start]
    sizes = np.array([layers[0].shape[1], *(w.shape[0] for w in layers)])
    flat = np.concatenate([w.ravel() for w in layers])
    options = np.asarray(rates, np.float64), float(shrink), np.asarray(steps, np.int64)
    least, enough = _PARALLEL_WIDTHS
    # Setting the number of threads takes milliseconds, which is not worth it for the smallest.
    with threadpool_limits(1, "blas") if least <= sizes.max() < enough else nullcontext():
        records, losses = _matrix_descent(flat, sizes, np.ascontiguousarray(target, np.float64), *options)
    count = len(options[2])
    parts = np.split(records, count * np.cumsum([w.size for w in layers])[:-1])
    return tuple(p.reshape(count, *w.shape)[: len(losses)] for p, w in zip(parts, layers, strict=True)), losses
