"""Checkpoints: what is done of one or many runs, in a file from which a later process goes on to the same last bits.

A program that is started again with its checkpoint does what it did before, with one difference: a run that the file holds to
its end is not made again, and one that it holds half is continued. So nobody but the loop knows of checkpoints. Whatever decides
which run comes next, such as the strategy of `dmf.complete`, a pure function of the runs so far, decides the same again, and its
own state need not be written. The price is a file that holds the last state of every run.

What each run was asked for stands in the file, too, with a fingerprint of the data: with others it is refused.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from dmf.arrays.checks import check_kind, check_option, check_path
from dmf.arrays.linalg import gaussian
from dmf.arrays.threads import one_blas_thread
from dmf.errors import ArgumentError, FileError
from dmf.io.archive import read_archive, write_archive
from dmf.io.messages import printable
from dmf.io.writing import check_writable
from dmf.observations import Observations
from dmf.solvers.outcomes import Outcome
from dmf.solvers.packing import fingerprint, from_bytes, joined, split, to_bytes

FORMAT = "dmf-checkpoint"
FORMAT_VERSION = 1
_SECONDS = 60.0  # between two writes of a run
_ANEW = "Remove it, or name another one, and begin anew."
_MOST_NAMED, _LONGEST = 3, 80  # differences in a message, characters of each of its texts
_FINGERPRINTS = ("data", "start model")  # of which a message cannot say how they differ


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Parameters
    ----------
    state : Any
        Of the solver.
    iteration : int
    seconds : float
        Time spent in the solver.
    columns : mapping of str to arrays
        Of the history, up to here.
    wish : str or None
        What the callback said that ended the run.
    end : Outcome or None
        Why the run ended; None if it goes on.
    """

    state: Any
    iteration: int = 0
    seconds: float = 0.0
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    wish: str | None = None
    end: Outcome | None = None


@dataclass
class _Entry:
    """One thing that was asked for and, of a run, what the file holds of it."""

    asked: dict[str, str]
    record: dict[str, Any] | None = None
    content: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))


