"""When components are learned, which scale separates them, and the largest stable step."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import dmf
from dmf.theory import gradient_flow, learning_times, reduced_dynamics, separating_scale, stable_step_size

from helpers import examples
from theory_cases import alphas

values = st.floats(0.2, 3)


@examples(10)
@given(depth=st.integers(1, 5), alpha=alphas, scale=st.floats(0.1, 0.9), value=values, fraction=st.floats(0.1, 0.95))
def test_the_flow_reaches_the_fraction_at_the_time_given(depth, alpha, scale, value, fraction):
    """The integrated flow passes the fraction within 1e-6 of the time in closed form (alpha = 1) or by quadrature."""
    scale *= (fraction * value) ** (1 / depth)
    time = learning_times([value], depth, scale, outer_scale=alpha, fraction=fraction)[0]
    assert 0 < time < np.inf
    before, after = gradient_flow([value], depth, scale, [time * (1 - 1e-6), time * (1 + 1e-6)], alpha).values[:, 0]
    assert before < fraction * value < after


@examples(8)
@given(depth=st.integers(1, 4), alpha=alphas, value=values, scale=st.floats(0.1, 0.4))
def test_flow_times_approach_the_recursion_as_the_step_falls(depth, alpha, value, scale):
    """The exact count of iterations times eta tends to the flow's time at first order in eta."""
    errors, flow = [], learning_times([value], depth, scale, outer_scale=alpha)[0]
    for relative in (0.02, 0.005):
        step = relative * stable_step_size([value], depth, alpha)
        exact = step * learning_times([value], depth, scale, step, alpha, method="exact")[0]
        errors.append(abs(exact - flow) - step)  # counts are whole numbers
        assert exact == pytest.approx(flow, abs=40 * step)
    assert errors[1] <= 0.4 * max(errors[0], 0) + step


@examples(5)
@given(depth=st.integers(3, 5), alpha=alphas, value=values)
def test_asymptotic_times_approach_the_recursion_as_the_scale_falls(depth, alpha, value):
    """Against the exact recursion the relative error of t* falls like eps^{L-2}, by 2^{L-2} when eps is halved."""
    step, errors = 1e-3 * stable_step_size([value], depth, alpha), []
    top = {3: 0.05, 4: 0.1, 5: 0.12}[depth] * value ** (1 / depth)
    for scale in (top, top / 2):
        exact = learning_times([value], depth, scale, step, alpha, method="exact")[0]
        errors.append(learning_times([value], depth, scale, step, alpha, method="asymptotic")[0] / exact - 1)
    assert abs(errors[0]) < 0.2
    # The recursion is behind the flow by about (L - 1) / 2 ln(1 / eps) iterations, at this step a small part of the error.
    assert errors[0] / errors[1] == pytest.approx(2 ** (depth - 2), rel=0.3)


@examples(6)
@given(alpha=alphas, value=values)
def test_the_logarithm_of_two_layers(alpha, value):
    """L = 2: the error of ln(s / eps^2) / (2 alpha s) against the flow falls like eps^2."""
    errors = []
    for scale in (0.1, 0.05):
        scale *= value**0.5
        exact = learning_times([value], 2, scale, outer_scale=alpha)[0]
        errors.append(learning_times([value], 2, scale, outer_scale=alpha, method="asymptotic")[0] - exact)
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)


def test_the_numbers_of_the_notes():
    """L = 3, s = 1: half is reached at 9.15 for eps = 0.1 (t* = 10), at 99.15 for eps = 0.01 (t* = 100)."""
    for scale, half, leading in ((0.1, 9.15, 10), (0.01, 99.15, 100)):
        assert learning_times([1.0], 3, scale)[0] == pytest.approx(half, abs=0.01)
        assert learning_times([1.0], 3, scale, method="asymptotic")[0] == pytest.approx(leading)


@pytest.mark.parametrize("mutation", ["exponent L - 1", "exponent L - 3", "no alpha", "s squared"])
def test_a_wrong_formula_is_caught(mutation):
    """Changed formulas do not approach the recursion: at the smaller scale they are off by 10 % or more."""
    depth, alpha, value, step = 4, 2.0, 0.5, 0.01
    right, wrong = [], []
    for scale in (0.1, 0.05):
        exact = learning_times([value], depth, scale, step, alpha, method="exact")[0]
        time = learning_times([value], depth, scale, step, alpha, method="asymptotic")[0]
        right.append(abs(time / exact - 1))
        factor = {
            "exponent L - 1": 1 / scale,
            "exponent L - 3": scale,
            "no alpha": learning_times([value], depth, scale, step, method="asymptotic")[0] / time,
            "s squared": 1 / value,
        }[mutation]
        wrong.append(abs(factor * time / exact - 1))
    assert right[1] < 0.3 * right[0] < 0.01
    assert wrong[1] > 0.1


