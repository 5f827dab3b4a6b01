"""Gradient descent with discrepant learning rates, exactly as in the paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from dmf.arrays.backend import Array, number, to_host
from dmf.arrays.checks import REDUCTIONS, check_choice, check_option, layer_factors, random_generator
from dmf.arrays.linalg import chain_product
from dmf.errors import ArgumentError
from dmf.models import DeepLinearNetwork
from dmf.models.gradients import loss_and_gradients
from dmf.observations import FullMatrix, Observations
from dmf.solvers.bench import OptimizedDescent, Schedule, check_losses, check_tied, checked_factors, checked_rates
from dmf.solvers.checkpoints import CheckpointLike
from dmf.solvers.curvature import scale_of
from dmf.solvers.loop import Callback, check_problem, run
from dmf.solvers.losses import Loss
from dmf.solvers.optimizers import SGD, Optimizer
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import Run
from dmf.theory.compression import ExactCompression
from dmf.theory.compression import exact_compression as exact_compression_of
from dmf.theory.recursions import matrix_descent, scalar_descent


@dataclass(frozen=True)
class GradientDescent:
    """``W_l <- (1 - step_size weight_decay) W_l - rate_l dW_l``; a state is (weights, gradients, loss).

    The gradients at the weights are part of the state, so that the loss of a recorded iteration costs nothing.
    """

    step_size: float
    outer_scale: float = 1.0
    weight_decay: float = 0.0
    reduction: str = "mean"

    takes_complex: ClassVar[bool] = True

    def rates(self, depth: int) -> tuple[float, ...]:
        """Step size of each layer: ``outer_scale * step_size`` on W_1 and W_L, ``step_size`` between."""
        return tuple((self.step_size * layer_factors(depth, self.outer_scale)).tolist())

    def prepare(self, observations: Observations, start: Any) -> Observations:
        """The observations themselves."""
        return observations

    def init(self, observations: Observations, network: DeepLinearNetwork) -> Any:
        """State at the start; compiles what a step needs, so that the seconds of the history hold none of it."""
        state = self._state(observations, network.weights)
        return self.advance(observations, state, 0)[0]

    def advance(self, observations: Observations, state: Any, iterations: int) -> tuple[Any, int]:
        """State after at most `iterations` steps, and their number."""
        depth = len(state[0])
        rates, shrink = self.rates(depth), 1 - self.step_size * self.weight_decay
        compiled = observations.descent(tuple(w.shape[0] for w in state[0][:-1]))
        if compiled is not None:
            *state, done = compiled(*state, rates, shrink, scale_of(self.reduction, observations), iterations)
            return tuple(state), done
        for step in range(iterations):
            weights, gradients, _ = state
            kept = weights if shrink == 1 else tuple(shrink * w for w in weights)
            moved = tuple(map(_moved, kept, gradients, rates))
            following = self._state(observations, moved)
            if not math.isfinite(following[2]):
                return state, step
            state = following
        return state, iterations

    def _state(self, observations, weights):
        scale = scale_of(self.reduction, observations)

        def evaluate(left, right):  # scaled here, the two products carry the factor into every gradient
            loss, *products = observations.evaluate(left, right)
            return scale * number(loss), *(scale * product for product in products)

        loss, gradients = loss_and_gradients(weights, evaluate)
        return weights, gradients, loss

    def loss(self, state: Any) -> float:
        """Training loss of a state."""
        return state[2]

    def model(self, observations: Observations, state: Any) -> DeepLinearNetwork:
        """Network of a state."""
        return DeepLinearNetwork(state[0])

    def finished(self, state: Any) -> Outcome | None:
        """Never: it goes on until the loop ends it."""
        return None

    def findings(self, state: Any) -> dict[str, float]:
        """Nothing besides the loss."""
        return {}

    def advice(self, outcome: Outcome) -> str:
        """What to do after a run that ended like this."""
        return {
            Outcome.DIVERGED: f"Take a smaller step_size than {self.step_size:g}, or a smaller outer_scale than "
            f"{self.outer_scale:g}.",
            Outcome.BUDGET: "Allow more iterations if the loss is still falling.",
        }.get(outcome, "")


def _moved(weight: Array, gradient: Array, rate: float) -> Array:
    """``weight - rate * gradient``, of which only the result is new memory."""
    moved = -rate * gradient
    moved += weight
    return moved


class CompressedDescent(GradientDescent):
    """The same trajectory, carried by a network of width 2r; a state is (weights, rho, steps, loss)."""

    takes_complex: ClassVar[bool] = False

    def prepare(self, observations: Observations, network: DeepLinearNetwork) -> ExactCompression:  # type: ignore[override]
        """The compression of the start."""
        if not isinstance(observations, FullMatrix):
            raise ArgumentError(
                f"exact_compression=True with {type(observations).__name__}, but the compression is exact only where every "
                "entry is known. Pass a FullMatrix, or start from spectral_network(...).",
                argument="exact_compression",
                value=type(observations).__name__,
                limit="FullMatrix",
            )
        return exact_compression_of(observations.matrix, network)

    def init(self, compression: ExactCompression, network: DeepLinearNetwork) -> Any:  # type: ignore[override]
        """State at the start; the small weights are float64 arrays on the host."""
        weights = tuple(to_host(w).astype(np.float64) for w in compression.network.weights)
        state = self._with_loss(compression, weights, compression.subspaces.scales.astype(np.float64), 0)
        self._after(compression, state, 0)  # compiles
        return state

    def advance(self, compression: ExactCompression, state: Any, iterations: int) -> tuple[Any, int]:  # type: ignore[override]
        """State after at most `iterations` steps, and their number."""
        following = self._after(compression, state, iterations)
        if following is not None:
            return following, iterations
        for step in range(iterations):  # up to the last finite state
            following = self._after(compression, state, 1)
            if following is None:
                return state, step
            state = following
        return state, iterations

    def _after(self, compression, state, count):
        """State after `count` steps; None if its loss, or one before it, is not finite."""
        weights, rho, steps, _ = state
        options = self.step_size, self.outer_scale, self.weight_decay, self.reduction
        rates, shrink = compression.subspaces.coefficients(*options)
        records = np.array([count])
        moved, _ = matrix_descent(weights, to_host(compression.target), rates, shrink, records)
        passive = scalar_descent(rho[:, None], np.zeros(1), rates, shrink, records)
        if len(moved[0]) == 0 or len(passive) == 0:
            return None
        following = self._with_loss(compression, tuple(w[0] for w in moved), passive[0, :, 0], steps + count)
        return following if math.isfinite(following[-1]) else None

    def _with_loss(self, compression, weights, rho, steps):
        d1, d2 = compression.subspaces.shape
        square = compression.square_error(chain_product(weights[::-1]), np.prod(rho))
        return weights, rho, steps, float(square) / (2 if self.reduction == "sum" else 2 * d1 * d2)

    def loss(self, state: Any) -> float:
        """Training loss of a state."""
        return state[3]

    def model(self, compression: ExactCompression, state: Any) -> DeepLinearNetwork:  # type: ignore[override]
        """The wide network of a state."""
        weights, rho, steps, _ = state
        return compression.lift(weights, rho, (1 - self.step_size * self.weight_decay) ** steps)


def gradient_descent(
    observations: Observations,
    network: DeepLinearNetwork,
    step_size: float | Optimizer,
    outer_scale: float = 1.0,
    weight_decay: float = 0.0,
    reduction: str = "mean",
    iterations: int = 10_000,
    tolerance: float = 0.0,
    record_every: int = 1,
    callback: Callback | None = None,
    exact_compression: bool = False,
    checkpoint: CheckpointLike | None = None,
    resume: bool = False,
    rates: Sequence[float] | None = None,
    schedule: Schedule | None = None,
    loss: Loss | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    tied: bool = False,
) -> Run:
    """Train a deep linear network by gradient descent.

    The loss is ``1/2 ||A(W_L...W_1) - y||^2``, for "mean" divided by the number m of measurements. With a fixed step, and without
    the last options, steps are the paper's, and compiled for narrow networks on entries; otherwise they are plain array code.

    Parameters
    ----------
    observations : Observations
        What is known of the (d1, d2) matrix. A `FullMatrix` and `LinearMeasurements` may be complex, with a fixed step or SGD and
        the squared loss: the steps are those of the real matrix ``[[Re, -Im], [Im, Re]]``.
    network : DeepLinearNetwork
        The start, of the same shape, dtype, library and device; see `orthogonal_network` and `spectral_network`.
    step_size : float, > 0, or an optimiser
        eta, in units that make it stable below 2 / (largest curvature); see `largest_curvature`. Or `dmf.solvers.SGD`, which has
        momentum, or `dmf.solvers.Adam`, with their own.
    outer_scale : float, >= 0
        alpha, the discrepant learning rate: W_1 and W_L move with ``alpha * eta``; with 0 they only decay.
    weight_decay : float, >= 0
        lambda: every layer shrinks by ``1 - eta * lambda`` in each step (eta, never alpha * eta). Not part of the loss.
    reduction : {"mean", "sum"}
    iterations : int, >= 0
        Exact budget.
    tolerance : float, >= 0
        Converged once the loss is at or below it; checked at recorded iterations.
    record_every : int, >= 1
        Iterations between two records of the history. On a CPU, narrow networks on sampled entries run that long without
        returning to Python.
    callback : callable, optional
        See `dmf.solvers.loop.run`.
    exact_compression : bool
        Follow the same trajectory on a network of width 2r, for a `FullMatrix` of rank r and a wide start with orthogonal
        layers: a step costs O(L r^3) whatever d is, and the wide network is formed only where it is asked for (at the
        end, and by callbacks that look at it). See `dmf.theory.exact_compression`.
    checkpoint : path or Checkpoint, optional
        Where the run is kept every minute, at its end and on Ctrl-C, for a process that ends before its time.
    resume : bool
        Go on from `checkpoint`, to the same last bits, if there is one.
    rates : sequence of L floats, >= 0, optional
        Factors of the step for each layer, W_1 first, beside `outer_scale`.
    schedule : callable, or sequence of floats, >= 0, optional
        Factor of the step in each iteration, or a function of the iteration, from 0, that gives it.
    loss : Loss, optional
        In place of the squared one: `dmf.solvers.Huber`, `Logistic`, `Poisson`, or an object with a function
        ``evaluate(predictions, values)`` that gives the sum of the losses and their derivatives.
    batch_size : int, >= 1, optional
        Take each gradient on so many of the entries, drawn anew in each epoch, as an unbiased estimate; the recorded loss is then
        that of the next batch. Of `SampledEntries` without weights.
    seed : int
        Of the batches.
    tied : bool
        The inner layers are one, W_2 = ... = W_(L-1) = C, and stay so: C moves along the sum of their gradients, which is that of
        the loss with respect to C. The start has equal inner layers; with L - 2 of them, 1 / (L - 2) is the rate of C at which
        the product learns as fast as with layers of their own.

    Returns
    -------
    Run
        Its model is the network. Never NaN: a diverging run ends at its last finite state and says so.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, BackendError
        If an option is out of range or the start does not fit the observations.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), sections 2 and 3.
    .. [2] Gao et al., arXiv 2303.16753 (layers that share their large tensors).
    """
    check_option("outer_scale", outer_scale)
    check_option("weight_decay", weight_decay)
    check_choice("reduction", reduction, REDUCTIONS)
    solver: Any
    if hasattr(step_size, "step") or tied or not all(o is None for o in (rates, schedule, loss, batch_size)):
        if exact_compression:
            raise ArgumentError(
                "exact_compression=True with an optimiser, rates, a schedule, a loss, batches or ties, but the compression is of "
                "plain gradient descent. Leave one of them away.",
                argument="exact_compression",
                value=True,
            )
        check_problem(observations, network, or_complex=True)
        optimizer: Any = step_size if hasattr(step_size, "step") else SGD(step_size)
        factors = checked_rates([1.0] * network.depth if rates is None else rates, network.depth)
        factors = tuple((layer_factors(network.depth, outer_scale) * factors).tolist())
        scheduled = checked_factors(schedule, int(check_option("iterations", iterations, least=0, whole=True)))
        size = 0 if batch_size is None else int(check_option("batch_size", batch_size, least=1, whole=True))
        check_losses(observations, loss, size)
        random_generator(seed)
        if tied:
            check_tied(network, factors)
            factors = (*factors[:2], factors[-1])
        solver = OptimizedDescent(
            optimizer,
            factors,
            scheduled,
            float(weight_decay),
            reduction,
            loss,
            size,
            seed,
            tied=network.depth - 2 if tied else 0,
        )
    else:
        check_option("step_size", step_size, strictly=True)
        kind = CompressedDescent if exact_compression else GradientDescent
        solver = kind(float(step_size), float(outer_scale), float(weight_decay), reduction)
    return run(
        solver,
        observations,
        network,
        iterations=iterations,
        tolerance=tolerance,
        record_every=record_every,
        callback=callback,
        checkpoint=checkpoint,
        resume=resume,
    )
