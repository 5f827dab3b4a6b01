"""One suite over every solver, through the one driver loop."""

import sys
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

import dmf
from dmf.arrays.backend import to_host
from dmf.arrays.checks import check_option
from dmf.solvers import Outcome
from dmf.solvers.alternating import AlternatingMinimization
from dmf.solvers.gauss_newton import GaussNewton
from dmf.solvers.loop import run
from dmf.solvers.units import scaled

from helpers import (
    BASE,
    KINDS,
    LIBRARIES,
    OTHERS,
    assert_finite,
    assert_same_weights,
    observe,
    on_device1,
    start,
    weights_of,
)
from solver_cases import SOLVERS

EPS = np.finfo(float).eps
MEMORYLESS = ["gradient descent", "alternating minimization"]  # those whose state is the network
EXACT = [
    "gradient descent"
]  # up to rounding; the others solve linear systems iteratively on some kinds of observations


@pytest.fixture(params=SOLVERS)
def solver(request):
    return SOLVERS[request.param]


@pytest.fixture
def observations(solver):
    """Gauss-Newton has fitted a few entries after 1 step."""
    return observe("full" if isinstance(solver, GaussNewton) else "entries")


@pytest.mark.parametrize("iterations", [0, 1, 7])
@pytest.mark.parametrize("every", [1, 3, 100])
def test_the_budget_is_exact_and_rows_are_where_asked_for(solver, observations, iterations, every):
    """A solver may have nothing more to do before; then it says so."""
    recovery = run(solver, observations, start(observations), iterations=iterations, record_every=every)
    last = int(run(solver, observations, start(observations), iterations=iterations).history.iteration[-1])
    assert recovery.history.iteration.tolist() == sorted({*range(0, last + 1, every), last})
    if last < iterations:
        assert recovery.success
    else:
        assert recovery.outcome is Outcome.BUDGET
        assert str(iterations) in recovery.message
    assert np.all(np.diff(recovery.history.seconds) >= 0)
    assert_finite(recovery)
    assert recovery.solver is solver
    assert recovery.nit == last


def test_records_do_not_change_the_run(solver, observations):
    """However often it is recorded, the same iterates come out, bit for bit."""
    runs = [run(solver, observations, start(observations), iterations=8, record_every=k) for k in (1, 3, 8)]
    assert_same_weights(runs[0], runs[1])
    assert_same_weights(runs[0], runs[2])
    for recovery in runs[1:]:
        for name in set(recovery.history) - {"seconds"}:
            rows = runs[0].history[name][recovery.history.iteration]
            np.testing.assert_array_equal(recovery.history[name], rows)


def test_history_holds_the_loss_of_the_network(solver, observations):
    """To 200 roundings; with the reduction of the solver: alternating minimisation reports the mean."""
    seen = []
    recovery = run(
        solver, observations, start(observations), iterations=3, callback=lambda s: seen.append((s.loss, s.model))
    )
    scale = 1.0 if getattr(solver, "reduction", "mean") == "sum" else 1 / observations.n_measurements
    for recorded, (loss, model) in zip(recovery.history.loss, seen, strict=True):
        assert recorded == loss
        residual = observations.predict(*model.factors()) - observations.values
        assert abs(recorded - scale * residual @ residual / 2) <= 200 * EPS * recorded


