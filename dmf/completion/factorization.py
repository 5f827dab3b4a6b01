"""`factorize`: a matrix that is fully known."""

from __future__ import annotations

import math
import time
from typing import Any

from dmf.arrays.backend import number
from dmf.arrays.linalg import dense_svd
from dmf.completion.calls import checked_plan
from dmf.completion.state import epsilon_of, relative_residual, to_rounding
from dmf.completion.visible_rank import visible_rank
from dmf.models import LowRank
from dmf.observations import FullMatrix
from dmf.recovery.results import Recovery
from dmf.recovery.values import Found, oversampling
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import History


def factorize(matrix: Any, rank: int | None = None, *, seed: int = 0) -> Recovery:
    """Approximate a fully known matrix by one of low rank: its truncated singular value decomposition.

    No network has to be trained for that: descent on the compressed network ends there (Kwon et al. 2024, appendix), and
    `dmf.theory.reduced_dynamics` gives its path.

    Parameters
    ----------
    matrix : array, shape (d1, d2), or FullMatrix
    rank : int, 1 <= rank <= min(d1, d2), optional
        Rank of the approximation; unless given, the number of singular values that stand out of noise, see
        `dmf.completion.visible_rank.visible_rank`.
    seed : int
        Seed of the randomised singular value decomposition of large matrices.

    Returns
    -------
    Recovery
        ``product()`` gives the approximation, of all matrices of this rank the closest in the Frobenius norm.

    Raises
    ------
    RankError, ArgumentError, ShapeError, DTypeError, ObservationError
        If an argument is out of range or the matrix cannot be used.
    """
    observations = matrix if isinstance(matrix, FullMatrix) else FullMatrix(matrix)
    plan = checked_plan(observations, rank, 0, seed)
    begin = time.perf_counter()
    u, s, vt = dense_svd(observations.matrix, min(observations.shape) if rank is None else rank, seed)
    kept, noise = visible_rank(s, observations.shape) if rank is None else (rank, None)
    model = LowRank(u, s, vt).truncated(kept)
    square = 2 * number(observations.loss(*model.factors())) / observations.n_measurements
    relative = relative_residual(square / 2, observations.mean_square)
    exact = relative <= to_rounding(epsilon_of(observations))
    found = Found(
        rank=kept,
        noise=0.0 if exact else math.sqrt(square) if noise is None else noise,
        exact=exact,
        relative_residual=relative,
        oversampling=oversampling(observations.n_measurements, observations.shape, kept),
    )
    history = History({"iteration": [0], "loss": [square / 2], "seconds": [time.perf_counter() - begin]})
    return Recovery(model, found, Outcome.SOLVED, history, plan, observations=observations).named()
