"""Checks of numbers that users pass: one place, one wording."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from dmf.errors import ArgumentError

REDUCTIONS = ("mean", "sum")


def check_option(
    argument: str, value: Any, least: float = 0, *, whole: bool = False, strictly: bool = False, hint: str = ""
) -> float | int:
    """`value` if it is a finite number (`whole`: an integer) of at least (`strictly`: above) `least`.

    Raises
    ------
    ArgumentError
        Otherwise; its message ends with `hint`.
    """
    kind = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    good = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if not good or value < least or (strictly and value == least):
        raise ArgumentError(
            f"{argument}={value!r}, but it is {'an integer' if whole else 'a finite number'} "
            f"{'above' if strictly else 'of at least'} {least}. {hint}".rstrip(),
            argument=argument,
            value=value,
            limit=least,
        )
    return int(value) if whole else float(value)


def check_bounds(bounds: Any) -> tuple[float, float] | None:
    """`bounds` as (low, high), either of which may be infinite; None stays.

    Raises
    ------
    ArgumentError
        If they are no two numbers, the first below the second.
    """
    if bounds is None:
        return None
    try:
        low, high = (float("nan") if isinstance(number, (bool, str)) else float(number) for number in bounds)
    except (TypeError, ValueError, OverflowError):
        low = high = math.nan
    if not low < high:
        raise ArgumentError(
            f"bounds={bounds!r}, but they are two numbers, the first below the second. Pass (low, high); an infinite one "
            "bounds nothing.",
            argument="bounds",
            value=bounds,
            limit="low < high",
        )
    return low, high


def check_kind(argument: str, value: Any, kind: type, hint: str) -> None:
    """Raise ArgumentError, which ends with `hint`, unless `value` is a `kind`."""
    if not isinstance(value, kind):
        raise ArgumentError(
            f"{argument} is a {type(value).__name__}, but a {kind.__name__} is needed. {hint}",
            argument=argument,
            value=type(value).__name__,
            limit=kind.__name__,
        )


def check_path(path: Any) -> None:
    """Raise ArgumentError unless `path` can name a file."""
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError(
            f"path={path!r}, but it is the name of a file. Pass a str or a pathlib.Path.",
            argument="path",
            value=path,
            limit="str or os.PathLike",
        )


def check_choice(argument: str, value: Any, choices: Iterable[str]) -> str:
    """`value` if it is one of the names in `choices`; ArgumentError otherwise."""
    known = tuple(choices)
    if not isinstance(value, str) or value not in known:
        raise ArgumentError(
            f"{argument}={value!r}, but it is one of {', '.join(known)}.",
            argument=argument,
            value=value,
            limit=known,
        )
    return value


def layer_factors(depth: int, outer_scale: float) -> np.ndarray:
    """alpha_l, shape (L,): `outer_scale` on W_1 and W_L, 1 between (Kwon et al. 2024, section 3)."""
    factors = np.ones(depth)
    factors[0] = factors[-1] = outer_scale
    return factors


def positive_integer(value: Any, argument: str) -> int:
    """`value` as a Python integer; ArgumentError unless it is a whole number of at least 1."""
    return int(check_option(argument, value, least=1, whole=True))


def random_generator(seed: Any) -> np.random.Generator:
    """Generator of random numbers on the host for a `seed`, an integer of at least 0; ArgumentError otherwise."""
    return np.random.default_rng(int(check_option("seed", seed, whole=True)))
