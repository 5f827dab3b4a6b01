"""Small model files: factors rounded to a share of their posterior standard deviations, and entropy-coded.

Digits far below the posterior deviation of a number are noise, and cost as many bits as the others. So numbers are rounded to
steps proportional to it, and arithmetic coding spends on each what its distribution says: a chain of three levels, each coded
given the next. Whole numbers of steps (Gaussian, given their scale), the steps of rows (powers of two times those of columns of
the factor), and the scales of columns, which are stored as they are.

The header and the other arrays are compressed losslessly, but for the history, of which the end stays, and the held-out
quantiles, of which four digits stay.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmf.arrays.backend import namespace, to_host
from dmf.errors import ArgumentError, FileError, MissingPackageError
from dmf.models import LowRank
from dmf.observations import SampledEntries

COMPRESSED = "dmf-compressed-model"
_VERSION = 1
_SHARE = 0.25  # of the posterior deviation, in one step: rounding adds share^2 / 12 to each posterior variance
_LEAST_SCALE = 2.0**-6  # of whole numbers of steps: what is below it is 0 all the same
_MOST_STEPS = 2**20  # from 0: beyond, there is no room for tails in the 24 bits of the coder
_MOST_OCTAVES = 40  # of the steps of rows
_DIGITS = 4  # of held-out quantiles
_FACTORS = ("u", "s", "vt", "offsets_row", "offsets_col")


@dataclass(frozen=True, eq=False)
class _Side:
    """Rows, or columns: their factors and, in the last column, offsets; and posterior deviations of the same shape."""

    numbers: np.ndarray
    deviations: np.ndarray


def compressed(
    model: LowRank, observations: Any, noise: float, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
):
    """Header and arrays of a model file, made small; `expanded` undoes it, up to posterior deviations.

    Parameters
    ----------
    model : LowRank
    observations : SampledEntries
        What it was fitted to.
    noise : float
        Standard deviation.
    header : mapping
    arrays : mapping of str to NumPy arrays

    Raises
    ------
    ArgumentError
        If there is no posterior: the recovery holds no entries, or has no noise.
    MissingPackageError
        If constriction is not installed.
    """
    coding = entropy_coder()
    if not isinstance(observations, SampledEntries):
        raise ArgumentError(
            'precision="posterior", but the recovery holds no entries from which the posterior would follow (a loaded model has '
            "no data). Save it so right after complete, or leave precision out.",
            argument="precision",
            value="posterior",
        )
    if not noise > 0 or model.width == 0:
        raise ArgumentError(
            'precision="posterior", but the recovery has no noise, so that every digit counts. Leave precision out.',
            argument="precision",
            value="posterior",
            limit=noise,
        )
    streams, scales, checks = [], [], []
    for side in _sides(model, observations, noise):
        octaves, steps = _steps(side.deviations)
        step = steps * np.ldexp(1.0, octaves)[:, None]
        whole = np.rint(side.numbers / step)
        most = 2 ** math.ceil(
            math.log2(np.max(np.abs(whole)) + 1)
        )  # hardly more than needed: each takes a little of the rest
        if most > _MOST_STEPS:
            raise ArgumentError(
                f'precision="posterior", but numbers are up to {np.max(np.abs(whole)):.3g} steps of a quarter of their posterior '
                f"deviation large, and {_MOST_STEPS} are coded: the noise is too small for it. Leave precision out.",
                argument="precision",
                value="posterior",
                limit=_MOST_STEPS,
            )
        sizes = np.sqrt(np.mean(side.numbers**2, axis=0))
        whole, octaves = whole.astype(np.int32), octaves.astype(np.int32)
        coder, spread = coding.stack.AnsCoder(), _spread(octaves)
        numbers = np.ascontiguousarray(whole.ravel())
        coder.encode_reverse(numbers, _distribution(coding, most), np.zeros(numbers.size), _scale(sizes, step))
        coder.encode_reverse(octaves, _distribution(coding, _MOST_OCTAVES, *spread))
        streams.append(coder.get_compressed())
        scales.append(np.stack([steps, sizes]))
        checks.append([most, *spread, zlib.crc32(octaves.tobytes() + numbers.tobytes())])
    kept = {name: array for name, array in arrays.items() if name not in (*_FACTORS, "history_run")}
    kept |= {name: array[-1:] for name, array in kept.items() if name.startswith("history_")}
    inner = dict(header) | {"history": [name for name in header["history"] if name != "run"]}
    if inner["heldout"] is not None:
        quantiles = [float(f"{q:.{_DIGITS}g}") for q in inner["heldout"]["quantiles"]]
        inner["heldout"] = inner["heldout"] | {"quantiles": quantiles}
    outer = {
        "format": COMPRESSED,
        "format_version": _VERSION,
        "shape": list(model.shape),
        "width": model.width,
        "dtype": str(to_host(model.s).dtype),
        "sides": checks,
        "arrays": {name: [array.dtype.str, list(array.shape)] for name, array in kept.items()},
    }
    parts = {"stream_row": streams[0], "stream_col": streams[1], "scales": np.stack(scales)}
    content = json.dumps(inner, allow_nan=False).encode() + b"\0" + b"".join(a.tobytes() for a in kept.values())
    return outer, parts | {"content": np.frombuffer(zlib.compress(content, 9), np.uint8)}


def expanded(
    header: Mapping[str, Any], arrays: Mapping[str, np.ndarray], most: int, fail: Callable[[str], FileError]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of a model file from what `compressed` made of them.

    Parameters
    ----------
    header, arrays : mappings
        Not trusted.
    most : int
        Bytes that the content may take.
    fail : callable
        Makes the error of a reason.

    Raises
    ------
    FileError
        If they are not what `compressed` makes, or would take more memory.
    MissingPackageError
        If constriction is not installed.
    """
    if header.get("format_version") != _VERSION:
        raise fail(f"its format version is {header.get('format_version')!r}; this dmf reads {_VERSION}")
    coding = entropy_coder()
    try:
        (d1, d2), width, sides = header["shape"], header["width"], header["sides"]
        if not all(isinstance(n, int) and n > 0 for n in (d1, d2, width)) or header["dtype"] not in (
            "float32",
            "float64",
        ):
            raise ValueError("sizes or dtype")
        if 8 * (width + 1) * (d1 + d2) > most:
            raise ValueError(f"a {d1} x {d2} matrix of rank {width}, which would take more than {most} bytes")
        scales = arrays["scales"]
        if (
            scales.shape != (2, 2, width + 1)
            or scales.dtype != np.float64
            or not np.isfinite(scales).all()
            or (scales < 0).any()
        ):
            raise ValueError("scales")
        numbers = [
            _decoded(coding, arrays[f"stream_{name}"], size, scales[k], sides[k])
            for k, (name, size) in enumerate((("row", d1), ("col", d2)))
        ]
        inner, others = _unpacked(arrays["content"], header["arrays"], most)
    except (LookupError, TypeError, ValueError, OverflowError, zlib.error) as error:
        raise fail(f"it is damaged ({error})") from error
    left, right = (side[:, :-1].astype(header["dtype"]) for side in numbers)
    model = LowRank.of_factors(left, np.ascontiguousarray(right.T))
    found = {name: getattr(model, name) for name in ("u", "s", "vt")} | others
    if inner.get("mean") is not None:
        found |= {
            f"offsets_{name}": n[:, -1].astype(header["dtype"]) for name, n in zip(("row", "col"), numbers, strict=True)
        }
    return inner, found


