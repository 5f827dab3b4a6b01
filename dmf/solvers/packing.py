"""States of solvers as JSON and bytes, read back by the pattern of another state: no pickle, and nothing is taken on trust.

A state is made of tuples and dataclasses of arrays, numbers, outcomes and None, and all states of a run are made alike: that of
the start says of each part of another one what it is. Arrays keep the order of their numbers in memory, on which the last bits of
products depend.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import array_api_compat
import numpy as np

from dmf.arrays.backend import from_host, to_host
from dmf.solvers.outcomes import Outcome

_ARRAY, _SCALAR = "array", "number"  # in the JSON: the next of the arrays, or what it holds as a number of NumPy
_DTYPES = {np.dtype(name).str for name in "?bBhHiIlLqQefd"}


def split(state: Any) -> tuple[list[Any], list[np.ndarray]]:
    """What JSON holds of a state, and its arrays on the host."""
    items: list[Any] = []
    arrays: list[np.ndarray] = []
    for leaf in _leaves(state):
        if array_api_compat.is_array_api_obj(leaf) or isinstance(leaf, np.generic):
            items.append([_SCALAR if isinstance(leaf, np.generic) else _ARRAY])
            arrays.append(np.asarray(leaf) if isinstance(leaf, np.generic) else to_host(leaf))
        elif isinstance(leaf, Outcome):
            items.append(leaf.name)
        elif isinstance(leaf, float):
            items.append(leaf.hex())  # all bits, infinities too
        elif leaf is None or isinstance(leaf, int):
            items.append(leaf)
        else:
            raise TypeError(f"a state holds a {type(leaf).__name__}")
    return items, arrays


def joined(like: Any, items: Sequence[Any], arrays: Sequence[np.ndarray]) -> Any:
    """The state that `split` took apart, made like another one of the run; ValueError if it is not."""
    found, left = iter(items), iter(arrays)
    try:
        state = _rebuilt(like, found, left)
    except StopIteration:
        raise ValueError("a part of the state is missing") from None
    if [*found, *left]:
        raise ValueError("there is more than a state")
    return state


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for part in value:
            yield from _leaves(part)
    elif is_dataclass(value):
        for part in fields(value):
            yield from _leaves(getattr(value, part.name))
    else:
        yield value


def _rebuilt(like: Any, items: Iterator[Any], arrays: Iterator[np.ndarray]) -> Any:
    if isinstance(like, tuple):
        # Not a generator: it would hide the StopIteration that tells of a missing part.
        return tuple([_rebuilt(part, items, arrays) for part in like])
    if is_dataclass(like):
        new = object.__new__(type(like))
        for part in fields(like):
            object.__setattr__(new, part.name, _rebuilt(getattr(like, part.name), items, arrays))
        return new
    return _leaf(like, next(items), arrays)


def _leaf(like: Any, item: Any, arrays: Iterator[np.ndarray]) -> Any:
    if array_api_compat.is_array_api_obj(like) and item == [_ARRAY]:
        array, pattern = next(arrays), to_host(like)
        if array.shape != pattern.shape or array.dtype != pattern.dtype:
            raise ValueError(f"an array of shape {array.shape}, {array.dtype}, for {pattern.shape}, {pattern.dtype}")
        return from_host(array, like)
    if like is None or isinstance(like, Outcome):
        if item is not None and item not in Outcome.__members__:
            raise ValueError("an outcome has no name of one")
        return None if item is None else Outcome[item]
    if isinstance(like, bool) and isinstance(item, bool):
        return item
    if isinstance(like, (int, float, np.generic)) and not isinstance(item, bool):
        if item == [_SCALAR]:
            array = next(arrays)
            if array.shape == ():
                return array[()]
        elif isinstance(item, str):
            return float.fromhex(item)
        elif isinstance(item, int) and 0 <= item < 2**63:
            return item
    raise ValueError(f"a {type(like).__name__} is something else")


def to_bytes(arrays: Sequence[np.ndarray]) -> tuple[list[Any], np.ndarray]:
    """What JSON holds of arrays (dtype, shape, order in memory), and their numbers as bytes, one after the other."""
    layout, parts = [], [np.empty(0, np.uint8)]
    for array in arrays:
        packed = np.copy(array, order="K")
        order = "F" if packed.flags.f_contiguous and not packed.flags.c_contiguous else "C"
        layout.append([packed.dtype.str, list(packed.shape), order])
        parts.append(packed.reshape(-1, order=order).view(np.uint8))  # type: ignore[call-overload]
    return layout, np.concatenate(parts)


def from_bytes(layout: Any, content: np.ndarray) -> list[np.ndarray]:
    """The arrays that `to_bytes` packed; ValueError if they are none."""
    if not isinstance(layout, list) or content.dtype != np.uint8 or content.ndim != 1:
        raise ValueError("no bytes of arrays")
    arrays, first = [], 0
    for item in layout:
        name, shape, order = item
        if name not in _DTYPES or order not in ("C", "F") or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"an array of dtype {name!r} and shape {shape!r}")
        dtype = np.dtype(name)
        last = first + math.prod(shape) * dtype.itemsize
        if last > content.size:
            raise ValueError("an array is cut off")
        arrays.append(content[first:last].copy().view(dtype).reshape(shape, order=order))
        first = last
    if first != content.size:
        raise ValueError("there are more bytes than arrays")
    return arrays


def fingerprint(value: Any) -> str:
    """Of arrays and numbers in tuples and dataclasses, all their bits."""
    items, arrays = split(value)
    digest = hashlib.blake2b(repr(items).encode(), digest_size=16)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
