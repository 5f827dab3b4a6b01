"""Code in LLVM's language for rows of numbers whose length is known only when a kernel is called.

A kernel that is compiled anew for each width of the factors costs seconds of the user's time for each. Here one compiled form
serves all widths: every operation has its own short path for rows of one, two and three machine vectors, which it holds in
registers, and a loop for longer ones. To write LLVM code directly leaves Numba little to infer. The operations that kernels call
are in `dmf.kernels.rows` and `dmf.kernels.blocks`.

Arrays are C-contiguous and addressed by flat indices; `length`, the numbers of a row, fills whole machine vectors of 32 bytes
(see `dmf.kernels.simd.padded`). Sums may be reassociated; nothing is assumed about NaN, infinities or signed zeros.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba.core import cgutils

ROW_VECTORS = 3  # machine vectors of a row that are held in registers, beside what is computed with them
SUM_VECTORS = 5  # of a sum of rows, which needs fewer others
_BITS = 256
FLAGS = ("contract", "reassoc")
I32 = ir.IntType(32)


class Numbers:
    """Numbers of one array: scalars and machine vectors at flat indices."""

    def __init__(self, context, builder, kind, array) -> None:
        manager = context.data_model_manager[kind]
        self._builder, self._align = builder, kind.dtype.bitwidth // 8
        self._data = builder.extract_value(array, manager.get_field_position("data"))
        self.count = builder.extract_value(array, manager.get_field_position("nitems"))
        self.lanes = _BITS // kind.dtype.bitwidth
        self.vector = ir.VectorType(context.get_data_type(kind.dtype), self.lanes)

    def _address(self, at):
        return self._builder.gep(self._data, [at])

    def scalar(self, at):
        return self._builder.load(self._address(at))

    def store_scalar(self, number, at):
        self._builder.store(number, self._address(at))

    def integer(self, at, like):
        """Whole number at `at`, in the type of `like`."""
        number = self.scalar(at)
        return number if number.type == like.type else self._builder.sext(number, like.type)

    def load(self, at):
        vector = self._builder.load(self._builder.bitcast(self._address(at), self.vector.as_pointer()))
        vector.align = self._align
        return vector

    def store(self, vector, at):
        self._builder.store(
            vector, self._builder.bitcast(self._address(at), self.vector.as_pointer())
        ).align = self._align

    def prefetch(self, at):
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32])
        function = cgutils.get_or_insert_function(self._builder.module, kind, "llvm.prefetch.p0")
        address = self._builder.bitcast(self._address(at), byte)
        self._builder.call(function, [address, *(ir.Constant(I32, n) for n in (0, 3, 1))])

    def broadcast(self, number):
        return broadcast(self._builder, self.vector, number)


def broadcast(builder, vector_type, number):
    """Machine vector that holds a number in every lane."""
    undefined = ir.Constant(vector_type, ir.Undefined)
    single = builder.insert_element(undefined, number, ir.Constant(I32, 0))
    lanes = ir.VectorType(I32, vector_type.count)
    return builder.shuffle_vector(single, undefined, ir.Constant(lanes, [0] * vector_type.count))


def plus(builder, at, offset: int):
    return builder.add(at, ir.Constant(at.type, offset)) if offset else at


def add_scaled(builder, total, left, right):
    return builder.fadd(total, builder.fmul(left, right, flags=FLAGS), flags=FLAGS)


def loop(builder, first, end, step: int):
    return cgutils.for_range_slice(builder, first, end, ir.Constant(end.type, step), end.type, inc=True)


def zero_of(like):
    return ir.Constant(like.type, 0)


def by_length(builder, length, lanes: int, narrow: Callable, wide: Callable[[], None], most: int = ROW_VECTORS) -> None:
    """Code of `narrow`, given the offsets of the vectors of a row, for each short length; of `wide` for the others."""
    other, end = builder.append_basic_block("wide"), builder.append_basic_block("end")
    switch = builder.switch(length, other)
    for vectors in range(1, most + 1):
        block = builder.append_basic_block("narrow")
        switch.add_case(ir.Constant(length.type, vectors * lanes), block)
        builder.position_at_end(block)
        narrow([lanes * v for v in range(vectors)])
        builder.branch(end)
    builder.position_at_end(other)
    wide()
    builder.branch(end)
    builder.position_at_end(end)


def in_fours(builder, count, body: Callable[[list], None]) -> None:
    """Loop over `count` places, which `body` takes four at a time and the last ones singly."""
    whole = builder.and_(count, ir.Constant(count.type, -4))
    with loop(builder, zero_of(count), whole, 4) as (place, _):
        body([plus(builder, place, e) for e in range(4)])
    with loop(builder, whole, count, 1) as (place, _):
        body([place])


def chain(builder, pairs):
    total = builder.fmul(*pairs[0], flags=FLAGS)
    for left, right in pairs[1:]:
        total = add_scaled(builder, total, left, right)
    return total


def sum_scaled(builder, pairs):
    """Sum of products, as two chains where there are four."""
    half = max(len(pairs) // 2, 1)
    chains = [chain(builder, some) for some in (pairs[:half], pairs[half:]) if some]
    return chains[0] if len(chains) == 1 else builder.fadd(*chains, flags=FLAGS)


def add_groups(builder, a, b, group: int):
    """Sums of neighbouring groups of lanes, those of `a` and of `b` in turn."""
    lanes = a.type.count

    def select(odd):
        index = [(i // group % 2) * lanes + (i // (2 * group) * 2 + odd) * group + i % group for i in range(lanes)]
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, lanes), index))

    return builder.fadd(select(0), select(1))


def add_lanes(builder, vector):
    """Sum of the numbers of a machine vector."""
    while (lanes := vector.type.count) > 1:
        undefined = ir.Constant(vector.type, ir.Undefined)
        halves = (
            builder.shuffle_vector(
                vector, undefined, ir.Constant(ir.VectorType(I32, lanes // 2), list(range(odd, lanes, 2)))
            )
            for odd in (0, 1)
        )
        vector = builder.fadd(*halves)
    return builder.extract_element(vector, ir.Constant(I32, 0))
