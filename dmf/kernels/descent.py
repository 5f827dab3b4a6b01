"""Many gradient-descent steps of a narrow deep network on sampled entries, in one compiled call.

At d = 100 a step takes about 15 microseconds, less than the overhead of a dozen NumPy calls; so a chunk of steps
runs without returning to Python. Single-threaded, for problems whose factors stay in the caches.

All layers live in one flat array: W_1^T (d2 rows), W_2, ..., W_{L-1}, then W_L (d1 rows), each row padded with zeros to
`length` numbers. Zero padding is invariant under descent: the padded entries of every gradient are zero.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from dmf.kernels import simd
from dmf.kernels.jit import jit

# The helpers take `length`, a constant where they are called, as an argument and are no closures of `descend`.

# The two products work on four rows at a time: one row alone is bound by the latency of its chain of additions.


@jit(no_cpython_wrapper=True)
def multiply(length, size, left, at_left, count, right, at_right, result, at_result):
    """Rows of ``left @ right``; left has `count` rows, right is square."""
    for i in range(0, count - count % 4, 4):
        at = at_left + i * length
        zeros = simd.zeros_like(simd.load(right, at_right, length))
        a, b, c, d = zeros, zeros, zeros, zeros
        for k in range(size):
            row = simd.load(right, at_right + k * length, length)
            a = simd.add_scaled(a, left[at + k], row)
            b = simd.add_scaled(b, left[at + length + k], row)
            c = simd.add_scaled(c, left[at + 2 * length + k], row)
            d = simd.add_scaled(d, left[at + 3 * length + k], row)
        at = at_result + i * length
        simd.store(result, at, a)
        simd.store(result, at + length, b)
        simd.store(result, at + 2 * length, c)
        simd.store(result, at + 3 * length, d)
    for i in range(count - count % 4, count):
        a = simd.zeros_like(simd.load(right, at_right, length))
        for k in range(size):
            a = simd.add_scaled(a, left[at_left + i * length + k], simd.load(right, at_right + k * length, length))
        simd.store(result, at_result + i * length, a)


@jit(no_cpython_wrapper=True)
def transposed_multiply(length, left, at_left, count, right, result):
    """Rows of ``left^T @ right``; both have `count` rows, right and the result start at 0."""
    for k in range(0, length, 4):
        zeros = simd.zeros_like(simd.load(right, 0, length))
        a, b, c, d = zeros, zeros, zeros, zeros
        for i in range(0, count * length, length):
            row, at = simd.load(right, i, length), at_left + i + k
            a = simd.add_scaled(a, left[at], row)
            b = simd.add_scaled(b, left[at + 1], row)
            c = simd.add_scaled(c, left[at + 2], row)
            d = simd.add_scaled(d, left[at + 3], row)
        simd.store(result, k * length, a)
        simd.store(result, (k + 1) * length, b)
        simd.store(result, (k + 2) * length, c)
        simd.store(result, (k + 3) * length, d)


@jit(no_cpython_wrapper=True)
def copy(source, at_source, count, target, at_target):
    for k in range(count):
        target[at_target + k] = source[at_source + k]


@jit(no_cpython_wrapper=True)
def transpose(size, square, at, result):
    for i in range(size):
        for k in range(size):
            result[k * size + i] = square[at + i * size + k]


@jit(no_cpython_wrapper=True)
def sparse_products(length, samples, d1, d2, left, right, scale, grad_left, grad_right, errors):
    """Loss, ``R V^T`` into `grad_left` and ``(U^T R)^T`` into the head of `grad_right`, in one pass.

    `errors` holds the residuals of one row. Its products and its sums are separate loops: in one loop every sum waits for
    its product.
    """
    row_starts, cols, values = samples
    lanes, minus_one = 32 // values.itemsize, -values.dtype.type(1)
    loss, squares = 0.0, simd.double_zeros(values)
    grad_right[: d2 * length] = 0
    for i in range(d1):
        row = simd.load(left, i * length, length)
        first, end = row_starts[i], row_starts[i + 1]
        whole = first + (end - first) // lanes * lanes
        for k in range(first, whole, lanes):
            some = simd.add_scaled(simd.dots(row, right, cols, k), minus_one, simd.load_vector(values, k))
            squares = simd.add_squares(squares, some)
            simd.store(errors, k - first, some)
        for k in range(whole, end):
            other = simd.load(right, np.intp(cols[k]) * length, length)
            error = simd.total(simd.add_product(simd.zeros_like(row), row, other)) - values[k]
            loss += np.float64(error) * np.float64(error)
            errors[k - first] = error
        sums = simd.zeros_like(row)
        scaled = simd.add_scaled(sums, scale, row)
        for k in range(first, end):
            j, error = np.intp(cols[k]) * length, errors[k - first]
            sums = simd.add_scaled(sums, error, simd.load(right, j, length))
            simd.store(grad_right, j, simd.add_scaled(simd.load(grad_right, j, length), error, scaled))
        simd.store(grad_left, i * length, simd.add_scaled(simd.zeros_like(row), scale, sums))
    return 0.5 * np.float64(scale) * (loss + simd.total(squares))


def scratch(length: int, most: int, shape: tuple[int, int], depth: int, dtype: np.dtype) -> tuple[np.ndarray, ...]:
    """What `descend` works in, for rows with `most` samples at most."""
    square = length * length
    sizes = shape[0] * length, shape[0] * length, max(depth - 2, 1) * square, square, square, square, most
    return tuple(simd.aligned(size, dtype) for size in sizes)


@cache
def compile_descent(length: int):
    """Compiled `descend` for rows of `length` numbers."""

    def descend(samples, shape, depth, work, states, loss, rates, shrink, scale, iterations):
        """At most `iterations` steps from the weights and gradient in the first pair of `states`, whose `loss` is given.

        `work`: memory for what a step needs, see `scratch`. Returns the last finite loss and the number of steps that reached it;
        weights and gradient are in the pair of `states` where the parity of that number leads.
        """
        (d1, d2), (left, grad_left, products, transposed, back, back_next, errors) = shape, work
        (weights, gradient), (next_weights, next_gradient) = states
        # `length` and 0, but not as constants, for each of which the compiler would compile the products anew.
        size = weights.shape[0] // (d1 + d2 + (depth - 2) * length)
        zero = size - size
        square = length * length
        inner = d2 * length  # W_2 starts here; W_l at inner + (l - 2) * square
        last = inner + (depth - 2) * square
        # products[l - 3] = W_{l-1}...W_2 for l = 3..L
        zeros = simd.zeros_like(simd.load(weights, 0, length))
        for step in range(iterations):
            for layer in range(depth):
                first = 0 if layer == 0 else inner + (layer - 1) * square
                end = inner + layer * square if layer < depth - 1 else weights.shape[0]
                rate = rates[layer]
                for k in range(first, end, length):  # whole rows: a loop over numbers stays scalar
                    shrunk = simd.add_scaled(zeros, shrink, simd.load(weights, k, length))
                    simd.store(next_weights, k, simd.add_scaled(shrunk, -rate, simd.load(gradient, k, length)))
            if depth == 2:
                copy(next_weights, last, d1 * size, left, zero)
            else:
                copy(next_weights, inner, size * size, products, zero)
                for k in range(1, depth - 2):
                    at = (k - 1) * square
                    multiply(length, size, next_weights, inner + k * square, size, products, at, products, k * square)
                multiply(length, size, next_weights, last, d1, products, (depth - 3) * square, left, zero)
            next_loss = sparse_products(
                length, samples, d1, d2, left, next_weights, scale, grad_left, next_gradient, errors
            )
            if next_loss - next_loss != 0:  # not finite
                return loss, step
            if depth == 2:
                copy(grad_left, zero, d1 * size, next_gradient, last)
            else:
                transpose(size, products, (depth - 3) * square, transposed)
                multiply(length, size, grad_left, zero, d1, transposed, zero, next_gradient, last)
                transposed_multiply(length, next_weights, last, d1, grad_left, back)
                for layer in range(depth - 1, 2, -1):  # back = (W_L...W_{layer+1})^T R V^T
                    at = inner + (layer - 2) * square
                    transpose(size, products, (layer - 3) * square, transposed)
                    multiply(length, size, back, zero, size, transposed, zero, next_gradient, at)
                    transposed_multiply(length, next_weights, at, size, back, back_next)
                    back, back_next = back_next, back
                copy(back, zero, size * size, next_gradient, inner)
            weights, next_weights = next_weights, weights
            gradient, next_gradient = next_gradient, gradient
            loss = next_loss
        return loss, iterations

    descend.__qualname__ += f"_{length}"  # a name of its own, as in dmf.kernels.cpu
    return jit()(descend)
