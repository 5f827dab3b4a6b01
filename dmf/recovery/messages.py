"""The one place where a recovery is put into words. Nothing reads them but people."""

from __future__ import annotations

from collections.abc import Sequence

from dmf.recovery.values import Found, StageRun
from dmf.solvers.outcomes import Outcome

_FEW = 2.0  # measurements for each degree of freedom, below which more of them would help most


def describe(found: Found, outcome: Outcome, runs: Sequence[StageRun]) -> str:
    """One or two sentences: what was found, or why the work ended before."""
    if outcome.broken_off:
        told = next((run.message for run in reversed(runs) if run.outcome is outcome), f"{outcome.value}.")
        return f"{outcome.name.lower()}: {told}"
    if found.exact:
        return _exact(found)
    if outcome is Outcome.UNDETERMINED:
        rows, cols = found.undetermined
        return (
            f"rank {found.rank} fits all entries to {found.relative_residual:.1g}, but {rows:,} rows and {cols:,} columns share "
            "no entry with the others: what lies between these blocks is not determined. Complete the blocks apart, or add "
            "entries that join them."
        )
    text = f"rank {found.rank}{' and offsets' if found.offsets else ''}"
    if outcome is Outcome.SOLVED:
        return f"{text}; relative error {found.relative_residual:.3g}."
    text += f"; noise of standard deviation {found.noise:.3g}."
    if outcome is Outcome.BUDGET:
        return f"{text} The iterations are used up: allow more."
    if not found.offsets and found.oversampling < _FEW:
        text += " The measurements are few for this rank, and no exact fit was found: more of them would help most."
    return text


def _exact(found: Found) -> str:
    if found.rank == 0:
        return "rank 0, no noise: all measurements are 0."
    text = (
        f"rank {found.rank}, no noise: the measurements are {found.oversampling:.2f} times the degrees of freedom, and are "
        f"fitted to {found.relative_residual:.1g}."
    )
    short = [f"{count:,} {kind}" for count, kind in zip(found.undetermined, ("rows", "columns"), strict=True) if count]
    if short:
        text += (
            f" Of {' and '.join(short)} fewer entries are seen than the rank: the others there are one of many fits."
        )
    return text
