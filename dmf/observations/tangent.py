"""Linearised least squares on sampled entries, one factor of the step eliminated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dmf.arrays.linalg import conjugate_gradient

if TYPE_CHECKING:
    from dmf.kernels.tangent import TangentSystem


def eliminated_step(system: TangentSystem, target: np.ndarray, tolerance: float, iterations: int) -> np.ndarray:
    """Step (P above Q) that the normal matrix maps to `target`: P follows Q, for which conjugate gradients are run.

    Parameters
    ----------
    system : TangentSystem
    target : array, shape (d1 + d2, r)
    tolerance : float
        Ends when the residual is at most this times the norm of `target`.
    iterations : int
        Most steps of conjugate gradients.

    Returns
    -------
    array, shape (d1 + d2, r)
    """
    width = target.shape[1]
    d1 = target.shape[0] - system.n_columns
    above, below = system.padded(target[:d1]), system.padded(target[d1:])
    reduced = below - system.by_columns(system.solve_blocks(0, above), 0 * below)
    whole, size = float(np.linalg.norm(target)), float(np.linalg.norm(reduced))
    q = conjugate_gradient(
        lambda q: system.by_columns(-system.solve_blocks(0, system.by_rows(q)), q),
        reduced,
        None,
        tolerance * whole / size if size else 0.0,
        iterations,
        precondition=lambda rows: system.solve_blocks(1, rows),
    )
    p = system.solve_blocks(0, above - system.by_rows(q))
    return np.concatenate([p, q])[:, :width]
