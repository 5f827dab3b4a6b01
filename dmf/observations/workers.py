"""Calls to the workers of a Dask cluster: repeated where one is lost, given up where all are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from functools import partial
from typing import Any

from dmf.errors import BackendError

_TRIES = 4  # of a task, of which workers are lost
_PATIENCE = 60.0  # seconds, for a cluster that has no worker to get one


def scattered(client: Any, values: list[Any], workers: list[Any] | None = None) -> list[Any]:
    """Futures of values, which are shared out to some workers, or to all."""
    try:
        return client.scatter(values, workers=workers, direct=True, hash=False, timeout=_PATIENCE)
    except KeyError as error:  # the scheduler's, where it has just lost a worker
        raise CancelledError from error


def gathered(client: Any, submit: Callable[[], list[Any]], renew: Callable[[], None] = lambda: None) -> list[Any]:
    """Results of the futures that a call submits, which is repeated, after `renew`, where a worker is lost.

    Raises
    ------
    BackendError
        If workers are lost again and again, or all are gone.
    """
    for left in reversed(range(_TRIES)):
        futures: list[Any] = []
        try:
            futures = submit()
            return answered(client, futures, partial(client.gather, futures, direct=True))
        except lost() as error:
            _give_up(client, futures)
            _check_workers(client)
            if not left:
                raise BackendError(
                    f"workers of the cluster were lost in {_TRIES} tries of one task ({error!r}). They may have too little "
                    "memory for their blocks: start more of them, or give them more.",
                    argument="client",
                    value=_TRIES,
                ) from error
            renew()
    raise AssertionError


def answered(client: Any, futures: Any, call: Callable[[], Awaitable[Any]]) -> Any:
    """What an asynchronous call that waits for some futures returns.

    Dask would wait for ever for workers where all are gone, and for what was scattered to one that is.

    Raises
    ------
    TimeoutError, CancelledError
        If there is no worker, or a future is lost.
    """
    from distributed.client import futures_of

    async def watch() -> Any:
        answer = asyncio.ensure_future(call())
        try:
            while not (await asyncio.wait([answer], timeout=_PATIENCE))[0]:
                if any(future.status == "lost" for future in futures_of(futures)):
                    raise CancelledError
                await client.wait_for_workers(1, timeout=_PATIENCE)
            return await answer
        finally:
            answer.cancel()

    return client.sync(watch)


def finished(client: Any, futures: list[Any]) -> None:
    """Wait until some futures have their results, or errors; see `answered`."""
    from distributed import wait

    with client.as_current():  # `wait` asks the default client, which may be another one, or none
        answered(client, futures, partial(wait, futures))


def _give_up(client: Any, futures: list[Any]) -> None:
    """Cancel what is left of a try: tasks that killed a worker would be begun on the next one."""
    with contextlib.suppress(*lost()):
        client.cancel(futures, force=True)


def _check_workers(client: Any) -> None:
    try:
        client.wait_for_workers(1, timeout=_PATIENCE)
    except lost() as error:
        raise BackendError(
            f"the cluster has had no worker for {_PATIENCE:g} s: all were lost, and none came back. Start some with more memory, "
            "then go on from the checkpoint, if there is one.",
            argument="client",
            value=0,
            limit=1,
        ) from error


def lost() -> tuple[type[BaseException], ...]:
    """What Dask raises where the worker of a task, or what a task needs, is gone."""
    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    return CancelledError, KilledWorker, CommClosedError, TimeoutError


def versions() -> dict[str, str]:
    """Versions that have to be the same everywhere: objects are sent as pickles."""
    import sys
    from importlib.metadata import version

    return {"Python": "{}.{}".format(*sys.version_info), **{name: version(name) for name in ("numpy", "dmf")}}


def check_versions(client: Any) -> None:
    """Raise BackendError if a worker has other versions than this process, or not all of what is needed."""
    here = versions()
    for worker, there in client.run(versions, on_error="return").items():
        if there != here:
            raise BackendError(
                f"the worker {worker} has {there!r}, but the client {here}. Install the same versions of Python, NumPy and dmf "
                "on both.",
                argument="client",
                value=str(there),
                limit=str(here),
            )
