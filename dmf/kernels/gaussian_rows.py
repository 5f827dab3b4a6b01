"""Numba kernel of the E-step of Gaussian mixtures on a table with holes.

Rows with the same holes share an inverse, of the precision matrix of what is missing: Gauss-Jordan, whose inner loop runs
along rows of the matrix and so fills the machine vectors without sums across them. One compiled form, in float64. Rows are
summed in one order by one thread; independent fits run side by side, as the kernel releases the lock of the interpreter.
"""

from __future__ import annotations

import numpy as np

from dmf.kernels import simd
from dmf.kernels.jit import jit

_BLOCK = 8  # numbers of a row that are worked on at once: two machine vectors


@jit()
def _padded(width):
    return (width + _BLOCK - 1) // _BLOCK * _BLOCK


@jit()
def _add_row(target, at, factor, source, start, count):
    """Add `factor` times a row of `source` to one of `target`, both padded."""
    for b in range(0, count, _BLOCK):
        sums = simd.load(target, at + b, _BLOCK)
        simd.store(target, at + b, simd.add_scaled(sums, factor, simd.load(source, start + b, _BLOCK)))


@jit()
def invert_part(matrix, index, count, inverse):
    """Inverse of ``matrix[index][:, index]`` for the first `count` numbers of `index`, into padded rows.

    Returns the logarithm of its determinant; NaN if the matrix is not positive definite.
    """
    length = inverse.shape[1]
    for a in range(count):
        for b in range(count):
            inverse[a, b] = matrix[index[a], index[b]]
    total = 0.0
    for k in range(count):
        pivot = inverse[k, k]
        if not pivot > 0:
            return np.nan
        total += np.log(pivot)
        inverse[k, k] = 1.0
        scale = 1.0 / pivot
        for b in range(count):
            inverse[k, b] *= scale
        for a in range(count):
            if a != k:
                factor = -inverse[a, k]
                inverse[a, k] = 0.0
                _add_row(inverse, a * length, factor, inverse, k * length, count)
    return total


@jit()
def gaussian_rows(table, order, starts, index, missing, weights, shares, means, covariances, learn):
    """See `dmf.kernels.reference_rows.gaussian_rows`, the twin."""
    width, components = table.shape[1], shares.shape[0]
    length = _padded(width)
    totals, sums = np.zeros(components), np.zeros((components, width))
    seconds = np.zeros((components if learn else 0, width, length))
    filled = np.zeros((0 if learn else table.shape[0], width))
    variances = np.zeros((0 if learn else table.shape[0], width))
    likelihood = 0.0
    precisions, inverses = np.zeros((components, width, length)), np.zeros((components, width, length))
    everywhere = np.arange(width)
    constants, determinants = np.empty(components), np.empty(components)
    deviations, product, target = np.zeros((components, length)), np.zeros(length), np.zeros(length)
    parts, met = np.empty(components), np.empty(components)
    for c in range(components):
        determinants[c] = -invert_part(covariances[c], everywhere, width, precisions[c])
    for p in range(missing.shape[0]):
        holes, columns = missing[p], index[p]
        met[:] = 0.0
        for c in range(components):
            own = invert_part(precisions[c], columns, holes, inverses[c])
            constants[c] = np.log(shares[c]) + 0.5 * (determinants[c] - own) - 0.5 * (width - holes) * np.log(2 * np.pi)
        for k in range(starts[p], starts[p + 1]):
            i = order[k]
            most = -np.inf
            for c in range(components):
                product[:] = 0.0
                for a in range(holes, width):
                    j = columns[a]
                    value = table[i, j] - means[c, j]
                    deviations[c, j] = value
                    _add_row(product, 0, value, precisions, (c * width + j) * length, width)
                square = 0.0
                for a in range(holes, width):
                    square += deviations[c, columns[a]] * product[columns[a]]
                target[:] = 0.0
                for a in range(holes):
                    _add_row(target, 0, -product[columns[a]], inverses, (c * width + a) * length, holes)
                for a in range(holes):
                    deviations[c, columns[a]] = target[a]
                    square += target[a] * product[columns[a]]
                parts[c] = constants[c] - 0.5 * square
                most = max(most, parts[c])
            whole = 0.0
            for c in range(components):
                parts[c] = np.exp(parts[c] - most)
                whole += parts[c]
            likelihood += weights[i] * (most + np.log(whole))
            for c in range(components):
                part = parts[c] / whole
                share = part * weights[i]
                totals[c] += share
                if share > 0:
                    met[c] += share
                    for j in range(width):
                        sums[c, j] += share * deviations[c, j]
                    for a in range(width if learn else 0):
                        at, value = (c * width + a) * length, share * deviations[c, a]
                        _add_row(seconds, at, value, deviations, c * length, a + 1)
                if not learn:
                    for j in range(width):
                        value = means[c, j] + deviations[c, j]
                        filled[i, j] += part * value
                        variances[i, j] += part * value * value
                    for a in range(holes):
                        variances[i, columns[a]] += part * inverses[c, a, a]
            for a in range(0 if learn else width):
                j = columns[a]
                if a < holes:
                    variances[i, j] = max(variances[i, j] - filled[i, j] * filled[i, j], 0.0)
                else:
                    filled[i, j] = table[i, j]
                    variances[i, j] = 0.0
        for c in range(components if learn else 0):
            if met[c] > 0:
                for a in range(holes):
                    for b in range(holes):
                        if columns[b] <= columns[a]:
                            seconds[c, columns[a], columns[b]] += met[c] * inverses[c, a, b]
    for c in range(components if learn else 0):
        for a in range(width):
            for b in range(a):
                seconds[c, b, a] = seconds[c, a, b]
    return totals, sums, seconds[:, :, :width], likelihood, filled, variances
