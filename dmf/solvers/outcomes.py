"""Why a run ended."""

from __future__ import annotations

from enum import Enum
from typing import Protocol, TypeVar


class Outcome(Enum):
    """Why a run ended; the value says it in words.

    Programs compare members, people read `Run.message` or `Recovery.message`.
    """

    NOISE_SETTLED = "the noise level settled"
    SETTLED = "further sweeps hardly change the fit"
    NO_NOISE = "no noise was seen down to the level asked for"
    PATH_END = "the noise level came down to the end of the path"
    EXACT = "the residual is down to rounding"
    SOLVED = "solved directly"
    TRIVIAL = "all measurements are equal, so that nothing is left to fit"
    STATIONARY = "no step lowers the residual further"
    TOLERANCE = "the loss is at or below the tolerance"
    UNDETERMINED = "the measurements are fitted to rounding, but do not determine the whole matrix"
    DISAGREED = "the fit to all entries contradicts the one without the held-out entries, which is kept"
    CONTRADICTED = "the residual contradicts a noise level as low as this"
    OVERFITTED = "more components would be needed than the measurements determine"
    NOISIER = "the noise level rises above that of a fit with fewer components"
    UNPROMISING = "the loss falls too slowly for the right rank"
    RUNAWAY = "the matrix has grown far beyond what was measured, and no step lowers the residual further"
    BUDGET = "the iterations are used up"
    DIVERGED = "the loss was no longer finite"
    STOPPED = "a callback asked for it"
    INTERRUPTED = "interrupted"

    @property
    def success(self) -> bool:
        """Whether the solver did what it is there for."""
        return self in _SUCCESSES

    @property
    def broken_off(self) -> bool:
        """Whether divergence, a callback or a signal ended the run before its time."""
        return self in (Outcome.DIVERGED, Outcome.STOPPED, Outcome.INTERRUPTED)


_SUCCESSES = frozenset(
    {
        Outcome.NOISE_SETTLED,
        Outcome.SETTLED,
        Outcome.NO_NOISE,
        Outcome.PATH_END,
        Outcome.EXACT,
        Outcome.SOLVED,
        Outcome.TRIVIAL,
        Outcome.STATIONARY,
        Outcome.TOLERANCE,
    }
)


class _Ended(Protocol):
    @property
    def outcome(self) -> Outcome: ...


_E = TypeVar("_E", bound=_Ended)


def uninterrupted(ended: _E) -> _E:
    """A run or a recovery that is one of several. Ctrl-C in it is meant for the whole, and is raised anew."""
    if ended.outcome is Outcome.INTERRUPTED:
        raise KeyboardInterrupt
    return ended
