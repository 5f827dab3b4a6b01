"""Many gradient-descent steps on sampled entries without the host: a step is recorded as a CUDA graph and replayed.

A step of a small problem takes less time than the launch of its kernels, about ten; a replayed graph launches them in one go.
It works in place, on buffers that this object keeps: a graph knows addresses, not arrays. A step whose loss is not finite
leaves everything as it was, and so do the steps after it, so that the host need not look at each loss.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, cupy_module, to_host
from dmf.kernels import cuda
from dmf.kernels.passes import Passes

_TOGETHER = 32  # steps of one graph; the rest of a chunk is replayed one by one
_LONG_SUM = 1_024  # products of longer sums get a block for each entry


class Descent:
    """Chunk of gradient-descent steps of a deep network on sampled entries; see `dmf.kernels.cpu.Descent`, which does the same.

    Parameters
    ----------
    passes : Passes
        Over the samples, for factors as wide as the first inner layer.
    values : (array, array), shape (m,) each
        In the order of rows and of columns.
    shape : (int, int)
        (d1, d2).
    widths : tuple of int
        Inner widths, from W_1 on.
    """

    def __init__(
        self, passes: Passes, values: tuple[Array, Array], shape: tuple[int, int], widths: tuple[int, ...]
    ) -> None:
        cupy, (d1, d2), dtype = cupy_module(), shape, values[0].dtype
        self._passes, self._values, self._dtype = passes, values, dtype
        sizes = (d2, *widths, d1)
        self._shapes = [(rows, columns) for columns, rows in zip(sizes, sizes[1:], strict=False)]
        ends = np.cumsum([math.prod(s) for s in self._shapes])
        total, length = int(ends[-1]), passes.length
        numbers = 4 * total + (d1 + d2) * length + (d1 + sum(widths[1:]) + sum(widths[2:])) * widths[0]
        numbers += sum(side.slots for side in passes.sides) * length
        segments = sum(side.segments for side in passes.sides)
        needed = numbers * np.dtype(dtype).itemsize + 8 * segments  # the rest is a few numbers
        cuda.check_memory(needed, f"descent of {len(sizes) - 1} layers", values[0])
        self._module = cuda.compiled("descent.cu", dtype)
        self._ends, self._rates = cupy.asarray(ends), cupy.empty(len(sizes) - 1, dtype)
        # Layers one after another: weights and gradients of the state, and those of the step that is tried.
        self._weights, self._gradient, self._moved, self._found = (cupy.empty(total, dtype) for _ in range(4))
        self._left, self._right = cupy.zeros((d1, length), dtype), cupy.zeros((d2, length), dtype)
        self._below = [self._layers(self._moved)[1]]  # W_2, W_3 W_2, ...; the last one is in the padded rows of `left`
        self._below += [cupy.empty((width, widths[0]), dtype) for width in widths[2:]]
        self._back = [cupy.empty((d1, widths[0]), dtype), *(cupy.empty((w, widths[0]), dtype) for w in widths[:0:-1])]
        self._scratch = [passes.scratch_of(side, dtype) for side in (0, 1)]
        self._sums = passes.total_scratch(self._scratch[0][1])
        self._progress = cupy.zeros(3, cupy.float64)  # loss, steps taken, whether a loss was not finite
        self._recorded: tuple[float, float] | None = None  # shrink and scale of the graphs
        self._graphs: dict[int, Any] = {}  # by the number of steps

    def _layers(self, flat: Array) -> list[Array]:
        """Views of the layers in a flat array."""
        begins = np.cumsum([0, *(math.prod(s) for s in self._shapes)])
        return [flat[b:e].reshape(s) for b, e, s in zip(begins, begins[1:], self._shapes, strict=False)]

    def __call__(self, weights, gradients, loss, rates, shrink, scale, iterations):
        """(weights, gradients, loss, steps made) after at most `iterations` steps; one read by the host, at the end."""
        cupy = cupy_module()
        for flat, arrays in ((self._weights, weights), (self._gradient, gradients)):
            for layer, array in zip(self._layers(flat), arrays, strict=True):
                layer[...] = array
        self._rates[...] = cupy.asarray(np.asarray(rates, self._dtype))
        self._progress[...] = cupy.asarray(np.array([loss, 0.0, 0.0]))
        for count in (_TOGETHER, 1):
            graph = self._graph(shrink, scale, count)  # also for no steps, with which solvers prepare
            for _ in range(iterations // count):
                graph.launch(cupy.cuda.get_current_stream())
            iterations %= count
        loss, steps, _ = to_host(self._progress).tolist()
        moved, gradient = self._weights.copy(), self._gradient.copy()  # the next call works on the buffers
        return tuple(self._layers(moved)), tuple(self._layers(gradient)), loss, int(steps)

    def _graph(self, shrink: float, scale: float, count: int) -> Any:
        """Graph of `count` steps, kept until others are asked for. It is launched on the caller's stream."""
        if self._recorded != (shrink, scale):
            self._recorded, self._graphs = (shrink, scale), {}
        if count not in self._graphs:
            cupy = cupy_module()
            saved = self._weights.copy(), self._gradient.copy(), self._progress.copy()
            self._step(shrink, scale)  # loads the kernels, which a recording must not do
            for buffer, before in zip((self._weights, self._gradient, self._progress), saved, strict=True):
                buffer[...] = before
            stream = cupy.cuda.Stream(non_blocking=True)
            with stream:
                stream.begin_capture()
                for _ in range(count):
                    self._step(shrink, scale)
                self._graphs[count] = stream.end_capture()
        return self._graphs[count]

    def _step(self, shrink: float, scale: float) -> None:
        """One step, `loss_and_gradients` of `dmf.models.gradients` on buffers; nothing is allocated."""
        real, count = self._dtype.type, int(self._weights.size)
        flat = self._weights, self._gradient, self._moved
        self._launch("move", cuda.blocks_for(count), np.int64(count), *flat, self._ends, self._rates, real(shrink))
        layers, gradients = self._layers(self._moved), self._layers(self._found)
        width = layers[0].shape[0]
        self._place("transpose", layers[0], self._right)
        last = len(layers) - 1
        for layer in range(2, last):
            self._multiply(layers[layer], self._below[layer - 2], self._below[layer - 1])
        left = self._left[:, :width]
        if last == 1:
            self._place("copy_rows", layers[1], left)
        else:
            self._multiply(layers[last], self._below[last - 2], left)
        losses = self._passes.residual(
            0, self._values[0], self._left, self._right, self._back[0], scratch=self._scratch[0]
        )
        self._passes.residual(1, self._values[1], self._right, self._left, gradients[0].T, scratch=self._scratch[1])
        loss = self._passes.total(losses, 0.5 * scale, scratch=self._sums)
        for layer in range(last, 0, -1):
            back = self._back[last - layer]
            if layer == 1:
                self._place("copy_rows", back, gradients[1])
            else:
                self._multiply(back, self._below[layer - 2].T, gradients[layer])
                self._multiply(layers[layer].T, back, self._back[last - layer + 1])
        tried = self._moved, self._found, self._weights, self._gradient
        self._launch("accept", cuda.blocks_for(count), np.int64(count), *tried, real(scale), loss, self._progress)
        self._launch("settle", 1, loss, self._progress, threads=1)

    def _multiply(self, one: Array, other: Array, out: Array) -> None:
        """``out = one @ other``, of any strides; rows of `out` are contiguous."""
        (n, inner), m = one.shape, other.shape[1]
        steps = [np.int64(stride // one.itemsize) for a in (one, other) for stride in a.strides]
        sizes = np.int64(n), np.int64(m), np.int64(inner)
        out_row = np.int64(out.strides[0] // out.itemsize)
        name, blocks = ("multiply", cuda.blocks_for(n * m)) if inner <= _LONG_SUM else ("multiply_long", n * m)
        self._launch(name, blocks, *sizes, one, *steps[:2], other, *steps[2:], out, out_row)

    def _place(self, name: str, one: Array, out: Array) -> None:
        """Copy a contiguous array, or its transpose, into rows of `out`."""
        step = np.int64(out.strides[0] // out.itemsize)
        self._launch(name, cuda.blocks_for(one.size), *map(np.int64, one.shape), one, out, step)

    def _launch(self, name: str, blocks: int, *arguments: Any, threads: int = cuda.BLOCK) -> None:
        cuda.launch(self._module, name, blocks, *arguments, threads=threads)
