"""Operations on small matrices, lines of numbers one after another, for Numba kernels; see `dmf.kernels.vectors`."""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic

from dmf.kernels.vectors import FLAGS, SUM_VECTORS, Numbers, add_scaled, by_length, loop, plus, zero_of


@intrinsic
def add_tile(typing_context, sums, at, table, index, first, count, left_at, right_at, length, vectors):
    """``sums[at + i length + v] += sum_k row_k[left_at + i] row_k[right_at + v]`` for i < 4 and the rows of `count` samples.

    ``row_k = table[index[first + k] length:]``. v runs over `vectors` machine vectors, a constant.
    """
    if not isinstance(vectors, types.IntegerLiteral):
        return None
    across = vectors.literal_value
    chains = 2 if across == 1 else 1  # that overlap: a sum waits some cycles for the one before it

    def generate(context, builder, signature, args):
        at_, first_, count_, left_at_, right_at_, length_ = (args[k] for k in (1, 4, 5, 6, 7, 8))
        to, rows, indices = (
            Numbers(context, builder, kind, args[k]) for kind, k in ((sums, 0), (table, 2), (index, 3))
        )
        offsets = [to.lanes * v for v in range(across)]
        zero = ir.Constant(to.vector, None)
        parts = [[[cgutils.alloca_once_value(builder, zero) for _ in offsets] for _ in range(4)] for _ in range(chains)]

        def add(places):
            for place, lines in zip(places, parts, strict=False):
                row = builder.mul(indices.integer(builder.add(first_, place), length_), length_)
                left, right = builder.add(row, left_at_), builder.add(row, right_at_)
                found = [rows.load(plus(builder, right, v)) for v in offsets]
                for i, line in enumerate(lines):
                    scale = rows.broadcast(rows.scalar(plus(builder, left, i)))
                    for part, vector in zip(line, found, strict=True):
                        builder.store(add_scaled(builder, builder.load(part), scale, vector), part)

        whole = builder.and_(count_, ir.Constant(count_.type, -chains))
        with loop(builder, zero_of(count_), whole, chains) as (k, _):
            add([plus(builder, k, e) for e in range(chains)])
        if chains > 1:
            with builder.if_then(builder.icmp_signed("<", whole, count_)):
                add([whole])
        for i in range(4):
            row = builder.add(at_, builder.mul(ir.Constant(length_.type, i), length_))
            for v, offset in enumerate(offsets):
                here = plus(builder, row, offset)
                total = to.load(here)
                for lines in parts:
                    total = builder.fadd(total, builder.load(lines[i][v]), flags=FLAGS)
                to.store(total, here)
        return context.get_dummy_value()

    return types.none(sums, at, table, index, first, count, left_at, right_at, length, vectors), generate


@intrinsic
def eliminate(typing_context, matrix, order, first, end, pivot, length):
    """Subtract from every row c of a symmetric matrix, c in order[first:end], row `pivot` times its c-th number."""

    def generate(context, builder, signature, args):
        first_, end_, pivot_, length_ = args[2:]
        to, places = Numbers(context, builder, matrix, args[0]), Numbers(context, builder, order, args[1])
        start = builder.mul(pivot_, length_)

        def rows():
            with loop(builder, first_, end_, 1) as (k, _):
                c = places.scalar(k)
                yield builder.mul(c, length_), to.broadcast(builder.fneg(to.scalar(builder.add(start, c))))

        def narrow(offsets):
            row = [to.load(plus(builder, start, v)) for v in offsets]
            for at, scale in rows():
                for v, vector in zip(offsets, row, strict=True):
                    here = plus(builder, at, v)
                    to.store(add_scaled(builder, to.load(here), scale, vector), here)

        def wide():
            for at, scale in rows():
                with loop(builder, zero_of(length_), length_, to.lanes) as (v, _):
                    here = builder.add(at, v)
                    to.store(add_scaled(builder, to.load(here), scale, to.load(builder.add(start, v))), here)

        by_length(builder, length_, to.lanes, narrow, wide, SUM_VECTORS)
        return context.get_dummy_value()

    return types.none(matrix, order, first, end, pivot, length), generate


@intrinsic
def combine(typing_context, target, at, weights, weights_at, table, order, count, scale, length):
    """``target[at + v] = scale sum_e weights[weights_at + order[e] length] table[order[e] length + v]`` over e < `count`."""

    def generate(context, builder, signature, args):
        at_, weights_at_, count_, scale_, length_ = (args[k] for k in (1, 3, 6, 7, 8))
        to, factors, rows, places = (
            Numbers(context, builder, kind, args[k]) for kind, k in ((target, 0), (weights, 2), (table, 4), (order, 5))
        )
        zero = ir.Constant(to.vector, None)
        whole = to.broadcast(scale_)

        def sums(starts):
            """Sums from these places of the rows on."""
            totals = [cgutils.alloca_once_value(builder, zero) for _ in starts]
            with loop(builder, zero_of(count_), count_, 1) as (e, _):
                row = builder.mul(places.scalar(e), length_)
                weight = to.broadcast(factors.scalar(builder.add(weights_at_, row)))
                for total, v in zip(totals, starts, strict=True):
                    vector = rows.load(builder.add(row, v))
                    builder.store(add_scaled(builder, builder.load(total), weight, vector), total)
            for total, v in zip(totals, starts, strict=True):
                to.store(builder.fmul(whole, builder.load(total), flags=FLAGS), builder.add(at_, v))

        def wide():
            with loop(builder, zero_of(length_), length_, to.lanes) as (v, _):
                sums([v])

        by_length(
            builder,
            length_,
            to.lanes,
            lambda offsets: sums([ir.Constant(length_.type, v) for v in offsets]),
            wide,
            SUM_VECTORS,
        )
        return context.get_dummy_value()

    return types.none(target, at, weights, weights_at, table, order, count, scale, length), generate
