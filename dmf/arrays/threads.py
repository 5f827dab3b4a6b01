"""Threads: how many a call may use, and the pool on which kernels share out their work.

Nothing here outlives a call but idle threads. No setting of the process changes: limits belong to the thread that set them, and
NumPy's linear algebra gets back what it had when the last call that limits it ends.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from itertools import count as counter
from queue import SimpleQueue
from typing import Any

from dmf.errors import ArgumentError

_limit: ContextVar[int | None] = ContextVar("dmf_threads", default=None)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let the calls in this block use at most `count` threads, in dmf's kernels and in NumPy's linear algebra.

    The limit holds for calls made by this thread; NumPy's linear algebra, whose setting is one for the process, has it until
    the block ends. The numbers that dmf computes in its kernels do not depend on it.

    Parameters
    ----------
    count : int
        From 1 to the number of cores that this process may use.

    Returns
    -------
    context manager

    Raises
    ------
    ArgumentError
        For any other count.

    Examples
    --------
    >>> import dmf
    >>> with dmf.threads(1):
    ...     recovery = dmf.complete([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [3.0, 6.0, float("nan")]], rank=1)
    """
    most = _available()
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= most:
        raise ArgumentError(
            f"threads={count!r}, but this process may use 1 to {most}. Pass a number in this range.",
            argument="threads",
            value=count,
            limit=(1, most),
        )
    token = _limit.set(count)
    try:
        with blas_threads(count):
            yield
    finally:
        _limit.reset(token)


def thread_count() -> int:
    """Number of threads that kernels may use here: those of `threads`, or one for each core; 1 in a forked process."""
    if _state.forked:
        return 1
    limit = _limit.get()
    return _default() if limit is None else limit


@cache
def _available() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _default() -> int:
    """The cores, or fewer where the variables by which worker processes are limited say so."""
    counts = [_available()]
    for name in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS"):
        given = os.environ.get(name, "")
        if given.isdecimal() and int(given) > 0:
            counts.append(int(given))
    return min(counts)


def share_out(work: Callable[[int], None], chunks: int) -> None:
    """Call ``work(k)`` for every k below `chunks`, on this thread and on those of the pool that are idle.

    `work` has to spend its time without the interpreter's lock. Chunks are taken in order; which thread takes which is open.
    """
    helpers = min(thread_count(), chunks) - 1
    if helpers < 1:
        for k in range(chunks):
            work(k)
        return
    task = _Task(work, chunks)
    _state.pool.help(task, helpers)
    task.run()


class _Task:
    def __init__(self, work: Callable[[int], None], chunks: int) -> None:
        self._work, self._chunks = work, chunks
        self._next, self._reports = counter().__next__, SimpleQueue[Any]()

    def _take_chunks(self) -> int:
        """Work as long as there are chunks; returns how many were done."""
        done = 0
        while (k := self._next()) < self._chunks:
            self._work(k)
            done += 1
        return done

    def run(self) -> None:
        """What the caller does: take chunks, then wait for those that helpers have taken."""
        missing = self._chunks - self._take_chunks()
        while missing:
            report = self._reports.get()
            if isinstance(report, BaseException):
                raise report
            missing -= report

    def help(self) -> None:
        """What a thread of the pool does; nothing, where all chunks are taken."""
        try:
            done = self._take_chunks()
        except BaseException as error:  # raised where the caller waits
            self._reports.put(error)
        else:
            if done:
                self._reports.put(done)


class _Pool:
    """Threads that wait for tasks, started when they are first needed; they end with the process."""

    def __init__(self) -> None:
        self._tasks, self._lock, self._started = SimpleQueue[_Task](), threading.Lock(), 0

    def help(self, task: _Task, helpers: int) -> None:
        """Offer a task to so many threads."""
        if self._started < helpers:
            with self._lock:
                while self._started < helpers:
                    threading.Thread(target=self._serve, name="dmf", daemon=True).start()
                    self._started += 1
        for _ in range(helpers):
            self._tasks.put(task)

    def _serve(self) -> None:
        while True:
            self._tasks.get().help()


class _BlasLimits:
    """Limits on NumPy's linear algebra of all calls that run now, from any thread: the least one holds."""

    def __init__(self) -> None:
        self._lock, self._active, self._before = threading.Lock(), list[int](), list[int]()

    def enter(self, count: int) -> None:
        with self._lock:
            if not self._active:
                self._before = [library.num_threads for library in _blas_libraries()]
            self._active.append(count)
            self._apply()

    def leave(self, count: int) -> None:
        with self._lock:
            self._active.remove(count)
            self._apply()

    def _apply(self) -> None:
        for library, before in zip(_blas_libraries(), self._before, strict=True):
            wanted = min([*self._active, before]) if self._active else before
            if library.num_threads != wanted:
                library.set_num_threads(wanted)


class _State:
    """What a forked process has to make anew: threads do not survive a fork, and locks may be held for ever."""

    def __init__(self, forked: bool) -> None:
        self.forked, self.pool, self.blas = forked, _Pool(), _BlasLimits()


_state = _State(forked=False)


def _after_fork() -> None:
    global _state
    _state = _State(forked=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@cache
def _blas_libraries() -> list[Any]:
    import threadpoolctl

    return threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers


@contextmanager
def blas_threads(count: int) -> Iterator[None]:
    """NumPy's linear algebra on at most `count` threads."""
    limits = _state.blas
    limits.enter(count)
    try:
        yield
    finally:
        limits.leave(count)


def one_blas_thread() -> Any:
    """NumPy's linear algebra on one thread, for code whose threads are those of the kernels.

    After each product OpenBLAS's threads spin for a tenth of a second, on cores that the kernels' threads then lack.
    """
    return blas_threads(1)