class Checkpoint:
    """A file in which one or many runs are kept as they go on; pass it as ``checkpoint=``.

    A run writes it every so often, at its end, and on Ctrl-C. Files are written whole or not at all, and the one before stays,
    with the suffix ``.previous``. A program that makes several runs, one after the other, may pass one checkpoint to all: started
    again with ``resume=True``, it must make the same calls in the same order.

    Parameters
    ----------
    path : path
    resume : bool
        Go on from what the file holds; where there is none, begin.
    seconds : float, >= 0
        Between two writes of a run.

    Attributes
    ----------
    path : Path

    Raises
    ------
    ArgumentError
        If there is such a file and `resume` is False.
    FileError
        If it cannot be read or written, or is no checkpoint.
    """

    def __init__(self, path: str | os.PathLike, resume: bool = False, seconds: float = _SECONDS) -> None:
        check_path(path)
        check_kind("resume", resume, bool, "Pass True to go on from the checkpoint.")
        self.path, self._seconds = Path(path), check_option("seconds", seconds)
        check_writable(self.path)
        self._previous = Path(f"{os.path.realpath(path)}.previous")
        self._entries: list[_Entry] = []
        found = [file for file in (self.path, self._previous) if file.exists()]
        if found and not resume:
            raise ArgumentError(
                f"the checkpoint {found[0]} exists, and would be overwritten. Pass resume=True (--resume) to go on from it, or "
                "remove it.",
                argument="checkpoint",
                value=str(found[0]),
            )
        if found:
            self._entries = _read(found)
        self._current, self._broken_off, self._written = -1, False, time.monotonic()

    @classmethod
    def opened(cls, checkpoint: Any, resume: bool) -> Checkpoint | None:
        """`checkpoint` itself, or that of a path; None stays.

        Raises
        ------
        ArgumentError
            If there is nothing to resume from, and what opening it raises.
        """
        if checkpoint is None and resume:
            raise ArgumentError(
                "resume=True without a checkpoint to go on from. Pass checkpoint=PATH (--checkpoint PATH).",
                argument="resume",
                value=True,
            )
        return checkpoint if checkpoint is None or isinstance(checkpoint, cls) else cls(checkpoint, resume)

    def expect(self, **asked: Any) -> None:
        """What comes next, by name.

        Raises
        ------
        ArgumentError
            If the file holds something else there.
        """
        if self._broken_off:
            return
        self._current += 1
        texts = {name: value if isinstance(value, str) else repr(value) for name, value in asked.items()}
        if self._current == len(self._entries):
            self._entries.append(_Entry(texts))
            return
        known = self._entries[self._current].asked
        if known != texts:
            raise self._another(texts, known)

    def _another(self, asked: Mapping[str, str], known: Mapping[str, str]) -> ArgumentError:
        differ = [name for name in {**known, **asked} if asked.get(name) != known.get(name)]
        how = [
            f"the {name} {'differ' if name == 'data' else 'differs'}"
            if name in _FINGERPRINTS
            else " ".join((_short(name), "is", f"{_short(asked.get(name))}, there", _short(known.get(name))))
            for name in differ[:_MOST_NAMED]
        ]
        return ArgumentError(
            f"the checkpoint {self.path} is of something else: {'; '.join(how)}. Pass the same data and options as when it was "
            "written, or another checkpoint.",
            argument="checkpoint",
            value={name: asked.get(name) for name in differ},
            limit={name: known.get(name) for name in differ},
        )

    def stored(self, like: Any, found: Collection[str]) -> Progress | None:
        """How far the run that is expected has come in the file; None: not at all.

        Parameters
        ----------
        like : Any
            Its state at the start.
        found : collection of str
            Columns that the solver adds to the history.

        Raises
        ------
        FileError
            If the file holds no such state.
        """
        entry = None if self._broken_off else self._entries[self._current]
        if entry is None or entry.record is None:
            return None
        with self._reading():
            return _progress(entry.record, entry.content, like, found)

    def array(self, compute: Callable[[], np.ndarray], **asked: Any) -> np.ndarray:
        """What `compute` returns, an array of numbers, or what it returned before: for work of many small runs.

        Parameters
        ----------
        compute : callable
        **asked
            As of `expect`.

        Raises
        ------
        ArgumentError, FileError
            If the file holds something else there, or cannot be written.
        """
        if self._broken_off:
            return compute()
        self.expect(**asked)
        entry = self._entries[self._current]
        if entry.record is None:
            found = compute()
            layout, content = to_bytes([found])
            entry.record, entry.content = {"arrays": layout}, content
            self._write()
            return found
        with self._reading():
            (array,) = from_bytes(entry.record["arrays"], entry.content)
            return array

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Errors in what the file holds as FileError."""
        try:
            yield
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise FileError(
                f"cannot read the checkpoint {self.path}: it holds no state of such a run ({error}). {_ANEW}"
            ) from error

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return not self._broken_off and time.monotonic() - self._written >= self._seconds

    def keep(self, progress: Progress, broken_off: bool = False) -> None:
        """Write how far the run that is expected has come.

        If it was `broken_off`, nothing that comes after it is kept: it would not come after the whole run.

        Raises
        ------
        FileError
            If the file cannot be written; the last one is then untouched.
        """
        if self._broken_off:
            return
        entry, self._broken_off = self._entries[self._current], broken_off
        entry.record, entry.content = _record(progress)
        self._write()

    def _write(self) -> None:
        header = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "dmf_version": version("dmf"),
            "entries": [{"asked": entry.asked, "record": entry.record} for entry in self._entries],
        }
        contents = {_member(k): entry.content for k, entry in enumerate(self._entries)}
        write_archive(self.path, header, contents, self._previous)
        self._written = time.monotonic()


CheckpointLike: TypeAlias = str | os.PathLike | Checkpoint


def _short(text: str | None) -> str:
    """A text that may come from the file, as a message shows it."""
    if text is None:
        return "not given"
    return printable(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}...")


def _member(place: int) -> str:
    return f"entry_{place}"


def _record(progress: Progress) -> tuple[dict[str, Any], np.ndarray]:
    items, arrays = split(progress.state)
    layout, content = to_bytes([*progress.columns.values(), *arrays])
    record = {
        "iteration": progress.iteration,
        "seconds": progress.seconds,
        "columns": list(progress.columns),
        "wish": progress.wish,
        "end": None if progress.end is None else progress.end.name,
        "state": items,
        "arrays": layout,
    }
    return record, content


def _progress(record: Mapping[str, Any], content: np.ndarray, like: Any, found: Collection[str]) -> Progress:
    names, arrays = record["columns"], from_bytes(record["arrays"], content)
    columns = dict(zip(names, arrays, strict=False))
    state = joined(like, record["state"], arrays[len(names) :])
    lengths = {column.shape[:1] for column in columns.values()}
    numbers = {columns[name].ndim for name in ("iteration", "loss", "seconds", *found)} if columns else {1}
    if len(columns) != len(names) or len(lengths) > 1 or numbers != {1}:
        raise ValueError("its history is damaged")
    iteration, seconds, wish, end = (record[name] for name in ("iteration", "seconds", "wish", "end"))
    whole = type(iteration) is int and 0 <= iteration < 2**63
    if not whole or type(seconds) is not float or not 0 <= seconds < math.inf:
        raise ValueError(f"{iteration!r} iterations in {seconds!r} seconds")
    if not isinstance(wish, (str, type(None))):
        raise ValueError("no reason why it ended")
    return Progress(state, iteration, seconds, columns, wish, None if end is None else Outcome[end])


def _read(files: list[Path]) -> list[_Entry]:
    """Entries of the first of the files that is whole."""
    try:
        header, arrays = read_archive(files[0], "checkpoint")
        return _entries(files[0], header, arrays)
    except FileError:
        if len(files) == 1:
            raise
        return _read(files[1:])


def _entries(path: Path, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> list[_Entry]:
    for name, value in (("format", FORMAT), ("format_version", FORMAT_VERSION), ("dmf_version", version("dmf"))):
        if header.get(name) != value:
            raise FileError(
                f"cannot read the checkpoint {path}: its {name} is {header.get(name)!r}, not {value!r}. {_ANEW}"
            )
    found = header.get("entries")
    entries = found if isinstance(found, list) else [None]
    if not all(_is_entry(entry) for entry in entries) or set(arrays) != set(map(_member, range(len(entries)))):
        raise FileError(f"cannot read the checkpoint {path}: its entries are damaged. {_ANEW}")
    return [_Entry(entry["asked"], entry["record"], arrays[_member(k)]) for k, entry in enumerate(entries)]


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("asked"), dict):
        return False
    texts = all(isinstance(text, str) for text in entry["asked"].values())
    return texts and "record" in entry and isinstance(entry["record"], (dict, type(None)))


def data_fingerprint(observations: Observations) -> str:
    """Fingerprint of data by what solvers see of it, so that any kind has one.

    The measurements enter on their own, since beside others their last digits, or all of them, would vanish.
    """
    (d1, d2), like = observations.shape, observations.like
    probe = gaussian((d1, 1), 0, like), gaussian((1, d2), 1, like)
    with one_blas_thread(), np.errstate(over="ignore", invalid="ignore"):  # the same bits with any number of threads
        seen = observations.evaluate(*probe), observations.adjoint(observations.values, *probe)
        known = [design.columns for design in getattr(observations, "known", ()) if design]
        times = getattr(observations, "times", None)
        return fingerprint((*seen, *known, *([] if times is None else [times])))
