"""Whether measurements determine the matrix that fits them: the one test behind the word "exact", for every kind of them.

To first order, what fits the measurements as well as a matrix X of rank r are the changes in the tangent space at X that the
measurements do not see. A random change is projected on these: the linear system of a Gauss-Newton step is solved for the part
that is seen, again and again, until nothing is left or what is left is not seen. That takes about as long as one or two steps
of the fit, and finds, with probability one, all that is open at once. Rows and columns are named by the largest part of the
matrix in which every entry is determined: outside of it are rows with too few entries, and blocks that too few entries join.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dmf.arrays.backend import Array, from_host, namespace, number, to_host
from dmf.arrays.linalg import gaussian
from dmf.completion.state import epsilon_of, to_rounding
from dmf.completion.submatrix import Submatrix
from dmf.models import LowRank
from dmf.observations import Entries, Observations
from dmf.recovery.results import Recovery
from dmf.solvers.homotopy import noise_edge
from dmf.solvers.outcomes import Outcome

ROUNDS, ACCURACY, STEPS = 12, 3e-6, 300  # solutions at most, of this residual and of so many passes each
NEGLIGIBLE = 1e-5  # size of what is left of a random change, relative, below which the measurements see all of it
MAJORITY_ROUNDS = 60  # of reweighting
CHANGED = 1e-4  # change of a row, relative to the largest, from which on it is open


def unseen_below(observations: Observations) -> float:
    """Share of the mean square of a matrix below which its measurements do not see it, but rounding errors."""
    return epsilon_of(observations) ** 0.75


def undetermined(observations: Observations, model: LowRank) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns with entries that differ between matrices of this rank that fit the measurements equally well.

    Parameters
    ----------
    observations : Observations
    model : LowRank
        Fits them to rounding; without components of size 0.

    Returns
    -------
    rows, cols : int64 arrays
        Ascending; empty where the measurements determine the matrix, near this one.
    """
    if isinstance(observations, Entries):
        block = _largest_block(observations)
        if block is not None:
            u, vt = (to_host(a) for a in (model.u, model.vt))
            part = LowRank.of_factors(
                *(from_host(a, model.u) for a in (u[block.rows] * to_host(model.s), vt[:, block.cols]))
            )
            rank = int(np.sum(to_host(part.s) > unseen_below(observations) ** 0.5 * float(part.s[0])))
            return block.outside(*undetermined(block.observations, part.truncated(rank)))
    change = _unseen_change(observations, model)
    if change is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    u, v = (to_host(a).astype(np.float64) for a in (model.u, namespace(model.vt).matrix_transpose(model.vt)))
    sizes = _outside_the_largest_part(u, v, *np.split(to_host(change).astype(np.float64), [len(u)]))
    most = max(float(np.max(s)) for s in sizes)
    rows, cols = (np.flatnonzero(s > CHANGED * most) for s in sizes)
    return rows, cols


def _largest_block(observations: Entries) -> Submatrix | None:
    """The most rows and columns that hang together through entries, unless all do.

    Blocks that share no entry can be scaled against each other.
    """
    labels = [to_host(part) for part in observations.connectivity()]
    largest = np.argmax(np.bincount(np.concatenate(labels)))
    rows, cols = (np.flatnonzero(part == largest) for part in labels)
    if (rows.size, cols.size) == observations.shape:
        return None
    return Submatrix(observations.restricted(rows, cols), rows, cols, observations.shape)


