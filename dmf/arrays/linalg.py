"""Dense linear algebra on any array library: products of chains, truncated singular value decompositions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import numpy as np

from dmf.arrays.backend import Array, device, from_host, is_complex, is_numpy, namespace, number
from dmf.arrays.checks import random_generator
from dmf.arrays.threads import one_blas_thread

_OVERSAMPLING = 10
_DENSE_SVD_LIMIT = 500  # LAPACK takes 0.1 s at this size; its cost grows with the cube
_TALL = (
    65_000  # numbers of a matrix from which on two passes of Cholesky QR take less time than Householder's reflections
)
_NEARLY = 0.1  # largest entry of Q^T Q - I after a first pass that a second one corrects to rounding


def chain_product(matrices: Sequence[Array]) -> Array:
    """Product ``matrices[0] @ matrices[1] @ ...`` in the order of least multiplications.

    Parameters
    ----------
    matrices : sequence of arrays, shapes (n_0, n_1), (n_1, n_2), ...
        At least one.

    Returns
    -------
    array, shape (n_0, n_k)
    """
    sizes = [matrices[0].shape[0], *(m.shape[1] for m in matrices)]
    count = len(matrices)
    cost = [[0] * count for _ in range(count)]
    cut = [[0] * count for _ in range(count)]
    for span in range(1, count):
        for i in range(count - span):
            j = i + span
            options = [cost[i][k] + cost[k + 1][j] + sizes[i] * sizes[k + 1] * sizes[j + 1] for k in range(i, j)]
            cost[i][j] = min(options)
            cut[i][j] = i + options.index(cost[i][j])

    def product(i: int, j: int) -> Array:
        if i == j:
            return matrices[i]
        return product(i, cut[i][j]) @ product(cut[i][j] + 1, j)

    return product(0, count - 1)


def conjugate_transpose(matrix: Array) -> Array:
    """``matrix^H``; of a real matrix its transpose."""
    # Not the namespace's function, which takes ten times as long: a step of a small network comes here six times.
    transposed = matrix.T
    return namespace(matrix).conj(transposed) if is_complex(matrix) else transposed


def gaussian(shape: tuple[int, ...], seed: int, like: Array) -> Array:
    """Standard normal numbers in the library, dtype and device of `like`; one seed gives the same on every library."""
    xp = namespace(like)
    numbers = random_generator(seed).standard_normal(shape)
    return xp.astype(from_host(numbers, like), like.dtype)


def dense_svd(matrix: Array, rank: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """Top `rank` singular triplets of a matrix: U (d1, rank), s (rank,) descending, V^T (rank, d2)."""
    if min(matrix.shape) <= max(_DENSE_SVD_LIMIT, rank + _OVERSAMPLING):
        return _lapack_svd(matrix, rank)
    return truncated_svd(
        lambda block: matrix @ block,
        lambda block: conjugate_transpose(matrix) @ block,
        matrix.shape,
        rank,
        like=matrix,
        seed=seed,
        sweeps=100,
    )


def reduced_qr(matrix: Array) -> tuple[Array, Array]:
    """Reduced QR decomposition; of a tall NumPy matrix by the Cholesky factor of its Gram matrix, twice.

    Those are matrix products; LAPACK's reflections pass over the whole matrix once for each column. Where the condition number
    is too large for it (1e3 in single precision, 1e8 in double), the first pass shows, and LAPACK takes over.

    Parameters
    ----------
    matrix : array, shape (n, w)

    Returns
    -------
    Q (n, k), R (k, w)
        ``k = min(n, w)``; to rounding, as Householder's.

    References
    ----------
    .. [1] Yamamoto, Nakatsukasa, Yanagisawa, Fukaya, ETNA 44 (2015): CholeskyQR2.
    """
    if is_numpy(matrix) and not is_complex(matrix) and matrix.size >= _TALL and matrix.shape[0] >= 4 * matrix.shape[1]:
        # On one thread: those of BLAS wait for one another after every few hundred rows, and for seconds on a busy machine.
        with contextlib.suppress(np.linalg.LinAlgError), one_blas_thread():
            first, r_first = _cholesky_pass(matrix, matrix.T @ matrix)
            gram = first.T @ first
            if np.max(np.abs(gram - np.eye(gram.shape[0]))) < _NEARLY:
                second, r_second = _cholesky_pass(first, gram)
                return second, r_second @ r_first
    q, r = namespace(matrix).linalg.qr(matrix)
    return q, r


def _cholesky_pass(matrix: np.ndarray, gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q and R of a matrix of this Gram matrix, as far from orthogonal as the square of the condition number."""
    r = np.linalg.cholesky(gram).T
    from scipy.linalg import solve_triangular

    return solve_triangular(r, matrix.T, trans=1, check_finite=False).T, r