def entropy_coder() -> Any:
    try:
        from constriction import stream
    except ImportError as error:
        raise MissingPackageError(
            "small model files need the package constriction. Run: pip install 'dmf[codec]', or leave precision out."
        ) from error
    return stream


def _sides(model: LowRank, observations: SampledEntries, noise: float) -> list[_Side]:
    """Rows and columns with the posterior deviation of each number, given the other side."""
    left, right = model.halves()
    xp = namespace(left)
    factors = [left, xp.matrix_transpose(right)]
    offsets = [xp.zeros_like(f[:, 0]) for f in factors]
    if model.offsets is not None:
        offsets = [model.offsets.row, model.offsets.col]
    sides = []
    for side in (0, 1):
        mine = to_host(xp.concat([factors[side], offsets[side][:, None]], axis=1)).astype(np.float64)
        other = xp.concat([factors[1 - side], xp.ones_like(offsets[1 - side])[:, None]], axis=1)
        least = np.finfo(np.float32).eps * np.max(np.mean(mine**2, axis=0))
        penalty = noise**2 / np.maximum(np.mean(mine**2, axis=0), least)
        like = xp.asarray(penalty, dtype=other.dtype)
        variances = observations.ridge(side, other, like, 0 * other).variances
        sides.append(_Side(mine, noise * np.sqrt(to_host(variances).astype(np.float64))))
    return sides


