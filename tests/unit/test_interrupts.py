"""Ctrl-C that comes while C code calls back into Python, where exceptions are dropped."""

import ctypes
import signal
import sys
import threading

import pytest

import dmf
from dmf.interrupts import remembered_interrupts
from dmf.solvers.alternating import AlternatingMinimization


def press_within_a_callback():
    """Ctrl-C while a function called by C runs, as when Numba loads a kernel: no exception comes out of it."""

    @ctypes.CFUNCTYPE(None)
    def callback():
        signal.raise_signal(signal.SIGINT)

    callback()


@pytest.fixture(autouse=True)
def default_handler():
    """Python's own, whatever the process of the tests inherited."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_dropped_interrupt_ends_the_run(monkeypatch, rng, capfd):
    advance = AlternatingMinimization.advance

    def pressed(self, observations, state, iterations):
        result = advance(self, observations, state, 1)
        press_within_a_callback()
        return result

    monkeypatch.setattr(AlternatingMinimization, "advance", pressed)
    cells = [(row, col) for row in range(6) for col in range(5)]
    rows, cols = zip(*cells, strict=True)
    entries = dmf.SampledEntries(rows, cols, rng.standard_normal(30), (6, 5))
    run = dmf.alternating_minimization(entries, 2, iterations=50)
    assert run.status.reason == "interrupted" and run.history.iteration[-1] == 1
    assert capfd.readouterr().err == ""
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_contexts_share_one_memory_and_leave_nothing_behind():
    hook = sys.unraisablehook
    with remembered_interrupts() as outer:
        press_within_a_callback()
        with remembered_interrupts() as inner:
            assert inner is outer
            with pytest.raises(KeyboardInterrupt):
                inner.check()
    assert sys.unraisablehook is hook
    with remembered_interrupts() as later:
        later.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert later.pending


def test_other_dropped_exceptions_are_still_reported(monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)

    @ctypes.CFUNCTYPE(None)
    def callback():
        raise OSError("disk")

    with remembered_interrupts():
        callback()
    assert [type(each.exc_value) for each in reported] == [OSError]


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
