"""Gauss-Newton on the matrices of fixed rank: the last digits, quadratically."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from dmf.arrays.backend import Array, namespace, number
from dmf.arrays.linalg import factored_svd
from dmf.errors import RankError
from dmf.models import DeepLinearNetwork, LowRank
from dmf.observations import Observations
from dmf.observations.checks import check_rank
from dmf.solvers.checkpoints import CheckpointLike
from dmf.solvers.loop import Callback, check_problem, run
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import Run

_SHRINK, _GROW, _FIRST_DAMPING = 0.1, 10.0, 1e-3  # of the damping after a good step and a bad one; of the gain
_GOOD = 0.25  # share of the promised gain from which on a step is good
_FALLING = 0.999  # a step that leaves more of the loss than this gains little
_ROUNDING = 32.0  # units in the last place, relative to the measurements, to which residuals can fall
_PROMISING = 0.03  # share of the loss that the first steps leave if the rank is right
_TRIALS = 4  # steps of little gain in a row before a limited number of tries is over
_RUNAWAY = 100.0  # times the size that the measurements let expect: the matrix grows where nothing was measured
_SHARPEST = (
    1e-6  # of linear systems: beyond, rounding grows along directions that change the factors, not their product
)
_NOISE = 8.0  # units in the last place, relative to the measurements, below which a gradient is rounding: no system is sharper
_ACCURACY = 0.1  # of the linear systems far from the solution; closer, the relative loss


@dataclass(frozen=True)
class _State:
    u: Array
    s: Array
    vt: Array
    loss: float  # half the mean squared residual
    gradient: Array  # (d1 + d2, r): its components P and Q^T along P V^T + U Q
    damping: float = 0.0
    slow: int = 0  # steps of little gain in a row
    steps: int = 0
    first_loss: float = math.inf
    finished: Outcome | None = None


@dataclass(frozen=True)
class GaussNewton:
    """Damped Gauss-Newton steps in the tangent space of the matrices of rank r, solved by conjugate gradients.

    At ``X = U diag(s) V^T`` the step ``P V^T + U Q`` minimises the squared residual of the linearised problem; the sum is
    brought back to rank r by its singular value decomposition. The factors of the step have orthonormal partners, so that the
    linear systems do not see the condition number of X.

    Parameters
    ----------
    inner : int, >= 1
        Most steps of conjugate gradients in one iteration.
    tries : int, >= 1, optional
        Steps after which the solver ends unless they lowered the loss as they do from a good start at the right rank; it also
        ends after a few steps in a row that hardly lower it. Unless given, it goes on while steps lower the loss at all.
    """

    inner: int = 500
    tries: int | None = None

    def rescaled(self, unit: float) -> GaussNewton:
        """Itself: no option has a unit."""
        return self

    def prepare(self, observations: Observations, start: Any) -> Observations:
        """The observations themselves."""
        return observations

    def init(self, observations: Observations, start: LowRank | DeepLinearNetwork) -> Any:
        """State at the start, whose width is the rank."""
        model = LowRank.of(start)
        state = self._state(observations, model.u, model.s, model.vt)
        return replace(state, first_loss=state.loss)

    def _state(self, observations, u, s, vt):
        # One pass gives both components: the second half of either factor meets zeros in the product.
        xp = namespace(u)
        loss, left, right = observations.evaluate(xp.concat([u * s, u], axis=1), xp.concat([vt, 0 * vt]))
        rank = s.shape[0]
        gradient = xp.concat([left[:, :rank], xp.matrix_transpose(right[rank:, :])])
        return _State(u, s, vt, number(loss) / observations.n_measurements, gradient)

    def advance(self, observations: Observations, state: Any, iterations: int) -> tuple[Any, int]:
        """State after at most `iterations` steps, tried or taken, and their number."""
        for done in range(iterations):
            if state.finished:
                return state, done
            state = replace(self._step(observations, state), steps=state.steps + 1, first_loss=state.first_loss)
            if state.steps == self.tries and state.loss > _PROMISING * state.first_loss and not state.finished:
                state = replace(state, finished=Outcome.UNPROMISING)
        return state, iterations

    def _step(self, observations, state):
        xp = namespace(state.u)
        d1, rank = observations.shape[0], state.s.shape[0]
        size, eps = 0.5 * observations.mean_square, float(xp.finfo(observations.dtype).eps)
        relative = math.sqrt(state.loss / size) if size else 0.0
        tolerance = max(relative, _SHARPEST, _NOISE * eps / relative if relative else 0.0)
        step = observations.tangent_step(
            state.u, state.vt, -state.gradient, state.damping, min(_ACCURACY, tolerance), self.inner
        )
        p, q = step[:d1, :], xp.matrix_transpose(step[d1:, :])
        left = xp.concat([state.u * state.s + p, state.u], axis=1)
        u, s, vt = factored_svd(left, xp.concat([state.vt, q]))
        following = self._state(observations, u[:, :rank], s[:rank], vt[:rank, :])
        # Of the linearised problem, half of it if the damping is large.
        promised = 0.5 * number(-xp.sum(state.gradient * step)) / observations.n_measurements
        gain = state.loss - following.loss
        falling, good = following.loss < _FALLING * state.loss, gain > _GOOD * promised
        following = following if gain > 0 else state
        grown = max(_GROW * state.damping, _FIRST_DAMPING * observations.gain)
        slow, finished = 0 if falling else state.slow + 1, None
        rounding = 2 * eps * math.sqrt(state.loss * size / observations.n_measurements)  # of the loss
        if following.loss <= (_ROUNDING * eps) ** 2 * size or (relative <= eps ** (2 / 3) and not (falling and good)):
            finished = Outcome.EXACT
        elif not falling and promised <= rounding:
            # A step of large damping is a short one along the gradient and lowers the loss unless that is rounding, so that
            # failures end here.
            grown_away = self._excess(observations, following) > _RUNAWAY
            finished = Outcome.RUNAWAY if grown_away else Outcome.STATIONARY
        elif self.tries is not None and slow == _TRIALS:
            finished = Outcome.UNPROMISING
        damping = _SHRINK * state.damping if good else grown
        return replace(following, damping=damping, slow=slow, finished=finished)

    def _excess(self, observations, state):
        """Norm of the matrix over what the measurements let expect."""
        expected = observations.mean_square * observations.n_measurements
        return number(namespace(state.s).linalg.vector_norm(state.s)) * math.sqrt(observations.gain / expected)

    def loss(self, state: Any) -> float:
        """Half the mean squared residual."""
        return state.loss

    def model(self, observations: Observations, state: Any) -> LowRank:
        """The matrix of a state."""
        return LowRank(state.u, state.s, state.vt)

    def finished(self, state: Any) -> Outcome | None:
        """Why the solver has nothing more to do; None while it has."""
        return state.finished

    def findings(self, state: Any) -> dict[str, float]:
        """Root mean square of the residual, and the rank."""
        return {"noise": math.sqrt(2 * state.loss), "rank": state.s.shape[0]}

    def advice(self, outcome: Outcome) -> str:
        """What to do after a run that ended like this."""
        return {
            Outcome.BUDGET: "Allow more iterations if the loss is still falling.",
            Outcome.RUNAWAY: "No minimum is near: start closer, or take another rank.",
        }.get(outcome, "")


def refine(
    observations: Observations,
    start: LowRank | DeepLinearNetwork,
    rank: int | None = None,
    *,
    iterations: int = 60,
    tolerance: float = 0.0,
    record_every: int = 1,
    callback: Callback | None = None,
    checkpoint: CheckpointLike | None = None,
    resume: bool = False,
) -> Run:
    """Carry a matrix that is nearly right to machine precision, at fixed rank.

    Parameters
    ----------
    observations : Observations
    start : LowRank or DeepLinearNetwork
    rank : int, 1 <= rank <= width of `start`, optional
        The start is truncated to it; its (least) width unless given. At a rank above that of the data the measurements are fitted
        and the matrix is missed.
    iterations : int, >= 0
        Most Gauss-Newton steps, tried or taken.
    tolerance, record_every, callback, checkpoint, resume
        As in `gradient_descent`; the loss is half the mean squared residual.

    Returns
    -------
    Run
        Its model is a `LowRank`, its loss no higher than that of the truncated start. It ends with EXACT once the residual is
        down to rounding, with STATIONARY where no step, however short, lowers it further, and with RUNAWAY if the matrix has
        grown far beyond the measurements on the way, as it does from a poor start or at a wrong rank.

    Raises
    ------
    RankError, ArgumentError, ShapeError, DTypeError, BackendError
        If start and observations do not fit together, or an option is out of range.

    References
    ----------
    .. [1] Zilber, Nadler, GNMR: a provable one-line algorithm for low rank matrix recovery, SIMODS 2022 (arXiv 2106.12933).
    """
    check_problem(observations, start)
    model = LowRank.of(start)
    if rank is not None:
        rank = check_rank(rank, observations.shape)
        if rank > model.width:
            raise RankError(
                f"rank={rank}, but the start has a least width of {model.width}, and its product no higher rank. Pass a rank "
                f"up to {model.width}, or a wider start.",
                argument="rank",
                value=rank,
                limit=(1, model.width),
            )
        model = model.truncated(rank)
    return run(
        GaussNewton(),
        observations,
        model,
        iterations=iterations,
        tolerance=tolerance,
        record_every=record_every,
        callback=callback,
        checkpoint=checkpoint,
        resume=resume,
    )
