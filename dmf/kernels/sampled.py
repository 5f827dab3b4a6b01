"""Compiled passes over samples: products of rows of two factors, weighted sums of rows, and both in one pass.

Factors are flat, with rows padded to whole machine vectors; see `dmf.kernels.vectors`.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from dmf.kernels import rows as row
from dmf.kernels.chunks import frozen
from dmf.kernels.jit import jit

ERRORS = 256  # of a row, at a time


@cache
def no_values(dtype: np.dtype) -> np.ndarray:
    """What is subtracted from products where nothing is."""
    return frozen(np.zeros(ERRORS, dtype))


@jit()
def products(left, right, length, rows, cols, zeros, values, begin, end):
    """Products of rows of two flat factors into `values`, from sample `begin` to `end`."""
    first = begin
    while first < end:  # samples of one row together, as in sorted entries
        i, last = rows[first], first + 1
        while last < end and last - first < zeros.shape[0] and rows[last] == i:
            last += 1
        at = np.intp(i) * length
        row.dots(values, first, left, at, right, length, cols, first, last - first, zeros, 0, length)
        first = last


@jit()
def gather(starts, index, weights, step, factor, length, result, begin, end):
    """Sums of the rows of `factor` that the samples of each row meet, sample k times ``weights[step k]``."""
    for i in range(begin, end):
        row.fill(result, i * length, factor.dtype.type(0), length)
        count = starts[i + 1] - starts[i]
        row.add_rows(
            result, i * length, factor, length, index, starts[i], count, weights, starts[i] * step, step, length, True
        )


@jit()
def residual_rows(
    starts, index, values, step, rows, others, length, roots, scaled, errors, result, partner, losses, begin, end
):
    """Losses, the sums of squared errors of each row, and in `result` the sums of errors times partners, unless it is empty.

    The error of sample k is its product of `length` numbers less ``values[step k]`` or, where `roots` are given, its product
    times its root less ``scaled[k]``. Its partner is the first `partner` numbers of the row of `others` that it meets. Products
    and sums are separate loops: in one loop every sum waits for its product.
    """
    for i in range(begin, end):
        if result.shape[0]:
            row.fill(result, i * partner, rows.dtype.type(0), partner)
        losses[i] = 0
        for first in range(starts[i], starts[i + 1], errors.shape[0]):
            count = starts[i + 1] - first
            if count > errors.shape[0]:
                count = errors.shape[0]
            squares = row.dots(
                errors, 0, rows, i * length, others, length, index, first, count, values, first * step, length
            )
            if roots.shape[0]:
                squares = 0.0
                for k in range(count):
                    errors[k] = errors[k] * roots[first + k] - scaled[first + k]
                    squares += np.float64(errors[k]) * np.float64(errors[k])
            losses[i] += squares
            if result.shape[0]:
                row.add_rows(result, i * partner, others, length, index, first, count, errors, 0, 1, partner, False)
