"""The pipeline behind `complete` and `sense`: which rank, exact or not, budgets, interruption, one history."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from low_rank_cases import low_rank_case

import dmf
from dmf.arrays.backend import to_host
from dmf.arrays.threads import thread_count
from dmf.solvers import Outcome
from dmf.solvers.gauss_newton import GaussNewton
from dmf.solvers.homotopy import VariationalBayes

from helpers import assert_finite, assert_same_weights, ctrl_c_at, examples, seeds, stages

EPS = np.finfo(float).eps
sizes = st.integers(20, 60)


def hard_case(seed=0):
    """Close to the information limit: variational Bayes, refinement and the continuation all have their turn."""
    return low_rank_case(seed, (40, 35), 2, oversampling=1.6)


def assert_exact(recovery, case):
    rank = case.left.shape[1]
    assert recovery.success
    assert recovery.message.startswith(f"rank {rank}, no noise")
    assert (recovery.found.rank, recovery.found.noise, recovery.found.exact) == (rank, 0.0, True)
    assert case.error(recovery) < 1e-10
    assert_finite(recovery)


@examples(5)
@given(
    seed=seeds,
    shape=st.tuples(sizes, sizes),
    rank=st.integers(1, 4),
    oversampling=st.floats(3, 6),
    logarithm=st.floats(0, 1),
    above=st.none() | st.integers(0, 6),
)
def test_an_exact_matrix_is_found_whatever_the_bound(seed, shape, rank, oversampling, logarithm, above):
    """Without a rank given (None), with the right one and with larger ones; condition up to 10.

    Gauss-Newton ends at rounding, some 1e-15; 1e-10 allows for 1e5 of conditioning of the least-squares problem.
    """
    case = low_rank_case(seed, shape, rank, oversampling, condition=10**logarithm)
    assert_exact(dmf.complete(case.observations, None if above is None else rank + above), case)


@examples(3)
@given(seed=seeds, rank=st.integers(1, 2), above=st.none() | st.integers(0, 3))
def test_an_exact_matrix_is_sensed_whatever_the_bound(seed, rank, above):
    """Gaussian measurements, 3.5 for each degree of freedom."""
    case = low_rank_case(seed, (20, 22), rank)
    count = round(3.5 * rank * (42 - rank))
    operator = np.random.default_rng(seed).standard_normal((count, 20, 22))
    values = np.tensordot(operator, case.matrix)
    assert_exact(dmf.sense(operator, values, None if above is None else rank + above), case)


@pytest.mark.parametrize("more", [1, 2])
@pytest.mark.parametrize("seed", range(2))
def test_components_too_many_are_taken_away(seed, more, monkeypatch):
    """Spikes at entries not seen fit all others exactly: where the rank is seen too large, it is corrected."""
    case, seen = low_rank_case(seed, (60, 50), 3, oversampling=4), VariationalBayes.findings
    monkeypatch.setattr(
        VariationalBayes, "findings", lambda self, state: seen(self, state) | {"rank": min(state.rank + more, 10)}
    )
    assert_exact(dmf.complete(case.observations, 10, offsets=False), case)


@pytest.mark.parametrize("seed", range(2))
def test_a_bound_below_the_rank_is_no_exact_recovery(seed):
    """What the bound leaves out looks like noise: at least the root mean square of the best approximation's residual.

    A fit has less residual on the entries that it saw; the level allows for its degrees of freedom. Half of it is safe.
    """
    case = low_rank_case(seed, (40, 35), 3, oversampling=4)
    recovery = dmf.complete(case.observations, rank=2, offsets=False)
    left_out = np.linalg.svd(case.matrix, compute_uv=False)[2] / np.sqrt(case.matrix.size)
    assert recovery.found.exact is False
    assert recovery.found.rank <= 2
    assert recovery.found.noise > 0.5 * left_out
    assert recovery.success
    assert "noise of standard deviation" in recovery.message


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("shape", [(60, 50), (35, 70)])
def test_noise_and_rank_of_noisy_data(shape, seed):
    """Noise within 10 %: with m measurements and f degrees of freedom its estimate has a deviation of 1/sqrt(2 (m - f)), 2.5 %,
    and the factorised posterior overestimates it by 2 or 3 %.
    """
    case = low_rank_case(seed, shape, 2, oversampling=5, noise=0.1)
    recovery = dmf.complete(case.observations, rank=4, offsets=False)
    assert recovery.success
    assert (recovery.found.rank, recovery.found.exact) == (2, False)
    assert recovery.found.noise == pytest.approx(0.1, rel=0.1)
    assert f"rank 2; noise of standard deviation {recovery.found.noise:.3g}." in recovery.message
    assert case.error(recovery) < 1.4 * case.oracle()


@pytest.mark.parametrize("answer", [lambda at: {"run": 1.0}, lambda at: {"s": np.zeros(1 + (at.stage == "refine"))}])
def test_measurements_that_do_not_fit_into_one_history_are_refused(answer):
    with pytest.raises(dmf.errors.ArgumentError, match="callback measured"):
        dmf.complete(hard_case().observations, offsets=False, callback=answer)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_unit_of_the_data_does_not_matter_or_is_refused(dtype):
    """Rank and relative noise are the same in any unit that can be computed with; beyond it is an error, not a zero matrix."""
    case = low_rank_case(0, (40, 30), 2, oversampling=5, noise=0.1)
    entries, most = case.observations, float(np.finfo(dtype).max) ** 0.4
    for unit in (1e-3 * most, 1.0, 1e3 / most):
        there = dmf.SampledEntries(entries.rows, entries.cols, (unit * entries.values).astype(dtype), entries.shape)
        found = dmf.complete(there, 4, offsets=False).found
        assert found.rank == 2
        assert found.noise / unit == pytest.approx(0.1, rel=0.15)
    for unit in (10 * most, 1e-3 / most):
        there = dmf.SampledEntries(entries.rows, entries.cols, (unit * entries.values).astype(dtype), entries.shape)
        with pytest.raises(dmf.errors.ObservationError, match="Take another unit"):
            dmf.complete(there)


@pytest.mark.parametrize(
    ("dtype", "scales"), [(np.float64, [1e-100, 1e-20, 1e20, 1e60, 1e200]), (np.float32, [1e-10, 1e-3, 1e3, 1e7])]
)
def test_the_unit_of_the_operator_does_not_matter_or_is_refused(dtype, scales, rng):
    """The measurements in the same unit, so that the matrix stays: it is found, or it is an error, not a zero matrix."""
    operator, matrix = rng.standard_normal((60, 6, 5)), np.outer(rng.standard_normal(6), rng.standard_normal(5))
    values, refused = np.tensordot(operator, matrix, 2), 0
    for scale in scales:
        with np.errstate(under="ignore"):
            arrays = (scale * operator).astype(dtype), (scale * values).astype(dtype)
        try:
            recovery = dmf.sense(*arrays)
        except dmf.errors.ObservationError as error:
            assert "by " in str(error) and "constant" in str(error)
            refused += 1
        else:
            assert np.linalg.norm(recovery.product() - matrix) <= 1e3 * np.finfo(dtype).eps * np.linalg.norm(matrix)
    assert refused == len(scales) - 2


def test_an_operator_that_is_zero_is_refused():
    for observations in (
        dmf.LinearMeasurements(np.zeros((30, 4, 3)), np.ones(30)),
        dmf.RankOneMeasurements(np.zeros((30, 4)), np.ones((30, 3)), np.ones(30)),
    ):
        with pytest.raises(dmf.errors.ObservationError, match="measures 0 of every matrix"):
            dmf.sense(observations)


def test_one_history_for_all_runs():
    """Iterations and seconds go on from run to run; what a callback measured in some of them is NaN in the others."""
    case = hard_case()
    seen = []

    def callback(snapshot):
        seen.append(snapshot.stage)
        return {"squared": [snapshot.loss, snapshot.loss**2]} if snapshot.stage == "refine" else None

    recovery = dmf.complete(case.observations, offsets=False, callback=callback)
    history, names = recovery.history, stages(recovery)
    assert {"noise", "refine", "continue"} <= set(names)
    assert len({len(history[name]) for name in history}) == 1
    runs = history["run"].astype(int)
    assert sorted(set(runs)) == list(range(len(names)))
    assert [names[run] for run in runs] == seen
    assert history.iteration[0] == 0
    assert history.iteration[-1] == recovery.nit
    np.testing.assert_array_equal(np.diff(history.iteration), np.diff(runs) == 0)  # a run begins where the last ended
    assert np.all(np.diff(history.seconds) >= 0)
    assert np.all(np.isin(np.diff(runs), [0, 1]))
    refining = np.array(seen) == "refine"
    np.testing.assert_array_equal(history["squared"][refining, 0], history.loss[refining])
    assert np.isnan(history["squared"][~refining]).all()
    assert history["squared"].shape == (len(seen), 2)


@pytest.mark.parametrize("make", [hard_case, lambda: low_rank_case(0, (60, 50), 2, noise=0.1)], ids=["scarce", "noisy"])
def test_budgets_are_exact_and_their_history_is_that_of_the_longer_run(make):
    """In the first run and in later ones, at its borders, too."""
    case = make()
    whole = dmf.complete(case.observations, offsets=False, iterations=60)
    assert whole.history.iteration[-1] > 20
    columns = ["iteration", "loss", "noise", "rank", "run"]
    borders = np.flatnonzero(np.diff(whole.history["run"])).tolist()[:2]
    for budget in {0, 1, 5, 20, *(int(whole.history.iteration[k]) for k in borders)}:
        part = dmf.complete(case.observations, offsets=False, iterations=budget)
        assert part.outcome is Outcome.BUDGET
        assert part.history.iteration[-1] == part.nit == budget
        assert_finite(part)
        for name in columns:
            np.testing.assert_array_equal(part.history[name], whole.history[name][: len(part.history[name])])


def test_a_budget_loses_no_exact_fit(rng):
    """It may end the trial whether fewer components are enough: they are not."""
    u, v = (np.linalg.qr(rng.standard_normal((n, 2)))[0] for n in (80, 60))
    matrix = (u * [100, 5]) @ v.T
    observations = dmf.SampledEntries.from_dense(np.where(rng.random(matrix.shape) < 0.5, matrix, np.nan))
    whole = dmf.complete(observations, offsets=False)
    exact, trial = whole.runs[-2:]
    assert whole.found.exact and exact.outcome is Outcome.EXACT and trial.outcome is not Outcome.EXACT
    border = np.flatnonzero(np.diff(whole.history["run"]))[-1]
    for budget in range(int(whole.history.iteration[border]), whole.nit + 1):
        part = dmf.complete(observations, offsets=False, iterations=budget)
        assert part.found.exact and part.success
        np.testing.assert_allclose(part.product(), matrix, atol=1e-10)


@pytest.mark.parametrize("stage", ["noise", "refine", "continue"])
@pytest.mark.parametrize(
    ("error", "outcome"),
    [(StopIteration("the plot is good enough"), Outcome.STOPPED), (KeyboardInterrupt, Outcome.INTERRUPTED)],
)
def test_a_callback_ends_the_whole(stage, error, outcome):
    """At its second call in a stage; it is not called again."""
    case = hard_case()
    calls = []

    def callback(snapshot):
        calls.append(snapshot.stage)
        if calls.count(stage) == 2:
            raise error

    recovery = dmf.complete(case.observations, offsets=False, callback=callback)
    assert recovery.outcome is outcome
    assert calls.count(stage) == 2
    assert calls[-1] == stage == stages(recovery)[-1]
    assert recovery.found.exact is False
    assert len(recovery.history.iteration) == len(calls)
    assert_finite(recovery)


@pytest.mark.parametrize(("solver", "call"), [(VariationalBayes, 1), (VariationalBayes, 3), (GaussNewton, 2)])
def test_ctrl_c_in_a_solver_ends_the_whole(solver, call, monkeypatch):
    case = low_rank_case(0, (40, 35), 2)
    made = ctrl_c_at(monkeypatch, call, solver)
    recovery = dmf.complete(case.observations)
    assert recovery.outcome is Outcome.INTERRUPTED
    assert "interrupted after iteration" in recovery.message
    assert len(made) == call
    assert_finite(recovery)


def test_ctrl_c_between_two_runs_leaves_what_the_first_one_found(monkeypatch):
    """As where it comes while kernels of the next solver are loaded."""
    case = low_rank_case(0, (40, 35), 2)

    def begins(self, *_):
        raise KeyboardInterrupt

    monkeypatch.setattr(GaussNewton, "init", begins)
    recovery = dmf.complete(case.observations, offsets=False)
    assert recovery.outcome is Outcome.INTERRUPTED and "interrupted" in recovery.message
    assert stages(recovery) and recovery.shape == (40, 35)
    assert_finite(recovery)
    monkeypatch.setattr(VariationalBayes, "init", begins)
    with pytest.raises(KeyboardInterrupt):
        dmf.complete(case.observations, offsets=False)


def test_one_seed_gives_one_result_at_any_number_of_threads():
    """Bit for bit; 20,000 samples at width 6 are work enough for the parallel kernels."""
    case = low_rank_case(0, (300, 250), 4, oversampling=20_000 / 2_184)
    found = []
    for count in (1, thread_count(), thread_count()):
        with dmf.threads(count):
            found.append(dmf.complete(case.observations, rank=6, offsets=False, seed=3))
    for other in found[1:]:
        assert_same_weights(found[0], other)
        for name in set(other.history) - {"seconds"}:
            np.testing.assert_array_equal(found[0].history[name], other.history[name])
        assert other.found == found[0].found


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_networks_are_balanced(depth, noise):
    """``W_{l+1}^T W_{l+1} = W_l W_l^T``, to 100 roundings of sums of at most 60 terms."""
    case = low_rank_case(2, (60, 50), 3, oversampling=4, condition=10, noise=noise)
    recovery = dmf.complete(case.observations, rank=5, offsets=False)
    network = recovery.model.network(depth)
    weights = [to_host(w) for w in network.weights]
    assert len(weights) == depth
    assert network.widths == (3,) * (depth - 1)
    for below, above in zip(weights, weights[1:], strict=False):
        gram = below @ below.T
        np.testing.assert_allclose(above.T @ above, gram, rtol=0, atol=100 * EPS * np.linalg.norm(gram, 2))


@examples(3)
@given(seed=seeds, rank=st.integers(1, 3))
def test_float32_is_exact_to_its_precision(seed, rank):
    """The error is that of a residual of the recovered size in the worst direction of the tangent space, and rounding.

    Measurements of root mean square 1 are rounded by eps, at most. The oracle's error sums the squares of all directions'
    sensitivities to noise of deviation 1; the worst residual of m measurements is at most sqrt(m) times as bad. The
    factor 2 is for curvature.
    """
    case = low_rank_case(seed, (50, 40), rank, oversampling=4)
    observations = dmf.SampledEntries(case.rows, case.cols, case.values.astype(np.float32), case.matrix.shape)
    recovery = dmf.complete(observations)
    assert recovery.product().dtype == np.float32
    assert (recovery.found.rank, recovery.found.exact) == (rank, True)
    residual, eps = np.sqrt(2 * recovery.history.loss[-1]), float(np.finfo(np.float32).eps)
    assert residual <= eps ** (2 / 3) * np.sqrt(np.mean(case.values**2))
    assert case.error(recovery) <= 2 * (residual + eps) * np.sqrt(len(case.rows)) * replace(case, noise=1.0).oracle()


@pytest.mark.parametrize("offsets", [False, True])
def test_noise_alone_is_a_matrix_of_zeros(offsets, rng):
    """A model of rank 0 predicts nothing but its offsets."""
    rows, cols = np.nonzero(rng.random((40, 30)) < 0.4)
    run = dmf.complete(dmf.SampledEntries(rows, cols, rng.standard_normal(rows.size), (40, 30)), offsets=offsets)
    assert run.found.rank == 0 and not run.model.s.any()


def test_zeros_are_fitted_exactly(rng):
    zeros = dmf.complete(dmf.SampledEntries([0, 1, 2], [1, 0, 1], np.zeros(3), (3, 2)))
    assert zeros.found.exact and zeros.found.noise == zeros.found.rank == 0
    assert zeros.message.startswith("rank 0, no noise") and not zeros.product().any()


@pytest.mark.parametrize("seed", [193, 205])
def test_a_fit_led_astray_is_not_taken_for_little_noise(seed):
    """Where the rank is given and no component is left for what a wider start would correct."""
    rng, n, rank = np.random.default_rng(seed), 120, 4
    matrix = np.linalg.multi_dot([rng.standard_normal(shape) for shape in ((n, rank), (rank, rank), (rank, n))])
    seen = np.zeros(n * n, bool)
    seen[rng.choice(n * n, round(2.2 * rank * (2 * n - rank)), replace=False)] = True
    recovery = dmf.complete(np.where(seen.reshape(n, n), matrix / matrix.std(), np.nan), rank, offsets=False)
    assert recovery.found.exact
    np.testing.assert_allclose(recovery.product(), matrix / matrix.std(), atol=1e-11)


@pytest.mark.parametrize("digits", [6, 9])
def test_numbers_that_were_written_with_few_digits_are_noisy(digits, rng):
    matrix = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 12))
    recovery = dmf.complete(np.where(rng.random(matrix.shape) < 0.8, np.round(matrix, digits), np.nan))
    assert recovery.found.rank == 2 and not recovery.found.exact
    assert recovery.found.noise == pytest.approx(10.0**-digits / np.sqrt(12), rel=0.15)
    np.testing.assert_allclose(recovery.product(), matrix, atol=20 * 10.0**-digits)


@pytest.mark.parametrize(("smallest", "holdout"), [(1e-9, 0.1), (1e-7, 0)])
def test_a_component_too_small_to_be_seen_wrecks_no_row(smallest, holdout):
    """It is noise to the others: no component enters that lives in a single row, and the error on held-out entries is honest."""
    rng = np.random.default_rng(1)
    u, v = (np.linalg.qr(rng.standard_normal((n, 4)))[0] for n in (100, 80))
    matrix = u * (100 * np.array([1, 0.5, 0.2, smallest])) @ v.T
    seen = rng.random(matrix.shape) < 0.3
    recovery = dmf.complete(np.where(seen, matrix, np.nan), holdout=holdout)
    errors = (recovery.product() - matrix)[~seen]
    assert recovery.found.rank == 3 and np.max(np.abs(errors)) < 100 * smallest
    assert recovery.found.noise == pytest.approx(np.sqrt(np.mean(errors**2)), rel=0.3)
    if holdout:
        assert recovery.heldout.rmse == pytest.approx(np.sqrt(np.mean(errors**2)), rel=0.5)


def test_a_second_fit_that_contradicts_the_first_is_not_taken(monkeypatch, rng):
    case = low_rank_case(0, (60, 50), 2, oversampling=4, noise=0.3)
    held_out = dmf.complete(case.observations, 2, offsets=False, holdout=0.1)
    assert held_out.success
    true_fit, calls = dmf.completion.calls.fit, []

    def wrecked(*arguments, **options):
        recovery = true_fit(*arguments, **options)
        calls.append(recovery)
        if len(calls) == 2:
            u = np.array(recovery.model.u)
            u[3] = 100
            return replace(recovery, model=replace(recovery.model, u=u))
        return recovery

    monkeypatch.setattr("dmf.completion.calls.fit", wrecked)
    kept = dmf.complete(case.observations, 2, offsets=False, holdout=0.1)
    assert len(calls) == 2 and kept.outcome is Outcome.DISAGREED and not kept.success
    np.testing.assert_array_equal(kept.product(), calls[0].product())
    assert kept.heldout.rmse == held_out.heldout.rmse and "contradicts" in kept.message
    assert len(kept.runs) == len(held_out.runs) and kept.filled().shape == (60, 50)


@pytest.mark.parametrize("rank", [1, 3])
def test_no_exact_fit_is_looked_for_at_length_where_noise_is_plain(rank):
    """Tall tables of noisy entries leave no room for an exact fit: one look, of twice the sweeps of the estimate at most."""
    rng = np.random.default_rng(rank)
    table = rng.standard_normal((1_500, rank)) @ rng.standard_normal((rank, 8)) + 0.5 * rng.standard_normal((1_500, 8))
    recovery = dmf.complete(np.where(rng.random(table.shape) < 0.3, np.nan, table))
    estimate = next(run for run in recovery.runs if run.stage == "noise")
    assert abs(recovery.found.noise - 0.5) < 0.05
    assert recovery.nit <= 3 * estimate.nit