def test_tolerance_ends_the_run_at_the_first_record_below_it(solver, observations):
    full = run(solver, observations, start(observations), iterations=40).history.loss
    tolerance = full[min(20, len(full) // 2)] * (1 + 1e-9)
    first = int(np.argmax(full <= tolerance))
    recovery = run(solver, observations, start(observations), iterations=40, tolerance=tolerance)
    assert recovery.success
    assert recovery.history.iteration[-1] == first
    assert recovery.history.loss[-1] <= tolerance < recovery.history.loss[-2]
    rare = run(solver, observations, start(observations), iterations=40, tolerance=tolerance, record_every=8)
    assert rare.history.iteration[-1] == next(
        (k for k in range(0, len(full), 8) if full[k] <= tolerance), len(full) - 1
    )
    assert_finite(recovery)


def test_tolerance_already_met_ends_at_iteration_0(solver, observations):
    recovery = run(solver, observations, start(observations), iterations=5, tolerance=1e9)
    assert recovery.success
    assert recovery.history.iteration.tolist() == [0]
    assert_same_weights(recovery, run(solver, observations, start(observations), iterations=0))


def test_callback_sees_the_run_and_adds_columns(solver, observations):
    seen = []

    def callback(snapshot):
        seen.append((snapshot.iteration, snapshot.seconds))
        return {"norm": np.linalg.norm(snapshot.model.product()), "diagonal": np.diag(snapshot.model.product())}

    recovery = run(solver, observations, start(observations), iterations=4, record_every=2, callback=callback)
    history = recovery.history
    assert [i for i, _ in seen] == history.iteration.tolist() == [0, 2, 4]
    np.testing.assert_array_equal([s for _, s in seen], history.seconds)
    data = solver.prepare(observations, start(observations))
    found = solver.findings(solver.init(data, start(observations)))
    assert set(history) == {"iteration", "loss", "seconds", "norm", "diagonal", *found}
    assert all(recovery.findings[name] == history[name][-1] for name in found)
    assert history["diagonal"].shape == (3, 5)
    np.testing.assert_allclose(history["norm"][-1], np.linalg.norm(recovery.model.product()), rtol=1e-12)
    assert_same_weights(recovery, run(solver, observations, start(observations), iterations=4))


@pytest.mark.parametrize("silent", [[0], [2], [0, 4]])
def test_a_row_without_an_answer_holds_nan(solver, observations, silent):
    recovery = run(
        solver,
        observations,
        start(observations),
        iterations=4,
        callback=lambda s: None if s.iteration in silent else {"a": s.iteration, "b": [1.0, 2.0]},
    )
    expected = [np.nan if k in silent else k for k in range(5)]
    np.testing.assert_array_equal(recovery.history["a"], expected)
    np.testing.assert_array_equal(np.isnan(recovery.history["b"]).all(axis=1), np.isnan(expected))


@pytest.mark.parametrize(
    "answer",
    [lambda k: {f"name {k}": 1}, lambda k: {"a": np.zeros(k)}, lambda k: {"a": 1} if k else {"a": 1, "b": 1}],
    ids=["other names", "other shapes", "a name less"],
)
def test_an_answer_unlike_the_first_is_an_error(solver, observations, answer):
    with pytest.raises(dmf.errors.ArgumentError, match="Return the same names and shapes each time") as caught:
        run(solver, observations, start(observations), iterations=3, callback=lambda s: answer(s.iteration))
    assert caught.value.argument == "callback"
    assert caught.value.value != caught.value.limit


@pytest.mark.parametrize("answer", [{"a": "text"}, {"a": object()}, {"a": 1j}, {"loss": 1.0}, {"iteration": 0}])
def test_an_answer_that_is_no_number_or_takes_a_name_of_the_history(solver, observations, answer):
    """It would be lost, or the model could not be saved and loaded again."""
    with pytest.raises(dmf.errors.ArgumentError, match="Convert or rename it") as caught:
        run(solver, observations, start(observations), iterations=1, callback=lambda s: answer)
    assert (caught.value.argument, caught.value.value) == ("callback", *answer)


def raising(error, at):
    def callback(snapshot):
        if snapshot.iteration == at:
            raise error
        return {"a": 1.0}

    return callback


@pytest.mark.parametrize("at", [0, 3])
def test_stop_iteration_ends_the_run_with_its_reason(solver, observations, at):
    recovery = run(
        solver, observations, start(observations), iterations=9, callback=raising(StopIteration("good enough"), at)
    )
    assert recovery.outcome is Outcome.STOPPED
    assert "good enough" in recovery.message
    assert recovery.history.iteration[-1] == at
    assert_same_weights(recovery, run(solver, observations, start(observations), iterations=at))


@pytest.mark.parametrize("at", [0, 3])
def test_ctrl_c_in_a_callback_ends_the_run_at_its_last_good_state(solver, observations, at):
    recovery = run(solver, observations, start(observations), iterations=9, callback=raising(KeyboardInterrupt, at))
    assert recovery.outcome is Outcome.INTERRUPTED
    assert str(at) in recovery.message
    assert recovery.history.iteration.tolist() == list(range(at + 1))
    assert_finite(recovery)
    assert_same_weights(recovery, run(solver, observations, start(observations), iterations=at))


def test_other_errors_of_a_callback_are_not_swallowed(solver, observations):
    with pytest.raises(ZeroDivisionError):
        run(solver, observations, start(observations), iterations=9, callback=raising(ZeroDivisionError, 2))


@dataclass(frozen=True)
class Interrupted:
    """A solver at which Ctrl-C arrives in the middle of its n-th call."""

    solver: object
    calls: int
    made: list = field(default_factory=list)

    def __getattr__(self, name):
        return getattr(self.solver, name)

    def advance(self, observations, state, iterations):
        self.made.append(iterations)
        if len(self.made) == self.calls:
            raise KeyboardInterrupt
        return self.solver.advance(observations, state, iterations)


def test_ctrl_c_in_the_solver_ends_the_run_at_its_last_good_state(solver, observations, monkeypatch):
    monkeypatch.setattr("dmf.solvers.loop._CHUNK_SECONDS", 0)  # one iteration a call
    interrupted = Interrupted(solver, calls=5)
    recovery = run(interrupted, observations, start(observations), iterations=100, record_every=1000)
    assert recovery.outcome is Outcome.INTERRUPTED
    assert recovery.history.iteration.tolist() == [0, 4]
    assert_finite(recovery)
    assert_same_weights(recovery, run(solver, observations, start(observations), iterations=4))


@pytest.mark.parametrize("name", MEMORYLESS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_goes_on_as_if_never_interrupted(name, kind):
    """Bit for bit where a step is plain array code; 5 steps of about 100 roundings for the compiled chunk.

    (The chunk sums gradients in another order than the evaluation at which a run begins.)
    """
    solver, observations = SOLVERS[name], observe(kind)
    whole = run(solver, observations, start(observations), iterations=9)
    first = run(solver, observations, start(observations), iterations=4)
    rest = run(solver, observations, first.network, iterations=5)
    if observations.descent((4,)) is None or isinstance(solver, AlternatingMinimization):
        assert_same_weights(rest, whole)
    for one, other in zip(weights_of(rest), weights_of(whole), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=5 * 100 * EPS * np.max(np.abs(other)))


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("kind", BASE)
@pytest.mark.parametrize("library", OTHERS)
def test_other_libraries_follow_numpy(name, kind, library, monkeypatch):
    """4 iterations of descent: 1e-12 leaves a factor of 5,000 over the rounding unit.

    The systems of Gauss-Newton, for which NumPy has a method of its own, are solved to 1e-11 here, and damped, as few samples
    do not determine a step without. The others: conjugate gradients end at 1e-10 of the right-hand side, or earlier, and 100
    for their conditioning. 2 iterations, as the third lifts components that have vanished, and these point where rounding
    errors do.
    """
    monkeypatch.setattr(sys.modules["dmf.solvers.gauss_newton"], "_ACCURACY", 1e-11)
    undamped = GaussNewton.init
    monkeypatch.setattr(GaussNewton, "init", lambda *arguments: replace(undamped(*arguments), damping=0.1))
    solver, tolerance, iterations = SOLVERS[name], *((1e-12, 4) if name in EXACT else (1e-8, 2))
    results = []
    for move in (LIBRARIES["numpy"], LIBRARIES[library]):
        observations = observe(kind, move=move)
        recovery = run(solver, observations, start(observations), iterations=iterations, record_every=2)
        assert all(w.device == observations.values.device for w in recovery.network.weights)
        results.append(recovery)
    losses = [recovery.history.loss for recovery in results]
    np.testing.assert_allclose(losses[1], losses[0], rtol=tolerance, atol=tolerance * losses[0][0])
    ours, theirs = (to_host(run.model.product()) for run in results)
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=tolerance * np.max(np.abs(ours)))


@pytest.mark.parametrize("kind", BASE)
def test_float32_stays_float32(solver, kind):
    observations = observe(kind, dtype=np.float32)
    recovery = run(solver, observations, start(observations), iterations=3)
    assert {w.dtype for w in recovery.network.weights} == {np.dtype(np.float32)}
    assert recovery.history.loss.dtype == np.float64
    assert_finite(recovery)


@pytest.mark.parametrize("kind", BASE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_long_run_ends_finite(solver, kind, dtype):
    """Noise on all kinds, few measurements, nearly as many components as columns: never NaN."""
    observations = observe(kind, dtype=dtype)
    recovery = run(solver, observations, start(observations), iterations=60, record_every=20)
    assert_finite(recovery)
    assert all(np.isfinite(recovery.history[name]).all() for name in recovery.history)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_constant_measurements_end_finite(solver, value):
    """Zeros are no division by zero."""
    observations = dmf.FullMatrix(np.full((6, 5), value))
    assert_finite(run(solver, observations, start(observations), iterations=30))


def test_a_start_at_zero_ends_finite(solver, observations):
    """Zero is a stationary point of the loss of a network."""
    network = dmf.DeepLinearNetwork([np.zeros((2, 5)), np.zeros((6, 2))])
    assert_finite(run(solver, observations, network, iterations=30))


def test_a_start_whose_loss_overflows_is_an_error(solver):
    observations = dmf.FullMatrix(np.full((3, 3), 1e200))
    with pytest.raises(dmf.errors.ArgumentError, match="Start from smaller weights, or scale the data down") as caught:
        run(solver, observations, start(observations), iterations=1)
    assert caught.value.argument == "network"


def test_a_start_of_another_shape_is_an_error(solver, observations):
    network = start(dmf.FullMatrix(np.ones((5, 6))))
    with pytest.raises(dmf.errors.ShapeError, match="the observations are of a") as caught:
        run(solver, observations, network, iterations=1)
    assert (caught.value.argument, caught.value.value, caught.value.limit) == ("network", (5, 6), (6, 5))


def test_a_start_of_another_dtype_is_an_error(solver, observations):
    network = start(observe("full", dtype=np.float32))
    with pytest.raises(dmf.errors.DTypeError, match="Convert one of them") as caught:
        run(solver, observations, network, iterations=1)
    assert (caught.value.argument, caught.value.value, caught.value.limit) == ("network", "float32", "float64")


def test_a_start_of_another_library_is_an_error(solver, observations):
    network = start(observe("full", move=on_device1))
    with pytest.raises(dmf.errors.BackendError, match="Convert them to one kind first") as caught:
        run(solver, observations, network, iterations=1)
    assert len(caught.value.value) == 2


@pytest.mark.parametrize(
    ("option", "value", "limit"),
    [
        ("iterations", -1, 0),
        ("iterations", 1.5, 0),
        ("iterations", True, 0),
        ("record_every", 0, 1),
        ("tolerance", -1e-9, 0),
        ("tolerance", float("nan"), 0),
        ("tolerance", "1", 0),
    ],
)
def test_options_out_of_range(solver, observations, option, value, limit):
    with pytest.raises(dmf.errors.ArgumentError, match=f"{option}=.* of at least {limit}") as caught:
        run(solver, observations, start(observations), **{"iterations": 1, option: value})
    assert (caught.value.argument, caught.value.limit) == (option, limit)
    assert caught.value.value is value


@pytest.mark.parametrize("value", [1, np.int64(1), 0.5, np.float32(0.5)])
def test_numbers_of_numpy_are_numbers(value):
    assert check_option("tolerance", value) == value


@pytest.mark.parametrize("unit", [4.0**-166, 4.0**149])
@pytest.mark.parametrize("name", [name for name, solver in SOLVERS.items() if hasattr(solver, "rescaled")])
def test_the_unit_of_the_data_changes_no_digit(name, unit):
    """From 1e-100 to 1e90; steps of descent and flow are in the user's unit, so that these are not among them."""
    solver, observations = SOLVERS[name], observe("full" if name == "Gauss-Newton" else "entries")
    begin = start(observations, depth=2)
    usual = run(solver, observations, begin, iterations=5)
    there = observations.with_values(unit * observations.values)
    far = run(solver.rescaled(1 / unit), there, scaled(begin, unit), iterations=5)
    np.testing.assert_array_equal(far.model.product() / unit, usual.model.product())
    np.testing.assert_array_equal(far.history.loss / unit**2, usual.history.loss)
    assert far.outcome is usual.outcome and far.solver == solver.rescaled(1 / unit)
    assert far.findings.get("noise", 0) / unit == usual.findings.get("noise", 0)