def test_times_that_are_not_positive_and_finite():
    """0 where the start is above, infinity for s = 0, and for a run that would be too long."""
    assert learning_times([1e-4, 0.0, 1.0], 3, 0.1)[:2].tolist() == [0, np.inf]
    assert learning_times([1e-4, 0.0], 3, 0.1, 0.1, method="exact").tolist() == [0, np.inf]
    assert learning_times([1.0], 4, 1e-3, 0.1, method="exact", limit=1000).tolist() == [np.inf]


@examples(6)
@given(
    depth=st.integers(2, 4),
    alpha=alphas,
    share=st.floats(0.2, 0.9),
    ratios=st.lists(st.floats(1.3, 3), min_size=1, max_size=3),
)
def test_the_scale_is_the_inverse_of_the_times(depth, alpha, share, ratios):
    """At the scale found the least factor between begun and finished is the one asked for; below it, larger."""
    spectrum = 1 / np.cumprod([1.0, *ratios])
    factor = 1 + share * 0.5 * (min(ratios) - 1)
    scale = separating_scale(spectrum[::-1], depth, factor, alpha)

    def least(eps):
        begun = learning_times(spectrum, depth, eps, outer_scale=alpha, fraction=0.1)
        finished = learning_times(spectrum, depth, eps, outer_scale=alpha, fraction=0.9)
        return np.min(begun[1:] / finished[:-1])

    assert least(scale) == pytest.approx(factor, rel=1e-6)
    assert least(scale / 2) > factor


def test_factors_out_of_reach_are_refused():
    with pytest.raises(
        dmf.errors.ArgumentError, match=r"differ by less than their ratio 2,.*Pass a smaller factor\."
    ) as caught:
        separating_scale([1.0, 0.5, 0.1], 3, 2.0)
    assert caught.value.limit == 2
    with pytest.raises(dmf.errors.ArgumentError, match="each value once"):
        separating_scale([1.0, 1.0], 3)
    with pytest.raises(dmf.errors.ArgumentError, match="1e-80"):
        separating_scale([1.0, 0.5], 2, 1.999)


@pytest.mark.parametrize(
    ("function", "arguments", "options", "name"),
    [
        (learning_times, ([1.0], 3, 0.0), {}, "scale"),
        (learning_times, ([1.0], 3, 0.1), {"fraction": 1.0}, "fraction"),
        (learning_times, ([1.0], 3, 0.1), {"method": "guess"}, "method"),
        (learning_times, ([np.nan], 3, 0.1), {}, "singular_values"),
        (separating_scale, ([1.0, 0.5], 1), {}, "depth"),
        (separating_scale, ([1.0], 3), {}, "singular_values"),
        (separating_scale, ([1.0, 0.5], 3), {"low": 0.9, "high": 0.1}, "low"),
        (stable_step_size, ([1.0], 3), {"weight_decay": -1.0}, "weight_decay"),
    ],
)
def test_bad_arguments_are_named(function, arguments, options, name):
    with pytest.raises(dmf.errors.ArgumentError) as caught:
        function(*arguments, **options)
    assert caught.value.argument == name


@examples(10)
@given(
    depth=st.integers(1, 5),
    alpha=alphas,
    decay=st.one_of(st.just(0.0), st.floats(0.001, 0.02)),
    value=values,
    scale=st.floats(0.4, 0.9),
)
def test_the_largest_stable_step_is_sharp(depth, alpha, decay, value, scale):
    """Near the solution a deviation shrinks at 0.99 of the step, and grows at 1.01 of it."""
    scale *= value ** (1 / depth)
    # With decay the layers are balanced in the end, so that the scale plays no part.
    limit = stable_step_size([value, value / 2], depth, alpha, decay, 0.0 if decay else scale)
    time = 20 / decay if decay else 400 / value
    end = gradient_flow([value], depth, scale, [time], alpha, decay).weights[-1, :, 0]
    assume(np.prod(end) > value / 2)  # not drawn to zero by the decay
    for factor, grows in ((0.99, False), (1.01, True)):
        run = reduced_dynamics([value], depth, end * (1 + 1e-6), factor * limit, alpha, decay, 400)
        off = np.abs(np.diff(run.values[:, 0]))
        assert (off[399] > off[199]) == grows


def test_stable_steps_in_closed_form():
    """``2 / (L s^{2 - 2/L})`` for alpha = 1, ``2 / (2 alpha s)`` for L = 2; the flattest solution is the balanced one."""
    for depth in range(2, 6):
        assert stable_step_size([0.3, 2.0], depth) == pytest.approx(2 / (depth * 2.0 ** (2 - 2 / depth)))
    assert stable_step_size([2.0], 2, 3.0) == pytest.approx(1 / 6)
    assert stable_step_size([1.0], 1, 1.0, 0.25) == pytest.approx(2 / 1.25)
    assert stable_step_size([1.0], 3, 3.0, scale=0.6) < stable_step_size([1.0], 3, 3.0)
    assert stable_step_size([1.0], 3, 3.0, 0.01, 0.6) < stable_step_size([1.0], 3, 3.0, 0.01)
