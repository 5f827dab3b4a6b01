"""The gradient flow itself, of which gradient descent is the Euler method: steps as long as the path's accuracy allows.

From a small start the flow rests on plateaus between which components are learned, and a fixed step must suit the fastest
moment of all. Between two components the layers are almost at rest, but the curvature of the components that are learned
already limits explicit steps to 2 / curvature. Stabilised Runge-Kutta methods reach a length of about s^2 / 2 / curvature
with s gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from dmf.arrays.backend import Array, namespace, number
from dmf.arrays.checks import REDUCTIONS, check_choice, check_option, layer_factors
from dmf.errors import ArgumentError
from dmf.models import DeepLinearNetwork
from dmf.models.gradients import Weights, loss_and_gradients, pull_back, push_forward
from dmf.observations import Observations
from dmf.observations.base import half_square
from dmf.solvers.checkpoints import CheckpointLike
from dmf.solvers.descent import GradientDescent, scale_of
from dmf.solvers.loop import Callback, run
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import Run

_MOST_STAGES = (
    15  # more pay on long plateaus and cost in the final convergence, where a step damps each mode by about 1/2
)
_CURVATURE_AGE, _FIRST_SWEEPS, _SWEEPS = 5, 5, 1  # accepted steps between estimates of the curvature, power iterations
_CURVATURE_MARGIN = 1.1  # power iterations approach the curvature from below
_SAFETY, _SHRINK_MOST, _GROW_MOST, _AFTER_RISE = 0.8, 0.1, 5.0, 0.5  # of the next step relative to this one
_REJECTIONS = 60  # in a row: the step has then shrunk by at least 0.8^60, 1e-6, and no finite one is in sight
_ROUNDINGS = 50  # by which the root of the loss may rise, in units of that of W = 0


@dataclass(frozen=True)
class _State:
    """A point of the path: all layers in one vector, and what the choice of the next step needs."""

    shapes: tuple[tuple[int, int], ...]
    point: Array
    velocity: Array  # -alpha_l dL/dW_l - lambda W_l
    loss: float
    potential: float  # what never rises: the loss, and with weight decay its share
    zero: float  # root of the loss of W = 0
    time: float
    step: float  # proposed; 0 until known
    direction: Array  # of the power iterations
    curvature: float = 0.0
    age: int = 0  # accepted steps since the curvature was estimated
    last: tuple[float, float] = (0.0, 0.0)  # length and error of the last accepted step
    evaluations: int = 1
    finished: Outcome | None = None


@dataclass(frozen=True)
class GradientFlow:
    """Runge-Kutta-Legendre steps of second order for ``dW_l/dt = -alpha_l dL/dW_l - lambda W_l``, with error control.

    An iteration is an accepted step. It is rejected, and tried again shorter, if its error estimate exceeds `accuracy`, if it
    is not finite, or if ``L + lambda/2 sum_l ||W_l||^2 / alpha_l`` rises, of which the flow is a gradient flow. The number of
    stages, 2 to 15, follows from the step and the largest curvature.
    """

    outer_scale: float = 1.0
    reduction: str = "mean"
    accuracy: float = 1e-2
    weight_decay: float = 0.0

    def prepare(self, observations: Observations, start: Any) -> Observations:
        """The observations themselves."""
        return observations

    def init(self, observations: Observations, network: DeepLinearNetwork) -> Any:
        """State at the start; makes a step and forgets it, so that the seconds of the history hold no compilation."""
        shapes = tuple((w.shape[0], w.shape[1]) for w in network.weights)
        point = _joined(network.weights)
        loss, potential, velocity = self._slope(observations, shapes, point)
        xp = namespace(point)
        still = math.isfinite(loss) and number(xp.sum(velocity * velocity)) == 0
        finished = Outcome.STATIONARY if still else None
        zero = math.sqrt(
            scale_of(self.reduction, observations) * observations.n_measurements * observations.mean_square / 2
        )
        state = _State(shapes, point, velocity, loss, potential, zero, 0.0, 0.0, velocity, finished=finished)
        if math.isfinite(potential):
            self.advance(observations, state, 1)
        return state

    def advance(self, observations: Observations, state: Any, iterations: int) -> tuple[Any, int]:
        """State after at most `iterations` accepted steps, and their number."""
        for done in range(iterations):
            following = None if state.finished else self._step(observations, state)
            if following is None:
                return state, done
            state = following
        return state, iterations

    def _step(self, observations: Observations, state: _State) -> _State | None:
        """State after the next accepted step; None if there is none."""
        xp = namespace(state.point)
        rounding = float(xp.finfo(state.point.dtype).eps)
        slack = _ROUNDINGS * rounding * state.zero
        accuracy = max(self.accuracy, 16 * rounding)
        trial = self._with_curvature(observations, state) if state.age == 0 else state
        step = trial.step or _first_step(trial, accuracy)
        for _ in range(_REJECTIONS):
            curvature = _CURVATURE_MARGIN * trial.curvature
            step = min(step, _reach(_MOST_STAGES) / curvature) if curvature > 0 else step
            stages = _stages_for(step * curvature)
            point = _legendre_step(
                lambda y: self._slope(observations, state.shapes, y)[2], state.point, state.velocity, step, stages
            )
            loss, potential, velocity = self._slope(observations, state.shapes, point)
            trial = replace(trial, evaluations=trial.evaluations + stages)
            defect = 0.8 * (state.point - point) + 0.4 * step * (state.velocity + velocity)
            error = _relative(defect, (state.point, point), state.shapes) / accuracy
            rises = not math.sqrt(max(potential, 0.0)) <= math.sqrt(state.potential) + slack
            if error <= 1 and not rises and math.isfinite(potential):  # false for NaN
                age = (trial.age + 1) % _CURVATURE_AGE
                proposal = step * _growth(step, error, trial.last)
                following = replace(trial, point=point, velocity=velocity, loss=loss, potential=potential)
                return replace(following, time=trial.time + step, age=age, step=proposal, last=(step, error))
            finite = 0 < error < math.inf and math.isfinite(potential)
            shorter = _SAFETY * error ** (-1 / 3) if finite else _SHRINK_MOST
            step *= min(max(shorter, _SHRINK_MOST), _AFTER_RISE if rises else _SAFETY)
            trial = self._with_curvature(observations, trial)
        return None

    def _slope(self, observations, shapes, point):
        """Loss, potential and velocity at a point."""
        scale, decay = scale_of(self.reduction, observations), self.weight_decay
        weights = _layers(point, shapes)
        loss, gradients = loss_and_gradients(weights, observations.evaluate)
        rates = GradientDescent(scale, self.outer_scale).rates(len(shapes))
        velocity = _joined(tuple(-rate * g for rate, g in zip(rates, gradients, strict=True)))
        loss = potential = scale * number(loss)
        if decay:
            factors = layer_factors(len(shapes), self.outer_scale).tolist()
            potential += decay * sum(number(half_square(w)) / a for w, a in zip(weights, factors, strict=True))
            velocity = velocity - decay * point
        return loss, potential, velocity

    def _with_curvature(self, observations: Observations, state: _State) -> _State:
        """The state with the largest eigenvalue of the Gauss-Newton Hessian, layers scaled by their rates.

        Power iterations go on from the direction of the last estimate.
        """
        xp = namespace(state.point)
        weights = _layers(state.point, state.shapes)
        rates = GradientDescent(scale_of(self.reduction, observations), self.outer_scale).rates(len(weights))
        direction, curvature, evaluations = state.direction, 0.0, state.evaluations
        for _ in range(_FIRST_SWEEPS if state.curvature == 0 else _SWEEPS):
            size = number(xp.linalg.vector_norm(direction))
            if not 0 < size < math.inf:
                break
            image = observations.predict(*push_forward(weights, _layers(direction / size, state.shapes)))
            pulled = pull_back(weights, partial(observations.adjoint, image))
            direction = _joined(tuple(rate * g for rate, g in zip(rates, pulled, strict=True)))
            curvature, evaluations = number(xp.linalg.vector_norm(direction)) + self.weight_decay, evaluations + 1
        if not 0 < curvature < math.inf:  # the next estimate begins anew
            direction, curvature = state.velocity, 0.0
        return replace(state, direction=direction, curvature=curvature, evaluations=evaluations)

    def loss(self, state: Any) -> float:
        """Training loss of a state."""
        return state.loss

    def model(self, observations: Observations, state: Any) -> DeepLinearNetwork:
        """Network of a state."""
        return DeepLinearNetwork(_layers(state.point, state.shapes))

    def finished(self, state: Any) -> Outcome | None:
        """Why the solver has nothing more to do; None while it has."""
        return state.finished

    def findings(self, state: Any) -> dict[str, float]:
        """Time of the flow, and gradients computed so far (a product with the Hessian counts as one)."""
        return {"time": state.time, "evaluations": float(state.evaluations)}

    def advice(self, outcome: Outcome) -> str:
        """What to do after a run that ended like this."""
        return {
            Outcome.DIVERGED: "However short the step, its error stayed too large or the loss was not finite: scale the data to "
            f"singular values of about 1, or pass a larger accuracy than {self.accuracy:g}.",
            Outcome.BUDGET: "Allow more iterations if the loss is still falling.",
        }.get(outcome, "")


def _joined(layers: Weights) -> Array:
    xp = namespace(layers[0])
    return xp.concat([xp.reshape(w, (-1,)) for w in layers])


def _layers(vector: Array, shapes: tuple[tuple[int, int], ...]) -> Weights:
    xp = namespace(vector)
    layers, begin = [], 0
    for rows, columns in shapes:
        layers.append(xp.reshape(vector[begin : begin + rows * columns], (rows, columns)))
        begin += rows * columns
    return tuple(layers)


def _relative(vector: Array, points: tuple[Array, ...], shapes: tuple[tuple[int, int], ...]) -> float:
    """Largest Frobenius norm of a layer of `vector` relative to that of the layer at the larger of `points`."""
    norm = namespace(vector).linalg.vector_norm
    worst = 0.0
    for change, *layers in zip(_layers(vector, shapes), *(_layers(p, shapes) for p in points), strict=True):
        size, part = max(number(norm(w)) for w in layers), number(norm(change))
        ratio = part / size if size > 0 else (math.inf if part > 0 else 0.0)
        worst = ratio if not ratio <= worst else worst  # NaN stays
    return worst


def _first_step(state: _State, accuracy: float) -> float:
    """Length after which layers have moved by `accuracy`, relative to their size; the curvature limits it, too."""
    ratio = _relative(state.velocity, (state.point,), state.shapes)
    if 0 < ratio < math.inf:
        return accuracy / ratio
    return 1 / state.curvature if state.curvature > 0 else 1.0  # a layer begins at zero


def _growth(step: float, error: float, last: tuple[float, float]) -> float:
    """Length of the next step relative to this one: error of third order, its trend continued where it rises."""
    if error == 0:
        return _GROW_MOST
    factor = _SAFETY * error ** (-1 / 3)
    if last[1] > 0:
        factor = min(factor, factor * (step / last[0]) * (last[1] / error) ** (1 / 3))
    return min(max(factor, _SHRINK_MOST), _GROW_MOST)


def _reach(stages: int) -> float:
    """Largest stable product of step and curvature."""
    return (stages * stages + stages - 2) / 2


def _stages_for(product: float) -> int:
    """Least number of stages whose reach is at least `product`."""
    stages = 2
    while stages < _MOST_STAGES and _reach(stages) < product:
        stages += 1
    return stages


def _legendre_step(slope: Callable[[Array], Array], start: Array, velocity: Array, step: float, stages: int) -> Array:
    """One step of second order and `stages` >= 2 stages, the first of which is `velocity`, the slope at `start`."""

    def share(j: int) -> float:
        return 1 / 3 if j < 2 else (j * j + j - 2) / (2 * j * (j + 1))

    unit = 2 / _reach(stages)
    before, now = start, start + (share(1) * unit * step) * velocity
    for j in range(2, stages + 1):
        mu = (2 * j - 1) / j * share(j) / share(j - 1)
        nu = -(j - 1) / j * share(j) / share(j - 2)
        forward = mu * unit * step
        back = (share(j - 1) - 1) * forward
        following = (1 - mu - nu) * start + mu * now + nu * before + forward * slope(now) + back * velocity
        before, now = now, following
    return now


def follow_gradient_flow(
    observations: Observations,
    network: DeepLinearNetwork,
    *,
    outer_scale: float = 1.0,
    reduction: str = "mean",
    accuracy: float = 1e-2,
    weight_decay: float = 0.0,
    iterations: int = 10_000,
    tolerance: float = 0.0,
    record_every: int = 1,
    callback: Callback | None = None,
    checkpoint: CheckpointLike | None = None,
    resume: bool = False,
) -> Run:
    """Follow the gradient flow ``dW_l/dt = -alpha_l dL/dW_l - lambda W_l``, the limit of `gradient_descent` for small steps.

    It takes the same path from a small start, one component after another, without a step size to choose: steps are long on
    the plateaus and short where a component is learned. Each costs 2 to 15 gradients, all together a small part of those of
    a fixed step. The loss is ``1/2 ||A(W_L...W_1) - y||^2``, for "mean" divided by the number m of measurements.

    Parameters
    ----------
    observations : Observations
        What is known of the (d1, d2) matrix.
    network : DeepLinearNetwork
        The start, of the same shape, dtype, library and device; see `orthogonal_network` and `spectral_network`.
    outer_scale : float, > 0
        alpha, the discrepant learning rate: alpha_l of W_1 and W_L; 1 between.
    reduction : {"mean", "sum"}
        Changes the unit of time, by m, and with it what `weight_decay` means.
    accuracy : float, 0 < accuracy < 1
        Largest estimated error of a step, relative to the Frobenius norm of each layer; not below 16 roundings. Times at which
        components are learned are off by about ``accuracy^(2/3)`` of themselves.
    weight_decay : float, >= 0
        lambda, as of `gradient_descent`; not part of the loss.
    iterations : int, >= 0
        Exact budget of accepted steps.
    tolerance : float, >= 0
        Converged once the loss is at or below it; checked at recorded iterations.
    record_every : int, >= 1
        Iterations between two records of the history.
    callback, checkpoint, resume
        As in `gradient_descent`.

    Returns
    -------
    Run
        The history has the columns "time", t, and "evaluations", the gradients computed.
        Never NaN: where no step succeeds the run ends at its last finite state and says so. Started again from its network, a run
        goes on along the path with other steps; its time begins at 0.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, BackendError
        If an option is out of range or the start does not fit the observations.

    References
    ----------
    .. [1] Meyer, Balsara, Aslam, MNRAS 422 (2012), sections 2 and 3 (RKL2).
    .. [2] Sommeijer, Shampine, Verwer, J. Comput. Appl. Math. 88 (1998), section 2 (the error estimate and the step).
    .. [3] Kwon et al., AISTATS 2024 (arXiv 2311.05061), section 3, for alpha.
    """
    check_option("outer_scale", outer_scale, strictly=True)
    check_option("accuracy", accuracy, strictly=True)
    if accuracy >= 1:
        raise ArgumentError(
            f"accuracy={accuracy!r}, but an error as large as the layers is no path. Pass a share below 1, such as 0.01.",
            argument="accuracy",
            value=accuracy,
            limit=1,
        )
    check_choice("reduction", reduction, REDUCTIONS)
    check_option("weight_decay", weight_decay)
    return run(
        GradientFlow(float(outer_scale), reduction, float(accuracy), float(weight_decay)),
        observations,
        network,
        iterations=iterations,
        tolerance=tolerance,
        record_every=record_every,
        callback=callback,
        checkpoint=checkpoint,
        resume=resume,
    )