def _unseen_change(observations: Observations, model: LowRank) -> Array | None:
    """A random change (P above Q, of P V^T + U Q^T) among those that the measurements do not see; None if they see all.

    Where the last solution leaves that open, as along a narrow band of a thousand rows, what is left counts as not seen:
    nothing is called exact without proof.
    """
    u, vt = model.u, model.vt
    d1, d2 = observations.shape

    def measured(change: Array) -> Array:
        """The same change of the matrix, with the components that change nothing taken away."""
        xp = namespace(change)
        p, q = change[:d1, :], change[d1:, :]
        both = xp.matrix_transpose(u) @ p
        return xp.concat([p - u @ both, q + xp.matrix_transpose(vt) @ xp.matrix_transpose(both)])

    def inner(a: Array, b: Array) -> float:
        return number(namespace(a).sum(a * b))

    normal, least = observations.tangent_normal(u, vt), observations.gain * unseen_below(observations)
    change = measured(gaussian((d1 + d2, model.width), 0, u))
    first = inner(change, change)
    for _ in range(ROUNDS):
        image, size = normal(change), inner(change, change)
        if size <= NEGLIGIBLE**2 * first:
            return None
        if inner(change, image) <= least * size:
            return change
        change = measured(change - observations.tangent_step(u, vt, image, 0.0, ACCURACY, STEPS))
    return change


def _outside_the_largest_part(u: np.ndarray, v: np.ndarray, p: np.ndarray, q: np.ndarray) -> list[np.ndarray]:
    """How far each row and each column is from a part of the matrix that P V^T + U Q^T leaves as it is.

    Nothing changes between rows with ``P_i = U_i C`` and columns with ``Q_j = -V_j C^T``. The C that holds for most of them is
    found by reweighting: those that are off by more than a length count less and less, while the length falls to nothing.
    """
    from scipy.linalg import solve_sylvester

    weights = [np.ones(len(u)), np.ones(len(v))]
    for share in np.logspace(0, -16, MAJORITY_ROUNDS):
        by_rows, by_cols = u.T * weights[0], v.T * weights[1]
        c = solve_sylvester(by_rows @ u, by_cols @ v, by_rows @ p - (by_cols @ q).T)
        sizes = [np.linalg.norm(p - u @ c, axis=1), np.linalg.norm(q + v @ c.T, axis=1)]
        length = share * max(float(np.max(s**2)) for s in sizes)
        weights = [length / (s**2 + length) for s in sizes]
    return sizes


def judged(recovery: Recovery) -> Recovery:
    """The recovery, which is exact only if the measurements determine it."""
    found, observations = recovery.found, recovery.observations
    if not found.exact or found.rank == 0:
        return recovery
    assert observations is not None
    rows, cols = (tuple(index.tolist()) for index in undetermined(observations, recovery.model))
    if not rows and not cols:
        return recovery
    found = replace(found, exact=False, undetermined=(rows, cols))
    return replace(recovery, found=found, outcome=Outcome.UNDETERMINED)


def symmetrised(recovery: Recovery) -> Recovery:
    """The recovery, or its symmetric part where the measurements see no other."""
    observations, model = recovery.observations, recovery.model
    assert observations is not None
    if not _sees_symmetric_parts(observations):
        return recovery
    xp = namespace(model.u)
    left, right = model.halves()
    halves = (
        xp.concat([left / 2, xp.matrix_transpose(right) / 2], axis=1),
        xp.concat([right, xp.matrix_transpose(left)]),
    )
    whole = LowRank.of_factors(*halves)
    sizes, noise = to_host(whole.s), recovery.found.noise
    least = noise_edge(observations, noise**2) if noise else to_rounding(epsilon_of(observations)) * sizes[0]
    rank = int(np.sum(sizes > least))
    found = replace(recovery.found, rank=rank, exact=False, symmetric=True)
    outcome = Outcome.UNDETERMINED if recovery.outcome is Outcome.EXACT else recovery.outcome
    return replace(recovery, model=whole.truncated(rank), found=found, outcome=outcome)


def _sees_symmetric_parts(observations: Observations) -> bool:
    """Whether a matrix and its transpose give the same measurements."""
    d1, d2 = observations.shape
    if d1 != d2 or d1 == 1:
        return False
    xp = namespace(observations.like)
    left, right = gaussian((d1, 1), 0, observations.like), gaussian((1, d2), 1, observations.like)
    one = observations.predict(left, right)
    other = observations.predict(xp.matrix_transpose(right), xp.matrix_transpose(left))
    return number(xp.sum((one - other) ** 2)) <= unseen_below(observations) * number(xp.sum(one**2))
