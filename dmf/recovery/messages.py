"""The one place where a recovery is put into words. Nothing reads them but people."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dmf.io.messages import listed
from dmf.models.drift import Drift
from dmf.recovery.values import Found, Outliers, StageRun, Weighting
from dmf.solvers.outcomes import Outcome

_CLICKS = ' Of clicks, plays or purchases feedback="implicit" (--feedback implicit) makes one.'
_HELPED_BELOW = 2.0  # measurements for each degree of freedom; with fewer, more of them would help most


def describe(
    found: Found,
    outcome: Outcome,
    runs: Sequence[StageRun],
    ids: Sequence[Sequence[str] | None],
    weighting: Weighting | None = None,
    outliers: Outliers | None = None,
    drift: Drift | None = None,
) -> str:
    """One or two sentences: what was found, or why the work ended before; `ids` are the names of rows and of columns."""
    if outliers is not None:
        count = f"{len(outliers):,}" if len(outliers) else "No"
        one = len(outliers) == 1
        told = f"{count} {'entry was' if one else 'entries were'} taken for {'an outlier' if one else 'outliers'}."
        return f"{describe(found, outcome, runs, ids, drift=drift)} {told}"
    if outcome.broken_off:
        told = next((run.message for run in reversed(runs) if run.outcome is outcome), f"{outcome.value}.")
        return f"{outcome.name.lower()}: {told}"
    if outcome is Outcome.DISAGREED:
        told = describe(found, Outcome.NOISE_SETTLED, runs, ids, drift=drift)
        return f"{told} This is the fit without the held-out entries: that to all entries contradicts it."
    if weighting is not None:
        return _implicit(found, weighting) + " The iterations are used up: allow more." * (outcome is Outcome.BUDGET)
    if found.exact:
        equal = f" All entries are the same number: they hold no ranking.{_CLICKS}" * found.constant
        return _exact(found) + equal + _without_entries(found, ids)
    if outcome is Outcome.UNDETERMINED:
        return _undetermined(found, ids)
    text = _model(found)
    if found.clipped is not None:
        text += f"; values clipped {_ends(found.clipped)}"
    if drift is not None:
        text += f"; {' and '.join(name for name, path in vars(drift).items() if path is not None)} drift with time"
    if outcome is Outcome.SOLVED:
        return f"{text}; relative error {found.relative_residual:.3g}."
    text += f"; noise of standard deviation {found.noise:.3g}.{_without_entries(found, ids)}"
    if outcome is Outcome.BUDGET:
        return f"{text} The iterations are used up: allow more."
    if not found.offsets and found.oversampling < _HELPED_BELOW:
        text += " The measurements are few for this rank, and no exact fit was found: more of them would help most."
    return text


def _implicit(found: Found, weighting: Weighting) -> str:
    power = {0.0: "", 1.0: " n"}.get(weighting.power, f" n^{weighting.power:g}")
    return (
        f"rank {found.rank} of implicit feedback: a count n weighs {weighting.confidence:.3g}{power} more than a cell never "
        f"chosen, penalty {weighting.ridge:.3g}, as held-out counts rank best."
    )


def _exact(found: Found) -> str:
    if found.rank == 0:
        told = "the offsets fit all measurements" if found.offsets else "all measurements are 0"
        return f"{_model(found)}, no noise: {told}."
    return (
        f"{_model(found)}, no noise: the measurements are {found.oversampling:.2f} times the degrees of freedom, and are fitted "
        f"to {found.relative_residual:.1g}."
    )


def _without_entries(found: Found, ids: Sequence[Sequence[str] | None]) -> str:
    if not any(found.undetermined):
        return ""
    return f" Nothing is known of {_open(found, ids)}, without any entry, which get what is expected of the others."


def _undetermined(found: Found, ids: Sequence[Sequence[str] | None]) -> str:
    text = (
        f"{_model(found)} fit{'s' * (not found.offsets)} all measurements to {found.relative_residual:.1g}, but they "
    )
    if found.symmetric:
        return f"{text}see the symmetric part of the matrix alone: this is that part."
    return f"{text}do not determine {_open(found, ids)}: other values there fit as well. More measurements there would help."


def _ends(clipped: tuple[float, float]) -> str:
    return " and ".join(f"at {end:g}" for end in clipped if math.isfinite(end))


def _model(found: Found) -> str:
    return f"rank {found.rank}{' and offsets' if found.offsets else ''}"


def _open(found: Found, ids: Sequence[Sequence[str] | None]) -> str:
    """The undetermined rows and columns, a few of them by name."""
    texts = []
    for index, names, kind in zip(found.undetermined, ids, ("row", "column"), strict=True):
        if index:
            few = listed([str(i) if names is None else names[i] for i in index])
            texts.append(f"{len(index):,} {kind}{'s' * (len(index) > 1)} ({', '.join(few)})")
    return " and ".join(texts)