def _steps(deviations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Octaves of rows and steps of columns, whose product is about the share of a deviation that makes a step."""
    logs = np.log2(np.maximum(deviations, np.finfo(float).tiny))
    of_columns = np.mean(logs, axis=0)
    octaves = np.clip(np.rint(np.mean(logs - of_columns, axis=1)), -_MOST_OCTAVES, _MOST_OCTAVES).astype(int)
    return octaves, _SHARE * 2**of_columns


def _spread(octaves: np.ndarray) -> tuple[float, float]:
    """Mean and deviation of the octaves, as they are coded."""
    return float(np.mean(octaves)), max(float(np.std(octaves)), 0.1)


def _scale(sizes: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Deviations of whole numbers of steps, one after another; by divisions alone, which all machines round alike."""
    return np.maximum(sizes / step, _LEAST_SCALE).ravel()


def _distribution(coding: Any, most: int, *parameters: float) -> Any:
    return coding.model.QuantizedGaussian(-most, most, *parameters)


def _decoded(coding: Any, stream: np.ndarray, size: int, scales: np.ndarray, check: list[Any]) -> np.ndarray:
    """The numbers (size, w) of one side."""
    most, mean, deviation, total = check
    if not isinstance(most, int) or not 1 <= most <= _MOST_STEPS:
        raise ValueError("range")
    if stream.dtype != np.uint32 or stream.ndim != 1 or not (math.isfinite(mean) and 0 < deviation < _MOST_OCTAVES):
        raise ValueError("stream")
    steps, sizes = scales
    if not (steps > 0).all():
        raise ValueError("steps")
    coder = coding.stack.AnsCoder(stream)
    octaves = coder.decode(_distribution(coding, _MOST_OCTAVES, mean, deviation), size)
    step = steps * np.ldexp(1.0, octaves)[:, None]
    scale = _scale(sizes, step)
    whole = coder.decode(_distribution(coding, most), np.zeros(scale.size), scale)
    if zlib.crc32(octaves.tobytes() + whole.tobytes()) != total:
        raise ValueError("its numbers do not have the sum that was written")
    return whole.reshape(step.shape) * step


def _unpacked(content: np.ndarray, known: Mapping[str, Any], most: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the other arrays."""
    unzip = zlib.decompressobj()
    data = unzip.decompress(content.astype(np.uint8).tobytes(), most)
    if not unzip.eof:
        raise ValueError("its content was cut off, or is too large")
    text, _, rest = data.partition(b"\0")
    inner, arrays = json.loads(text), {}
    if not isinstance(inner, dict):
        raise ValueError("its header is no object")
    for name, (dtype, shape) in known.items():
        if np.dtype(dtype).hasobject or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError(f"the array {name!r}")
        count = np.dtype(dtype).itemsize * math.prod(shape)
        if count > len(rest):
            raise ValueError(f"the array {name!r} is cut off")
        arrays[name] = np.frombuffer(rest[:count], dtype).reshape(shape)
        rest = rest[count:]
    return inner, arrays