def truncated_svd(
    apply: Callable[[Array], Array],
    apply_transposed: Callable[[Array], Array],
    shape: tuple[int, int],
    rank: int,
    *,
    like: Array,
    seed: int = 0,
    sweeps: int = 12,
    tolerance: float = 1e-10,
) -> tuple[Array, Array, Array]:
    """Top singular triplets of a matrix known by its products: randomised subspace iteration with QR.

    Parameters
    ----------
    apply, apply_transposed : callables
        ``S @ X`` for X (d2, k) and ``S^T @ X`` (``S^H @ X`` of complex numbers) for X (d1, k).
    shape : (int, int)
        (d1, d2) of S.
    rank : int, 1 <= rank <= min(d1, d2)
    like : array
        Gives library, dtype and device.
    seed : int
        Seed of the random first block.
    sweeps : int
        Most subspace iterations. Where singular values beyond `rank` are close to those before, the vectors are those of a
        nearby subspace.
    tolerance : float
        Iterations end when the top `rank` singular values change by less than this, relative to the largest.

    Returns
    -------
    U (d1, rank), s (rank,) descending, V^T (rank, d2)

    References
    ----------
    .. [1] Halko, Martinsson, Tropp, SIAM Review 53 (2011), algorithms 4.4 and 5.1.
    """
    xp = namespace(like)
    size = min(rank + _OVERSAMPLING, *shape)
    right = reduced_qr(gaussian((shape[1], size), seed, like))[0]
    last = None
    for _ in range(sweeps):
        left = reduced_qr(apply(right))[0]
        image = apply_transposed(left)  # (d2, size); S is close to left @ image^H
        right, core = reduced_qr(image)
        values = xp.linalg.svdvals(core)[:rank]
        if last is not None and number(xp.max(xp.abs(values - last))) < tolerance * number(values[0]):
            break
        last = values
    u, s, vt = _lapack_svd(conjugate_transpose(core), rank)
    return left @ u, s, vt @ conjugate_transpose(right)


def factored_svd(left: Array, right: Array) -> tuple[Array, Array, Array]:
    """Singular value decomposition of ``left @ right`` without forming it.

    Parameters
    ----------
    left : array, shape (d1, w)
    right : array, shape (w, d2)

    Returns
    -------
    U (d1, k), s (k,) descending, V^T (k, d2)
        ``k = min(w, d1, d2)``.
    """
    xp = namespace(left, right)
    q_left, r_left = reduced_qr(left)
    q_right, r_right = reduced_qr(xp.matrix_transpose(right))
    u, s, vt = xp.linalg.svd(r_left @ xp.matrix_transpose(r_right), full_matrices=False)
    return q_left @ u, s, vt @ xp.matrix_transpose(q_right)


def _lapack_svd(matrix: Array, rank: int) -> tuple[Array, Array, Array]:
    u, s, vt = namespace(matrix).linalg.svd(matrix, full_matrices=False)
    return u[:, :rank], s[:rank], vt[:rank, :]


def identity(size: int, like: Array) -> Array:
    """Identity matrix (size, size) in the library, dtype and device of `like`."""
    return namespace(like).eye(size, dtype=like.dtype, device=device(like))


def conjugate_gradient(
    apply: Callable[[Array], Array],
    target: Array,
    start: Array | None = None,
    tolerance: float = 1e-10,
    iterations: int = 100,
    precondition: Callable[[Array], Array] | None = None,
) -> Array:
    """Solution X of ``apply(X) = target`` for a symmetric positive semidefinite map of matrices.

    Parameters
    ----------
    apply : callable
        Linear, from arrays shaped like `target` to the same.
    target : array
    start : array shaped as `target`, optional
        Zeros unless given.
    tolerance : float
        Ends when the residual is at most this, relative to the norm of `target`.
    iterations : int
        Most steps.
    precondition : callable, optional
        Symmetric positive semidefinite map close to the inverse of `apply`.

    Returns
    -------
    array shaped as `target`
        The last iterate; where the map is singular, the solution nearest to `start` (in the metric of the inverse of
        `precondition`).
    """
    xp = namespace(target)

    def inner(a, b):
        return number(xp.reshape(a, (-1,)) @ xp.reshape(b, (-1,)))

    def conditioned(residual):
        """Preconditioned residual, its product with the residual, and the square of that."""
        square = inner(residual, residual)
        if precondition is None:
            return residual, square, square
        image = precondition(residual)
        return image, inner(residual, image), square

    residual, solution = (target, 0 * target) if start is None else (target - apply(start), start)
    direction, product, square = conditioned(residual)
    stop = tolerance**2 * inner(target, target)
    for _ in range(iterations):
        if square <= stop or product <= 0:
            break
        image = apply(direction)
        curvature = inner(direction, image)
        if curvature <= 0:
            break
        length = product / curvature
        solution = solution + length * direction
        residual = residual - length * image
        last = product
        ahead, product, square = conditioned(residual)
        direction = ahead + (product / last) * direction
    return solution
