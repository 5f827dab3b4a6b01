"""Riemannian conjugate gradients on the matrices of fixed rank, from pymanopt, with gradients by hand.

B. Vandereycken: Low-Rank Matrix Completion by Riemannian Optimization. SIAM J. Optim. 23 (2013), 1214-1236 (LRGeomCG). Manifold,
transport and conjugate directions are pymanopt's. The first length tried is, as in the paper, the best one on the tangent space;
the kernels on the samples are the ones that the other peers use.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from peers.common import Sampled, Solution, Watch, installed, limited, spectral_start, unwatched


def available() -> tuple[bool, str]:
    """Whether pymanopt is there."""
    return installed("pymanopt")


def solve(
    case: dict[str, Any],
    rank: int,
    *,
    watch: Watch | None = None,
    threads: int = 2,
    seed: int = 0,
    iterations: int = 10_000,
    tolerance: float = 1e-10,
    rule: str = "PolakRibiere",
) -> Solution:
    """Factors of the given rank from a spectral start.

    Parameters
    ----------
    tolerance : float
        Stop at a gradient of this size relative to the first.
    rule : str
        Pymanopt's name of the update of the conjugate direction.
    """
    import pymanopt
    from pymanopt.manifolds import FixedRankEmbedded
    from pymanopt.optimizers import ConjugateGradient

    with limited(threads):
        watch = watch or unwatched()
        watch.start()
        samples = Sampled(case)
        manifold = FixedRankEmbedded(*samples.shape, rank)
        problem = _Problem(samples)

        @pymanopt.function.numpy(manifold)
        def cost(u, s, vt):
            return 0.5 * float(np.sum(problem.residual(u, s, vt) ** 2))

        @pymanopt.function.numpy(manifold)
        def gradient(u, s, vt):
            return problem.gradient(u, s, vt)

        left, right = spectral_start(samples, rank, seed)
        sizes = np.linalg.norm(left, axis=0)
        start = left / sizes, sizes**2, (right / sizes).T
        first = manifold.norm(start, problem.gradient(*start))
        search = _Search(problem, watch)
        optimizer = ConjugateGradient(
            beta_rule=rule, line_searcher=search, verbosity=0, max_iterations=iterations,
            min_gradient_norm=tolerance * first, min_step_size=1e-300, max_time=1e9,
        )  # fmt: skip
        try:
            result = optimizer.run(pymanopt.Problem(manifold, cost, riemannian_gradient=gradient), initial_point=start)
            u, s, vt = result.point
        except _ContentError as content:
            u, s, vt = content.point
        seconds = watch.seconds
    return u * s, vt.T, seconds


class _ContentError(Exception):
    """Carries the point at which the watch was content out of pymanopt's loop, which has no other way to stop."""

    def __init__(self, point) -> None:
        self.point = point


class _Problem:
    """Residual and Riemannian gradient; the residual of the point last asked for is kept."""

    def __init__(self, samples: Sampled) -> None:
        self.samples, self._key, self._residual = samples, None, None

    def residual(self, u, s, vt):
        if self._key is None or self._key[0] is not u or self._key[1] is not s:
            self._residual = self.samples.entries(u * s, np.ascontiguousarray(vt.T)) - self.samples.values
            self._key = u, s
        return self._residual

    def gradient(self, u, s, vt):
        """Tangent vector (Up, M, Vp): the sparse residual projected."""
        residual, v = self.residual(u, s, vt), np.ascontiguousarray(vt.T)
        u = np.ascontiguousarray(u)
        right, left = self.samples.times(residual, v), self.samples.transposed_times(residual, u)
        inner = u.T @ right
        from pymanopt.manifolds.fixed_rank import _FixedRankTangentVector

        return _FixedRankTangentVector(right - u @ inner, inner, left - v @ inner.T)


class _Search:
    """Backtracking from the length that is best on the tangent space."""

    def __init__(self, problem: _Problem, watch: Watch) -> None:
        self._problem, self._watch = problem, watch

    def __deepcopy__(self, memo):
        return self  # pymanopt copies the searcher, and with it would copy the samples

    def search(self, objective, manifold, x, d, f0, df0):
        """Length of the step and the new point."""
        u, s, vt = x
        if self._watch(u * s, vt.T):
            raise _ContentError(x)
        residual = self._problem.residual(u, s, vt)
        left, middle, right = manifold.embedding(x, d)
        change = self._problem.samples.entries(np.ascontiguousarray(left @ middle), np.ascontiguousarray(right))
        length = -float(residual @ change) / float(change @ change)
        for _ in range(25):
            point = manifold.retraction(x, length * d)
            if objective(*[point]) <= f0 + 1e-4 * length * df0:
                return length * manifold.norm(x, d), point
            length *= 0.5
        return 0.0, x
