"""Ctrl-C while a kernel is loaded or compiled, or while C code calls back into Python, where exceptions are dropped."""

import ctypes
import signal
import threading

import pytest

import dmf
from dmf.arrays.interrupts import REQUESTS, remembered_interrupts
from dmf.solvers import Outcome
from dmf.solvers.alternating import AlternatingMinimization


def press():
    signal.raise_signal(signal.SIGINT)


def press_within_a_callback():
    ctypes.CFUNCTYPE(None)(press)()


def press_within_a_compiler():
    """By a function whose module calls itself one of Numba's."""
    namespace = {"__name__": "numba.core.codegen", "press": press}
    exec("def compile(): press()", namespace)
    namespace["compile"]()


@pytest.fixture(autouse=True)
def default_handler():
    """Python's own, whatever the process of the tests inherited."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("pressed", [press_within_a_callback, press_within_a_compiler])
def test_an_interrupt_that_does_not_come_through_ends_the_run(monkeypatch, rng, pressed):
    advance = AlternatingMinimization.advance

    def interrupted(self, observations, state, iterations):
        result = advance(self, observations, state, 1)
        pressed()
        return result

    monkeypatch.setattr(AlternatingMinimization, "advance", interrupted)
    rows, cols = zip(*[(row, col) for row in range(6) for col in range(5)], strict=True)
    entries = dmf.SampledEntries(rows, cols, rng.standard_normal(30), (6, 5))
    run = dmf.solvers.alternating_minimization(entries, 2, iterations=50)
    assert run.outcome is Outcome.INTERRUPTED and run.history.iteration[-1] == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_outside_a_compiler_and_the_second_time_it_acts_at_once():
    with remembered_interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            press()
        interrupts.pending = False
        press_within_a_compiler()
        with pytest.raises(KeyboardInterrupt):
            press_within_a_compiler()


def test_contexts_share_one_memory_and_leave_nothing_behind():
    with remembered_interrupts() as outer:
        press_within_a_compiler()
        with remembered_interrupts() as inner:
            assert inner is outer
            with pytest.raises(KeyboardInterrupt):
                inner.check()
    with remembered_interrupts() as later:
        later.check()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_held_it_waits_however_often_it_comes():
    done = []
    with remembered_interrupts(), pytest.raises(KeyboardInterrupt):
        with remembered_interrupts() as interrupts, interrupts.held():
            for _ in range(3):
                press()
                done.append(1)
        done.append(2)
    assert done == [1, 1, 1]
    with remembered_interrupts() as interrupts:
        press_within_a_compiler()
        with pytest.raises(KeyboardInterrupt), interrupts.held():
            done.append(3)
        assert done == [1, 1, 1, 3]
        interrupts.pending = False
        with interrupts.held():
            pass
        with pytest.raises(KeyboardInterrupt):
            press()


@pytest.mark.parametrize("number", REQUESTS)
def test_in_a_program_of_ours_all_requests_to_end_are_alike(number):
    with remembered_interrupts(whole_process=True) as interrupts:
        with remembered_interrupts() as inner, pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert inner is interrupts and interrupts.exit_code == 128 + number
    assert all(signal.getsignal(one) is handler for one, handler in REQUESTS.items())
    with remembered_interrupts():  # in a library, they keep the meaning that they have
        assert (signal.getsignal(number) is REQUESTS[number]) == (number != signal.SIGINT)


def test_handlers_of_others_and_other_threads_are_left_alone():
    mine = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with remembered_interrupts() as interrupts:
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        interrupts.check()
    signal.signal(signal.SIGINT, mine)

    seen = []

    def elsewhere():
        with remembered_interrupts() as interrupts:
            seen.append((interrupts.pending, signal.getsignal(signal.SIGINT)))

    with remembered_interrupts() as outer:
        outer.pending = True
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert seen == [(False, outer)]
