"""All experiments that need no data of others, one after the other, and one table of the published numbers beside ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dmf.experiments.catalogue import EXPERIMENTS, draw
from dmf.experiments.results import Claim, Progress
from dmf.io.writing import json_text, write_text
from dmf.solvers import Checkpoint

WITH_DATA = ("movielens", "fashion-mnist", "adaptation")
ALL = tuple(name for name in EXPERIMENTS if name not in WITH_DATA)


def reproduce_all(
    folder: Path,
    small: bool = False,
    seeds: Sequence[int] = (0,),
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    names: Sequence[str] = ALL,
) -> dict[str, Any]:
    """Run every experiment that needs no data; write the picture and the numbers of each as it ends.

    Parameters
    ----------
    folder : path
        For NAME.png and NAME.json, of the first seed, and all.json, with the claims of all seeds.
    small : bool
    seeds : sequence of int
        The table shows medians over them, and the smallest and largest number.
    progress : callable, optional
        Called with what runs, and a `Snapshot`.
    checkpoint : Checkpoint, optional
        Holds all runs, so that what is done is not done again.
    names : sequence of str
        Of the experiments.

    Returns
    -------
    dict
        "table" (rows), "titles" (of experiments, by name), "notes", and "seeds".
    """
    table, titles, notes = [], {}, {}
    for name in names:
        claims: list[list[Claim]] = []
        for seed in seeds:
            told = (
                None if progress is None else lambda label, snapshot, name=name: progress(f"{name}, {label}", snapshot)
            )
            result = EXPERIMENTS[name](small=small, seed=seed, progress=told, checkpoint=checkpoint)
            claims.append(result.claims)
            if seed == seeds[0]:
                draw(result, folder / f"{name}.png")
                write_text(folder / f"{name}.json", json_text(result.as_json()) + "\n")
                titles[name], notes[name] = result.title, result.note
        table += [_row(name, together) for together in zip(*claims, strict=True)]
    report = {"small": small, "seeds": list(seeds), "titles": titles, "notes": notes, "table": table}
    write_text(folder / "all.json", json_text(report) + "\n")
    return report


def _row(name: str, claims: Sequence[Claim]) -> dict[str, Any]:
    """One claim over all seeds: median, smallest and largest of those that reached it."""
    numbers = [claim.ours for claim in claims if math.isfinite(claim.ours)]
    claim = replace(claims[0], ours=float(np.median(numbers)) if numbers else math.nan)
    row = {"experiment": name} | claim.row()
    if len(claims) > 1:
        verdict = str(row.pop("verdict"))
        least, most = min(numbers, default=math.nan), max(numbers, default=math.nan)
        if verdict == "differs" and least <= claim.published <= most:
            verdict = "within the seeds' spread"
        if numbers and len(numbers) < len(claims):
            verdict += f", {len(numbers)} of {len(claims)} seeds reached it"
        row |= {"least": least, "most": most, "verdict": verdict}
    return row
