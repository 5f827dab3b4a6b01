"""Autoencoders whose encoder inverts their decoder exactly, at every step of training.

Layer l of the decoder is ``x = D s+(z) + b``, and that of the encoder ``z = s-(E (x - b))`` with ``E D = I``. The bends invert
each other, and both are smooth and increase:

    s+-(x) = (beta x +- sqrt(delta x^2 + 2 a)) / a,
    a = csc^2(pi/8) - sec^2(pi/8),   beta = csc^2(pi/8) + sec^2(pi/8),   delta = beta^2 - a^2.

``E = (F D)^-1 F`` with a free matrix F makes D and F parameters without a constraint: any optimiser keeps E D = I. So decoding
and then encoding changes nothing, ``decode(encode(x))`` is a nonlinear projection, and a reduced-order model adds no drift.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dmf.arrays.backend import Array, as_array, namespace
from dmf.arrays.checks import positive_integer
from dmf.arrays.linalg import dense_svd
from dmf.errors import ArgumentError, ShapeError
from dmf.nonlinear.layers import Dense, linear_backward, rebuilt
from dmf.nonlinear.samples import checked_inputs

_CSC, _SEC = 1 / math.sin(math.pi / 8) ** 2, 1 / math.cos(math.pi / 8) ** 2
_A, _BETA = _CSC - _SEC, _CSC + _SEC
_DELTA = _BETA**2 - _A**2


@dataclass(frozen=True, eq=False)
class BiorthogonalAutoencoder:
    """``decode(encode(x))`` as one layer of a `Network`; to be trained with the inputs as targets.

    Parameters
    ----------
    stages : iterable of triples of arrays (F, D, b), shapes (r, n), (n, r), (n,)
        From the data inwards: r of one is n of the next, r <= n, and F D invertible. One library, device and dtype.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, BackendError, ObservationError
        If a stage is no such triple, shapes do not chain, or a number is not finite.

    References
    ----------
    .. [1] Otto, Macchio, Rowley, Nonlinear Dynamics 2023 (arXiv 2307.15288), section 3.
    """

    stages: tuple[tuple[Array, Array, Array], ...]

    def __init__(self, stages: Iterable[Sequence[Array]]) -> None:
        checked: list[tuple[Array, Array, Array]] = []
        for stage in stages:
            if len(stage) != 3:
                raise ArgumentError(
                    f"a stage holds {len(stage)} arrays, but it is a triple (F, D, b).",
                    argument="stages",
                    value=len(stage),
                    limit=3,
                )
            decoder = Dense(stage[1], bias := as_array(stage[2], "b"))
            encoder = Dense(stage[0], bias[:1] * namespace(bias).zeros_like(decoder.weight[0, :]))
            (n, r), sizes = decoder.weight.shape, tuple(encoder.weight.shape)
            if r > n or sizes != (r, n) or (checked and checked[-1][1].shape[1] != n):
                raise ShapeError(
                    f"F has shape {sizes} and D {(n, r)}, but they are (r, n) and (n, r) with r <= n, and n is the r of the "
                    "stage before. Pass the stages from the data inwards.",
                    argument="stages",
                    value=(sizes, (n, r)),
                    limit=checked[-1][1].shape[1] if checked else n,
                )
            checked.append((encoder.weight, decoder.weight, decoder.bias))
        if not checked:
            raise ArgumentError("an autoencoder has at least one stage.", argument="stages", value=0, limit=1)
        object.__setattr__(self, "stages", tuple(checked))

    @property
    def sizes(self) -> tuple[int, int]:
        """(n, n) of the data."""
        n = self.stages[0][1].shape[0]
        return n, n

    @property
    def parameters(self) -> tuple[Array, ...]:
        """(F, D, b) of each stage, from the data inwards."""
        return tuple(array for stage in self.stages for array in stage)

    @property
    def rates(self) -> tuple[float, ...]:
        """All 1."""
        return (1.0,) * (3 * len(self.stages))

    def with_parameters(self, parameters: Sequence[Array]) -> BiorthogonalAutoencoder:
        """The autoencoder with other arrays of the same shapes, unchecked."""
        return rebuilt(self, stages=tuple(tuple(parameters[k : k + 3]) for k in range(0, len(parameters), 3)))

    def encode(self, inputs: Array) -> Array:
        """Coordinates, shape (m, r) with the innermost r, of samples in rows, shape (m, n)."""
        return self._encoded(self._checked(inputs, "inputs", 0))[0]

    def decode(self, coordinates: Array) -> Array:
        """Samples, shape (m, n), of coordinates in rows, shape (m, r)."""
        return self._decoded(self._checked(coordinates, "coordinates", 1))[0]

    def forward(self, inputs: Array) -> tuple[Array, Any]:
        """``decode(encode(inputs))``, and what `backward` needs."""
        coordinates, encoding = self._encoded(inputs)
        outputs, decoding = self._decoded(coordinates)
        return outputs, (encoding, decoding)

    def backward(self, cache: Any, gradient: Array, to_inputs: bool = True) -> tuple[Array | None, tuple[Array, ...]]:
        """Gradients with respect to the inputs (always computed), and to `parameters`."""
        xp, (encoding, decoding) = namespace(gradient), cache
        of_decoders: list[Array] = []
        of_biases: list[Array] = []
        for (_, decoder, _), (before, bent) in zip(self.stages, decoding, strict=True):
            of_biases.append(xp.sum(gradient, axis=0))
            inner, of_decoder = linear_backward(decoder, bent, gradient, True)
            of_decoders.append(of_decoder)
            gradient = inner * _slope(before, 1)
        found: list[Array] = []
        for k in range(len(self.stages) - 1, -1, -1):
            free, decoder, _ = self.stages[k]
            encoder, centred, before = encoding[k]
            inner, of_encoder = linear_backward(encoder, centred, gradient * _slope(before, -1), True)
            # Of E = S^-1 F with S = F D: dE = S^-1 (dF - dF D E - F dD E).
            along = of_encoder @ xp.matrix_transpose(encoder)  # (r, r)
            pulled = of_encoder - along @ xp.matrix_transpose(decoder)
            of_free = xp.linalg.solve(xp.matrix_transpose(free @ decoder), pulled)
            of_decoder = of_decoders[k] - xp.matrix_transpose(encoder) @ along
            found[:0] = [of_free, of_decoder, of_biases[k] - xp.sum(inner, axis=0)]
            gradient = inner
        return gradient if to_inputs else None, tuple(found)

    def merged(self) -> BiorthogonalAutoencoder:
        """The autoencoder itself."""
        return self

    def _encoded(self, x: Array) -> tuple[Array, list[tuple[Array, Array, Array]]]:
        xp = namespace(x)
        cache: list[tuple[Array, Array, Array]] = []
        for free, decoder, bias in self.stages:
            encoder = xp.linalg.solve(free @ decoder, free)
            centred = x - bias
            before = centred @ xp.matrix_transpose(encoder)
            x = _bent(before, -1)
            cache.append((encoder, centred, before))
        return x, cache

    def _decoded(self, x: Array) -> tuple[Array, list[tuple[Array, Array]]]:
        """Samples, and of each stage, from the data inwards, its coordinates before and after the bend."""
        xp = namespace(x)
        cache: list[tuple[Array, Array]] = []
        for _, decoder, bias in self.stages[::-1]:
            bent = _bent(x, 1)
            cache.insert(0, (x, bent))
            x = bent @ xp.matrix_transpose(decoder) + bias
        return x, cache

    def _checked(self, array: Array, argument: str, axis: int) -> Array:
        array = checked_inputs(array)
        size = self.stages[-axis][1].shape[axis]
        namespace(array, self.stages[0][1])
        if array.shape[1] != size:
            raise ShapeError(
                f"{argument} have shape {tuple(array.shape)}, but each row holds {size} numbers.",
                argument=argument,
                value=tuple(array.shape),
                limit=size,
            )
        return array


def biorthogonal_autoencoder(inputs: Array, sizes: Sequence[int]) -> BiorthogonalAutoencoder:
    """Start a `BiorthogonalAutoencoder` from principal components, stage by stage.

    Parameters
    ----------
    inputs : array, shape (m, n)
        Samples in rows, float32 or float64.
    sizes : sequence of int, descending
        Numbers of coordinates of each stage, from the data inwards: at most n, and at most m.

    Returns
    -------
    BiorthogonalAutoencoder
        In the library, dtype and device of the inputs.

    Raises
    ------
    ArgumentError, RankError, ShapeError, DTypeError, ObservationError
        If sizes grow or exceed what the inputs allow, or the inputs cannot be used.
    """
    inputs = checked_inputs(inputs)
    xp = namespace(inputs)
    sizes = [positive_integer(size, "sizes") for size in (sizes if isinstance(sizes, (tuple, list)) else [sizes])]
    stages: list[tuple[Array, Array, Array]] = []
    reached = [min(inputs.shape), *sizes]
    if not sizes or any(after > before for before, after in zip(reached, reached[1:], strict=False)):
        raise ArgumentError(
            f"sizes={sizes!r}, but they descend from at most {reached[0]}, the numbers of inputs and of samples.",
            argument="sizes",
            value=sizes,
            limit=reached[0],
        )
    for size in sizes:
        bias = xp.mean(inputs, axis=0)
        components = dense_svd(inputs - bias, size)[2]
        stages.append((components, xp.matrix_transpose(components), bias))
        inputs = _bent((inputs - bias) @ stages[-1][1], -1)
    return BiorthogonalAutoencoder(stages)


def _bent(x: Array, sign: int) -> Array:
    """``s+`` or ``s-``."""
    return (_BETA * x + sign * namespace(x).sqrt(_DELTA * x * x + 2 * _A)) / _A


def _slope(x: Array, sign: int) -> Array:
    return (_BETA + sign * _DELTA * x / namespace(x).sqrt(_DELTA * x * x + 2 * _A)) / _A
