"""Training steps of a chain of linear maps and activations without the host: recorded as a CUDA graph and replayed.

A step of a small network takes less time than the host needs to launch its kernels: from array code, more than a hundred. Here
they are some twenty, and a graph launches them in one go. Products have a kernel of their own, as CuPy records none of cuBLAS.
The graph works in place, on buffers that this object keeps; steps are counted on the device, so that one graph serves all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, cupy_module, to_host
from dmf.kernels import cuda
from dmf.kernels.passes import contiguous

ACTIVATIONS = {"": 0, "relu": 1, "tanh": 2, "gelu": 3}
_TILE = 32  # of a product, as in network.cu


@dataclass(frozen=True)
class Linear:
    """A linear map of a chain: places of weight (d_out, d_in) and bias among the parameters, and the activation that follows."""

    weight: int
    bias: int | None = None
    activation: str = ""


@dataclass(frozen=True)
class Rule:
    """A kernel that moves the weights: its name, "adam" or "descend", how many arrays it remembers, and its options."""

    kernel: str
    moments: int
    options: tuple[float, ...]
    betas: tuple[float, float] = (0.0, 0.0)


class NetworkSteps:
    """Chunk of training steps; see `dmf.nonlinear.training`, whose loop it follows.

    Parameters
    ----------
    chain : sequence of Linear
        From input to output; the last without activation.
    shapes : sequence of tuples
        Of the parameters.
    rates : sequence of float
        Of each parameter, its step over that of the rule.
    inputs : array, shape (n, d)
    targets : array, shape (n,) or (n, k)
        Labels, or numbers for the squared loss.
    size : int
        Samples in a batch.
    loss : {"cross-entropy", "squared"}
    rule : Rule
    decay : float
        Of running averages; 0 without them.
    """

    def __init__(
        self,
        chain: Sequence[Linear],
        shapes: Sequence[tuple[int, ...]],
        rates: Sequence[float],
        inputs: Array,
        targets: Array,
        size: int,
        loss: str,
        rule: Rule,
        decay: float,
    ) -> None:
        cupy, dtype, self._total = cupy_module(), inputs.dtype, inputs.shape[0]
        self._chain, self._shapes, self._size, self._rule, self._decay = chain, shapes, size, rule, decay
        self._loss = {"cross-entropy": "cross_entropy", "squared": "squared"}[loss]
        ends = np.cumsum([math.prod(shape) for shape in shapes])
        self._kinds = 2 + rule.moments + bool(decay)  # weights, gradients, moments, averages
        widths = [shapes[linear.weight][0] for linear in chain]
        numbers = self._kinds * int(ends[-1]) + size * (3 * sum(widths) + 2 * inputs.shape[1] + 2 * widths[-1])
        cuda.check_memory(numbers * dtype.itemsize, f"training on batches of {size:,} samples", inputs)
        self._module = cuda.compiled("network.cu", dtype)
        self._ends, self._rates = cupy.asarray(ends), cupy.asarray(np.asarray(rates, np.float64))
        self._data = contiguous(inputs), contiguous(targets, dtype)
        self._order, self._epoch = cupy.zeros(self._total, cupy.int32), -1
        self._progress, self._divisors = cupy.zeros(5, cupy.float64), cupy.zeros(3, cupy.float64)
        self._block = cupy.zeros((self._kinds, int(ends[-1])), dtype)
        whole = size == self._total
        self._inputs = self._data[0] if whole else cupy.empty((size, inputs.shape[1]), dtype)
        self._targets = self._data[1] if whole else cupy.empty((size, *targets.shape[1:]), dtype)
        self._outputs = [cupy.empty((size, width), dtype) for width in widths]
        self._kept = [  # what the derivative of an activation is computed from
            cupy.empty(out.shape, dtype) if linear.activation == "gelu" else out
            for linear, out in zip(chain, self._outputs, strict=True)
        ]
        self._gradients = [cupy.empty((size, width), dtype) for width in widths]
        self._losses = cupy.empty(size, cupy.float64)
        self._step()  # loads the kernels, which a recording must not do; all that it changed is overwritten
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            stream.begin_capture()
            self._step()
            self._graph = stream.end_capture()

    def pack(self, groups: Sequence[Sequence[Array]]) -> Array:
        """One array (kinds, numbers) of weights, gradients, moments and averages, each with an array for every parameter."""
        arrays = [array for group in groups for array in group]
        block = cupy_module().empty(self._block.shape, self._block.dtype)
        for view, array in zip((v for k in range(self._kinds) for v in self._views(block[k])), arrays, strict=True):
            view[...] = array
        return block

    def weights(self, block: Array) -> tuple[Array, ...]:
        """Views of the weights in a packed array."""
        return tuple(self._views(block[0]))

    def averages(self, block: Array) -> tuple[Array, ...]:
        """Views of the averages in a packed array; none without a decay."""
        return tuple(self._views(block[-1])) if self._decay else ()

    def gradients_and_moments(self, block: Array) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Views of the gradients and of the moments in a packed array."""
        moments = (view for k in range(self._rule.moments) for view in self._views(block[2 + k]))
        return tuple(self._views(block[1])), tuple(moments)

    def _views(self, flat: Array) -> list[Array]:
        begins = np.cumsum([0, *(math.prod(s) for s in self._shapes)]).tolist()
        return [flat[b:e].reshape(s) for b, e, s in zip(begins, begins[1:], self._shapes, strict=False)]

    def __call__(
        self, block: Array, count: int, loss: float, iterations: int, order: Callable[[int], np.ndarray]
    ) -> tuple[Array, float, int, bool]:
        """(packed arrays, loss, steps with a finite loss, whether all weights are finite) after `iterations` steps.

        `count` steps were taken before; ``order(epoch)`` is the order of the samples in an epoch. One read by the host. Where a
        loss is not finite, the arrays are those of no step in particular.
        """
        cupy, per_epoch = cupy_module(), -(-self._total // self._size)
        self._block[...] = block
        self._progress[...] = cupy.asarray(np.array([count, loss, 0.0, 0.0, 0.0]))
        left = iterations
        while left:
            epoch, place = divmod(count + iterations - left + 1, per_epoch)
            if epoch != self._epoch and self._size < self._total:
                self._order[...] = cupy.asarray(order(epoch).astype(np.int32))
                self._epoch = epoch
            steps = min(left, per_epoch - place)
            for _ in range(steps):
                self._graph.launch(cupy.cuda.get_current_stream())
            left -= steps
        numbers = self._block.shape[1]
        self._launch("watch", cuda.blocks_for(numbers), np.int64(numbers), self._block[0], self._progress)
        found = self._block.copy()  # the next call works on the buffer
        _, loss, taken, _, wild = to_host(self._progress).tolist()
        return found, loss, int(taken), not wild

    def _step(self) -> None:
        """One step; nothing is allocated."""
        block, rule, numbers = self._block, self._rule, self._block.shape[1]
        weights, gradients = self._views(block[0]), self._views(block[1])
        averages = block[-1] if self._decay else None
        self._launch(
            "begin", 1, self._progress, self._divisors, *map(np.float64, (*rule.betas, self._decay)), threads=1
        )
        remembered = [block[2 + k] for k in range(rule.moments)] or [None]
        self._launch(
            rule.kernel, cuda.blocks_for(numbers), np.int64(numbers), self._ends, self._rates, self._divisors,
            block[0], block[1], *remembered, averages, *map(np.float64, rule.options),
        )  # fmt: skip
        batch = self._progress, np.int64(self._size), np.int64(self._total)
        if self._size < self._total:
            for every, out in zip(self._data, (self._inputs, self._targets), strict=True):
                width = np.int64(math.prod(every.shape[1:]))
                self._launch("take", cuda.blocks_for(out.size), *batch, width, self._order, every, out)
        below = self._inputs
        for linear, out, kept in zip(self._chain, self._outputs, self._kept, strict=True):
            bias = None if linear.bias is None else weights[linear.bias]
            self._product(below, weights[linear.weight].T, out, bias, kept, linear.activation, backward=False)
            below = out
        classes = np.int64(below.shape[1])
        blocks = cuda.blocks_for(self._size, cuda.BLOCK // 32 if self._loss == "cross_entropy" else cuda.BLOCK)
        self._launch(self._loss, blocks, *batch, classes, below, self._targets, self._gradients[-1], self._losses)
        self._launch("settle", 1, np.int64(self._size), self._losses, self._progress)
        for k in range(len(self._chain) - 1, -1, -1):
            linear, above = self._chain[k], self._gradients[k]
            if linear.bias is not None:
                n, m = above.shape
                self._launch("column_sums", -(-m // 32), np.int64(n), np.int64(m), above, gradients[linear.bias])
            self._product(above.T, self._outputs[k - 1] if k else self._inputs, gradients[linear.weight])
            if k:
                bent = self._chain[k - 1].activation
                self._product(above, weights[linear.weight], self._gradients[k - 1], None, self._kept[k - 1], bent)

    def _product(
        self,
        one: Array,
        other: Array,
        out: Array,
        bias: Array | None = None,
        kept: Array | None = None,
        activation: str = "",
        backward: bool = True,
    ) -> None:
        """``out = one @ other``, of any strides, with what product does besides."""
        (n, inner), m = one.shape, other.shape[1]
        steps = [np.int64(stride // one.itemsize) for a in (one, other) for stride in a.strides]
        self._launch(
            "product", -(-n // _TILE) * -(-m // _TILE), np.int64(n), np.int64(m), np.int64(inner), one, *steps[:2], other,
            *steps[2:], out, bias, kept, np.int32(ACTIVATIONS[activation]), np.int32(backward),
        )  # fmt: skip

    def _launch(self, name: str, blocks: int, *arguments: Any, threads: int = cuda.BLOCK) -> None:
        cuda.launch(self._module, name, blocks, *arguments, threads=threads)
