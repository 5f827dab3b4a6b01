"""Operations on rows of numbers whose length is known only when they are called, for Numba kernels.

A kernel that is compiled anew for each width of the factors costs seconds of the user's time for each. Here one compiled form
serves all widths: every operation has its own short path for rows of one, two and three machine vectors, which it holds in
registers, and a loop for longer ones. The operations write LLVM code directly, so that Numba has little to infer.

Arrays are C-contiguous and addressed by flat indices; `length`, the numbers of a row, fills whole machine vectors of 32 bytes
(see `dmf.kernels.simd.padded`). Sums may be reassociated; nothing is assumed about NaN, infinities or signed zeros.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic

AHEAD = 12  # samples whose rows are asked for while others are worked on
_NARROW = 3  # machine vectors of a row that stays in registers
_NARROW_SUM = 5  # of a sum of rows, which takes fewer of them
_BITS = 256
_FLAGS = ("contract", "reassoc")
_I32 = ir.IntType(32)


class _Numbers:
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
        kind = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(self._builder.module, kind, "llvm.prefetch.p0")
        address = self._builder.bitcast(self._address(at), byte)
        self._builder.call(function, [address, *(ir.Constant(_I32, n) for n in (0, 3, 1))])

    def broadcast(self, number):
        undefined = ir.Constant(self.vector, ir.Undefined)
        single = self._builder.insert_element(undefined, number, ir.Constant(_I32, 0))
        return self._builder.shuffle_vector(
            single, undefined, ir.Constant(ir.VectorType(_I32, self.lanes), [0] * self.lanes)
        )


def _plus(builder, at, offset: int):
    return builder.add(at, ir.Constant(at.type, offset)) if offset else at


def _add_scaled(builder, total, left, right):
    return builder.fadd(total, builder.fmul(left, right, flags=_FLAGS), flags=_FLAGS)


def _loop(builder, first, end, step: int):
    return cgutils.for_range_slice(builder, first, end, ir.Constant(end.type, step), end.type, inc=True)


def _zero(like):
    return ir.Constant(like.type, 0)


def _by_length(builder, length, lanes: int, narrow: Callable, wide: Callable[[], None], most: int = _NARROW) -> None:
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


def _in_fours(builder, count, body: Callable[[list], None]) -> None:
    """Loop over `count` places, which `body` takes four at a time and the last ones singly."""
    whole = builder.and_(count, ir.Constant(count.type, -4))
    with _loop(builder, _zero(count), whole, 4) as (place, _):
        body([_plus(builder, place, e) for e in range(4)])
    with _loop(builder, whole, count, 1) as (place, _):
        body([place])


def _sum_scaled(builder, pairs):
    """Sum of products, as two chains where there are four."""
    half = max(len(pairs) // 2, 1)
    chains = []
    for some in (pairs[:half], pairs[half:]):
        if some:
            total = builder.fmul(*some[0], flags=_FLAGS)
            for left, right in some[1:]:
                total = _add_scaled(builder, total, left, right)
            chains.append(total)
    return chains[0] if len(chains) == 1 else builder.fadd(*chains, flags=_FLAGS)


@intrinsic
def add_rows(typing_context, target, at, table, step, index, first, count, weights, weights_at, length, cold):
    """``target[at + v] += sum_j weights[weights_at + j] table[index[first + j] step + v]`` over j < `count`.

    `cold`, a constant: whether the rows are not in the cache yet, so that they are worth asking for ahead of time.
    """
    if not isinstance(cold, types.Literal):
        return None

    def generate(context, builder, signature, args):
        at_, step_, first_, count_, weights_at_, length_ = (args[k] for k in (1, 3, 5, 6, 8, 9))
        to, rows, indices, factors = (
            _Numbers(context, builder, kind, args[k]) for kind, k in ((target, 0), (table, 2), (index, 4), (weights, 7))
        )
        last = builder.sub(indices.count, ir.Constant(length_.type, 1))

        def row_of(k):
            return builder.mul(indices.integer(k, length_), step_)

        def places_of(places):
            """(start of the row, broadcast weight) for each place."""
            found = []
            for place in places:
                weight = factors.broadcast(factors.scalar(builder.add(weights_at_, place)))
                found.append((row_of(builder.add(first_, place)), weight))
            return found

        def later(places):
            """Starts of the rows that come AHEAD, if they are asked for."""
            ahead = [_plus(builder, builder.add(first_, place), AHEAD) for place in places if cold.literal_value]
            return [row_of(builder.select(builder.icmp_signed("<", k, last), k, last)) for k in ahead]

        def narrow(offsets):
            sums = [cgutils.alloca_once_value(builder, to.load(_plus(builder, at_, v))) for v in offsets]

            def body(places):
                found = places_of(places)
                for ahead in later(places):
                    for v in offsets[::2]:
                        rows.prefetch(_plus(builder, ahead, v))
                for total, v in zip(sums, offsets, strict=True):
                    pairs = [(weight, rows.load(_plus(builder, row, v))) for row, weight in found]
                    builder.store(builder.fadd(builder.load(total), _sum_scaled(builder, pairs), flags=_FLAGS), total)

            _in_fours(builder, count_, body)
            for total, v in zip(sums, offsets, strict=True):
                to.store(builder.load(total), _plus(builder, at_, v))

        def wide():
            def body(places):
                found = places_of(places)
                for ahead in later(places):
                    with _loop(builder, _zero(length_), length_, 2 * to.lanes) as (v, _):
                        rows.prefetch(builder.add(ahead, v))
                with _loop(builder, _zero(length_), length_, to.lanes) as (v, _):
                    here = builder.add(at_, v)
                    total = to.load(here)
                    for row, weight in found:
                        total = _add_scaled(builder, total, weight, rows.load(builder.add(row, v)))
                    to.store(total, here)

            _in_fours(builder, count_, body)

        _by_length(builder, length_, to.lanes, narrow, wide, _NARROW_SUM)
        return context.get_dummy_value()

    return types.none(target, at, table, step, index, first, count, weights, weights_at, length, cold), generate


@intrinsic
def add_row(typing_context, target, at, factor, table, row_at, length):
    """``target[at + v] += factor table[row_at + v]``."""

    def generate(context, builder, signature, args):
        at_, row_at_, length_ = args[1], args[4], args[5]
        to, rows = _Numbers(context, builder, target, args[0]), _Numbers(context, builder, table, args[3])
        scale = to.broadcast(args[2])
        with _loop(builder, _zero(length_), length_, to.lanes) as (v, _):
            here = builder.add(at_, v)
            to.store(_add_scaled(builder, to.load(here), scale, rows.load(builder.add(row_at_, v))), here)
        return context.get_dummy_value()

    return types.none(target, at, target.dtype, table, row_at, length), generate


@intrinsic
def fill(typing_context, target, at, number, length):
    """``target[at + v] = number``."""

    def generate(context, builder, signature, args):
        to = _Numbers(context, builder, target, args[0])
        vector = to.broadcast(args[2])
        with _loop(builder, _zero(args[3]), args[3], to.lanes) as (v, _):
            to.store(vector, builder.add(args[1], v))
        return context.get_dummy_value()

    return types.none(target, at, target.dtype, length), generate


@intrinsic
def scaled_rows(typing_context, target, at, table, index, first, count, scales, scales_at, length):
    """``target[at + j length + v] = scales[scales_at + j] table[index[first + j] length + v]`` for j < `count`."""

    def generate(context, builder, signature, args):
        at_, first_, count_, scales_at_, length_ = (args[k] for k in (1, 4, 5, 7, 8))
        to, rows, indices, factors = (
            _Numbers(context, builder, kind, args[k]) for kind, k in ((target, 0), (table, 2), (index, 3), (scales, 6))
        )
        last = builder.sub(indices.count, ir.Constant(length_.type, 1))
        with _loop(builder, _zero(count_), count_, 1) as (j, _):
            k = builder.add(first_, j)
            ahead = _plus(builder, k, AHEAD)
            ahead = builder.select(builder.icmp_signed("<", ahead, last), ahead, last)
            row, later = (builder.mul(indices.integer(place, length_), length_) for place in (k, ahead))
            scale = to.broadcast(factors.scalar(builder.add(scales_at_, j)))
            here = builder.add(at_, builder.mul(j, length_))
            with _loop(builder, _zero(length_), length_, to.lanes) as (v, _):
                rows.prefetch(builder.add(later, v))
                to.store(builder.fmul(scale, rows.load(builder.add(row, v)), flags=_FLAGS), builder.add(here, v))
        return context.get_dummy_value()

    return types.none(target, at, table, index, first, count, scales, scales_at, length), generate


@intrinsic
def add_tile(typing_context, sums, at, met, left_at, right_at, length, count, vectors):
    """``sums[at + i length + v] += sum_k met[left_at + k length + i] met[right_at + k length + v]`` for i < 4, k < `count`.

    v runs over `vectors` machine vectors, a constant.
    """
    if not isinstance(vectors, types.IntegerLiteral):
        return None
    across = vectors.literal_value

    def generate(context, builder, signature, args):
        at_, left_at_, right_at_, length_, count_ = (args[k] for k in (1, 3, 4, 5, 6))
        to, rows = _Numbers(context, builder, sums, args[0]), _Numbers(context, builder, met, args[2])
        offsets = [to.lanes * v for v in range(across)]
        zero = ir.Constant(to.vector, None)
        parts = [[cgutils.alloca_once_value(builder, zero) for _ in offsets] for _ in range(4)]
        with _loop(builder, _zero(count_), count_, 1) as (k, _):
            row = builder.mul(k, length_)
            left, right = builder.add(left_at_, row), builder.add(right_at_, row)
            vectors_ = [rows.load(_plus(builder, right, v)) for v in offsets]
            for i, line in enumerate(parts):
                scale = rows.broadcast(rows.scalar(_plus(builder, left, i)))
                for part, vector in zip(line, vectors_, strict=True):
                    builder.store(_add_scaled(builder, builder.load(part), scale, vector), part)
        for i, line in enumerate(parts):
            row = builder.add(at_, builder.mul(ir.Constant(length_.type, i), length_))
            for part, v in zip(line, offsets, strict=True):
                here = _plus(builder, row, v)
                to.store(builder.fadd(to.load(here), builder.load(part), flags=_FLAGS), here)
        return context.get_dummy_value()

    return types.none(sums, at, met, left_at, right_at, length, count, vectors), generate


@intrinsic
def add_narrow(typing_context, sums, gram, target, table, index, first, count, squares, products, width, length):
    """Normal equations of `count` samples with short rows r_k = table[index[first + k] length:], all sums in one pass.

    ``sums[gram + a length + v] += sum_k s_k r_k[a] r_k[v]`` for v <= a < `width`, ``sums[target + v] += sum_k p_k r_k[v]``; s
    and p in `sums` from `squares` and `products` on. Returns whether the rows are short; otherwise nothing is done.
    """

    def generate(context, builder, signature, args):
        gram_, target_, first_, count_, squares_, products_, width_, length_ = (
            args[k] for k in (1, 2, 5, 6, 7, 8, 9, 10)
        )
        to, rows, indices = (
            _Numbers(context, builder, kind, args[k]) for kind, k in ((sums, 0), (table, 3), (index, 4))
        )
        done = cgutils.alloca_once_value(builder, cgutils.true_bit)
        last = builder.sub(indices.count, ir.Constant(length_.type, 1))

        def row_of(k):
            return builder.mul(indices.integer(k, length_), length_)

        def narrow(offsets):
            totals = [cgutils.alloca_once_value(builder, to.load(_plus(builder, target_, v))) for v in offsets]

            def body(places):
                found = []
                for place in places:
                    k = builder.add(first_, place)
                    ahead = _plus(builder, k, AHEAD)
                    ahead = row_of(builder.select(builder.icmp_signed("<", ahead, last), ahead, last))
                    at = row_of(k)
                    square, product = (to.scalar(builder.add(start, place)) for start in (squares_, products_))
                    for v in offsets[::2]:
                        rows.prefetch(_plus(builder, ahead, v))
                    vectors = [rows.load(_plus(builder, at, v)) for v in offsets]
                    found.append((at, to.broadcast(square), to.broadcast(product), vectors))
                for v, total in enumerate(totals):
                    pairs = [(product, vectors[v]) for _, _, product, vectors in found]
                    builder.store(builder.fadd(builder.load(total), _sum_scaled(builder, pairs), flags=_FLAGS), total)
                scaled = [[builder.fmul(square, x, flags=_FLAGS) for x in vectors] for _, square, _, vectors in found]
                for v in range(
                    len(offsets)
                ):  # lines whose diagonal lies in the v-th vector; beyond it nothing is needed
                    first, end = ir.Constant(width_.type, offsets[v]), ir.Constant(width_.type, offsets[v] + to.lanes)
                    end = builder.select(builder.icmp_signed("<", end, width_), end, width_)
                    with _loop(builder, first, end, 1) as (a, _):
                        here = builder.add(gram_, builder.mul(a, length_))
                        left = [rows.broadcast(rows.scalar(builder.add(at, a))) for at, _, _, _ in found]
                        for u, offset in enumerate(offsets[: v + 1]):
                            place = _plus(builder, here, offset)
                            total = to.load(place)
                            for x, vectors in zip(left, scaled, strict=True):
                                total = _add_scaled(builder, total, x, vectors[u])
                            to.store(total, place)

            _in_fours(builder, count_, body)
            for total, v in zip(totals, offsets, strict=True):
                to.store(builder.load(total), _plus(builder, target_, v))

        _by_length(builder, length_, to.lanes, narrow, lambda: builder.store(cgutils.false_bit, done))
        return builder.load(done)

    return types.boolean(sums, gram, target, table, index, first, count, squares, products, width, length), generate


@intrinsic
def dots(typing_context, results, at, rows, row_at, table, step, index, first, count, length):
    """``results[at + j] = <rows[row_at:], table[index[first + j] step:]>`` of `length` numbers each, for j < `count`.

    One transposition adds up the lanes of as many products as a machine vector holds.
    """

    def generate(context, builder, signature, args):
        at_, row_at_, step_, first_, count_, length_ = (args[k] for k in (1, 3, 5, 7, 8, 9))
        to, left, others, indices = (
            _Numbers(context, builder, kind, args[k]) for kind, k in ((results, 0), (rows, 2), (table, 4), (index, 6))
        )
        zero = ir.Constant(to.vector, None)

        def products(places, offsets):
            """Lane-wise sums for some samples; `offsets` None: of a long row."""
            ats = [builder.mul(indices.integer(builder.add(first_, place), length_), step_) for place in places]
            if offsets is not None:
                row = [left.load(_plus(builder, row_at_, v)) for v in offsets]
                return [
                    _chain(
                        builder, [(x, others.load(_plus(builder, other, v))) for x, v in zip(row, offsets, strict=True)]
                    )
                    for other in ats
                ]
            sums = [cgutils.alloca_once_value(builder, zero) for _ in ats]
            with _loop(builder, _zero(length_), length_, to.lanes) as (v, _):
                vector = left.load(builder.add(row_at_, v))
                for total, other in zip(sums, ats, strict=True):
                    right = others.load(builder.add(other, v))
                    builder.store(_add_scaled(builder, builder.load(total), vector, right), total)
            return [builder.load(total) for total in sums]

        def through(offsets):
            whole = builder.and_(count_, ir.Constant(count_.type, -to.lanes))
            with _loop(builder, _zero(count_), whole, to.lanes) as (j, _):
                found, group = products([_plus(builder, j, e) for e in range(to.lanes)], offsets), 1
                while len(found) > 1:  # every vector of the next round holds sums of `group` lanes of two of this one
                    found = [_add_groups(builder, a, b, group) for a, b in zip(found[::2], found[1::2], strict=True)]
                    group *= 2
                to.store(found[0], builder.add(at_, j))
            with _loop(builder, whole, count_, 1) as (j, _):
                total = _add_lanes(builder, products([j], offsets)[0])
                to.store_scalar(total, builder.add(at_, j))

        _by_length(builder, length_, to.lanes, through, lambda: through(None))
        return context.get_dummy_value()

    return types.none(results, at, rows, row_at, table, step, index, first, count, length), generate


def _chain(builder, pairs):
    total = builder.fmul(*pairs[0], flags=_FLAGS)
    for left, right in pairs[1:]:
        total = _add_scaled(builder, total, left, right)
    return total


def _add_groups(builder, a, b, group: int):
    """Sums of neighbouring groups of lanes, those of `a` and of `b` in turn."""
    lanes = a.type.count

    def select(odd):
        index = [(i // group % 2) * lanes + (i // (2 * group) * 2 + odd) * group + i % group for i in range(lanes)]
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, lanes), index))

    return builder.fadd(select(0), select(1))


def _add_lanes(builder, vector):
    """Sum of the numbers of a machine vector, in the order of `_add_groups`: a sample alone has the same bits as in a group."""
    while (lanes := vector.type.count) > 1:
        undefined = ir.Constant(vector.type, ir.Undefined)
        halves = (
            builder.shuffle_vector(
                vector, undefined, ir.Constant(ir.VectorType(_I32, lanes // 2), list(range(odd, lanes, 2)))
            )
            for odd in (0, 1)
        )
        vector = builder.fadd(*halves)
    return builder.extract_element(vector, ir.Constant(_I32, 0))


@intrinsic
def subtract(typing_context, errors, at, values, first, count):
    """``errors[at + j] -= values[first + j]`` for j < `count`; returns the sum of their squares in float64."""

    def generate(context, builder, signature, args):
        at_, first_, count_ = args[1], args[3], args[4]
        to, known = _Numbers(context, builder, errors, args[0]), _Numbers(context, builder, values, args[2])
        double = ir.VectorType(ir.DoubleType(), to.lanes)
        squares = cgutils.alloca_once_value(builder, ir.Constant(double, None))
        rest = cgutils.alloca_once_value(builder, ir.Constant(ir.DoubleType(), 0.0))

        def widened(number, kind):
            return number if number.type == kind else builder.fpext(number, kind)

        whole = builder.and_(count_, ir.Constant(count_.type, -to.lanes))
        with _loop(builder, _zero(count_), whole, to.lanes) as (j, _):
            here = builder.add(at_, j)
            error = builder.fsub(to.load(here), known.load(builder.add(first_, j)), flags=_FLAGS)
            to.store(error, here)
            error = widened(error, double)
            builder.store(_add_scaled(builder, builder.load(squares), error, error), squares)
        with _loop(builder, whole, count_, 1) as (j, _):
            here = builder.add(at_, j)
            error = builder.fsub(to.scalar(here), known.scalar(builder.add(first_, j)), flags=_FLAGS)
            to.store_scalar(error, here)
            error = widened(error, ir.DoubleType())
            builder.store(_add_scaled(builder, builder.load(rest), error, error), rest)
        return builder.fadd(_add_lanes(builder, builder.load(squares)), builder.load(rest), flags=_FLAGS)

    return types.float64(errors, at, values, first, count), generate
