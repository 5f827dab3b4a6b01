"""Compiled steps of gradient descent on small deep networks without observations: scalars, and matrices of one target.

Numbers are copied one by one: Numba compiles for seconds where one slice is assigned to another, for its error message.
"""

from __future__ import annotations

import numpy as np

from dmf.kernels.jit import jit


@jit()
def scalar_step(weights, below, above, target, rates, shrink):
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


@jit()
def scalar_descent(start, targets, rates, shrink, steps):
    depth, count = start.shape
    records = np.empty((steps.shape[0], depth, count))
    weights, below, above = np.empty(depth), np.empty(depth), np.empty(depth)
    good = steps.shape[0]
    for component in range(count):
        for layer in range(depth):
            weights[layer] = start[layer, component]
        done = 0
        for row in range(good):
            while done < steps[row]:
                if not scalar_step(weights, below, above, targets[component], rates, shrink):
                    break
                done += 1
            residual = np.prod(weights) - targets[component]
            if done < steps[row] or not np.isfinite(residual * residual):
                good = row
                break
            for layer in range(depth):
                records[row, layer, component] = weights[layer]
    return records[:good]


@jit()
def crossing(start, target, rates, level, limit):
    """First iteration at which ``prod_l w_l`` is at or above `level`; -1 if that is not within `limit` iterations."""
    weights, below, above = start.copy(), np.empty_like(start), np.empty_like(start)
    for step in range(limit + 1):
        if np.prod(weights) >= level:
            return step
        if not scalar_step(weights, below, above, target, rates, 1.0):
            return -1
    return -1


@jit()
def matrix_descent(flat, slopes, sizes, ends, target, rates, shrink, steps):
    """`flat`, which changes: W_1, ..., W_L row by row, W_l of shape (sizes[l], sizes[l - 1]) ending at ends[l - 1]; one
    compilation for all depths. `slopes` is as large as `flat`.
    """
    depth, columns = rates.shape[0], sizes[0]
    shapes = [(sizes[k + 1], sizes[k]) for k in range(depth)]
    weights = [flat[ends[k] - r * c : ends[k]].reshape((r, c)) for k, (r, c) in enumerate(shapes)]
    gradient = [slopes[ends[k] - r * c : ends[k]].reshape((r, c)) for k, (r, c) in enumerate(shapes)]
    forward = [weights[0]] + [np.empty((r, columns)) for r, c in shapes[1:]]  # W_l...W_1
    back = [np.empty((c, columns)) for r, c in shapes]  # (W_L...W_l)^T R
    count = steps.shape[0]
    records, losses = np.empty(count * flat.shape[0]), np.empty(count)  # W_1 at all steps, then W_2, ...
    residual, done = np.empty(target.shape), 0
    for row in range(count):
        while True:
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
            gradient[0] = through
            for layer in range(depth):
                weight, slope = weights[layer], gradient[layer]
                for i in range(weight.shape[0]):
                    for j in range(weight.shape[1]):
                        weight[i, j] = shrink * weight[i, j] - rates[layer] * slope[i, j]
            done += 1
        for k in range(depth):
            size = weights[k].size
            at = count * (ends[k] - size) + row * size
            for i in range(size):
                records[at + i] = flat[ends[k] - size + i]
        losses[row] = 0.5 * loss
    return records, losses
