"""Operations on rows of numbers that samples meet, for Numba kernels; see `dmf.kernels.vectors`."""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic

from dmf.kernels.vectors import (
    FLAGS,
    SUM_VECTORS,
    Numbers,
    add_groups,
    add_lanes,
    add_scaled,
    by_length,
    chain,
    in_fours,
    loop,
    plus,
    sum_scaled,
    zero_of,
)

PREFETCH_DISTANCE = 12  # samples between the one whose row is asked for and the one that is worked on


@intrinsic
def add_rows(
    typing_context, target, at, table, step, index, first, count, weights, weights_at, weights_step, length, prefetched
):
    """``target[at + v] += sum_j weights[weights_at + j weights_step] table[index[first + j] step + v]`` over j < `count`.

    `prefetched`, a constant: whether rows are asked for ahead of time, which pays where they are not in the cache yet.
    """
    if not isinstance(prefetched, types.Literal):
        return None

    def generate(context, builder, signature, args):
        at_, step_, first_, count_, weights_at_, weights_step_, length_ = (args[k] for k in (1, 3, 5, 6, 8, 9, 10))
        to, rows, indices, factors = (
            Numbers(context, builder, kind, args[k]) for kind, k in ((target, 0), (table, 2), (index, 4), (weights, 7))
        )
        last = builder.sub(indices.count, ir.Constant(length_.type, 1))

        def row_of(k):
            return builder.mul(indices.integer(k, length_), step_)

        def places_of(places):
            """(start of the row, broadcast weight) for each place."""
            found = []
            for place in places:
                weight = builder.add(weights_at_, builder.mul(place, weights_step_))
                weight = factors.broadcast(factors.scalar(weight))
                found.append((row_of(builder.add(first_, place)), weight))
            return found

        def later(places):
            """Starts of the rows that come later, if they are asked for."""
            ahead = [
                plus(builder, builder.add(first_, place), PREFETCH_DISTANCE)
                for place in places
                if prefetched.literal_value
            ]
            return [row_of(builder.select(builder.icmp_signed("<", k, last), k, last)) for k in ahead]

        def narrow(offsets):
            sums = [cgutils.alloca_once_value(builder, to.load(plus(builder, at_, v))) for v in offsets]

            def body(places):
                found = places_of(places)
                for ahead in later(places):
                    for v in offsets[::2]:
                        rows.prefetch(plus(builder, ahead, v))
                for total, v in zip(sums, offsets, strict=True):
                    pairs = [(weight, rows.load(plus(builder, row, v))) for row, weight in found]
                    builder.store(builder.fadd(builder.load(total), sum_scaled(builder, pairs), flags=FLAGS), total)

            in_fours(builder, count_, body)
            for total, v in zip(sums, offsets, strict=True):
                to.store(builder.load(total), plus(builder, at_, v))

        def wide():
            def body(places):
                found = places_of(places)
                for ahead in later(places):
                    with loop(builder, zero_of(length_), length_, 2 * to.lanes) as (v, _):
                        rows.prefetch(builder.add(ahead, v))
                with loop(builder, zero_of(length_), length_, to.lanes) as (v, _):
                    here = builder.add(at_, v)
                    total = to.load(here)
                    for row, weight in found:
                        total = add_scaled(builder, total, weight, rows.load(builder.add(row, v)))
                    to.store(total, here)

            in_fours(builder, count_, body)

        by_length(builder, length_, to.lanes, narrow, wide, SUM_VECTORS)
        return context.get_dummy_value()

    return types.none(
        target, at, table, step, index, first, count, weights, weights_at, weights_step, length, prefetched
    ), generate


@intrinsic
def fill(typing_context, target, at, number, length):
    """``target[at + v] = number``."""

    def generate(context, builder, signature, args):
        to = Numbers(context, builder, target, args[0])
        vector = to.broadcast(args[2])
        with loop(builder, zero_of(args[3]), args[3], to.lanes) as (v, _):
            to.store(vector, builder.add(args[1], v))
        return context.get_dummy_value()

    return types.none(target, at, target.dtype, length), generate


@intrinsic
def fetch_rows(typing_context, table, index, first, count, length):
    """Ask for the rows ``table[index[first + j] length:]``, j < `count`, as far as there are any: they will be read soon."""

    def generate(context, builder, signature, args):
        first_, count_, length_ = args[2:]
        rows, indices = (Numbers(context, builder, kind, args[k]) for kind, k in ((table, 0), (index, 1)))
        end = builder.add(first_, count_)
        end = builder.select(builder.icmp_signed("<", end, indices.count), end, indices.count)
        with loop(builder, first_, end, 1) as (k, _):
            row = builder.mul(indices.integer(k, length_), length_)
            with loop(builder, zero_of(length_), length_, 2 * rows.lanes) as (v, _):
                rows.prefetch(builder.add(row, v))
        return context.get_dummy_value()

    return types.none(table, index, first, count, length), generate


@intrinsic
def scaled_rows(typing_context, target, table, index, first, count, scales, scales_at, length):
    """``target[j length + v] = scales[scales_at + j] table[index[first + j] length + v]`` for j < `count`."""

    def generate(context, builder, signature, args):
        first_, count_, scales_at_, length_ = args[3], args[4], args[6], args[7]
        to, rows, indices, factors = (
            Numbers(context, builder, kind, args[k]) for kind, k in ((target, 0), (table, 1), (index, 2), (scales, 5))
        )
        with loop(builder, zero_of(count_), count_, 1) as (j, _):
            row = builder.mul(indices.integer(builder.add(first_, j), length_), length_)
            scale, here = to.broadcast(factors.scalar(builder.add(scales_at_, j))), builder.mul(j, length_)
            with loop(builder, zero_of(length_), length_, to.lanes) as (v, _):
                product = builder.fmul(scale, rows.load(builder.add(row, v)), flags=FLAGS)
                to.store(product, builder.add(here, v))
        return context.get_dummy_value()

    return types.none(target, table, index, first, count, scales, scales_at, length), generate


@intrinsic
def dots(typing_context, errors, at, left, left_at, table, step, index, first, count, values, values_at, length):
    """``errors[at + j] = <left[left_at:], table[index[first + j] step:]> - values[values_at + j]`` for j < `count`.

    The products are of `length` numbers each. One transposition adds up the lanes of as many of them as a machine vector holds.
    Returns the sum of the squares of the errors in float64.
    """

    def generate(context, builder, signature, args):
        at_, left_at_, step_, first_, count_, values_at_, length_ = (args[k] for k in (1, 3, 5, 7, 8, 10, 11))
        to, rows, others, indices, known = (
            Numbers(context, builder, kind, args[k])
            for kind, k in ((errors, 0), (left, 2), (table, 4), (index, 6), (values, 9))
        )
        zero = ir.Constant(to.vector, None)
        double = ir.VectorType(ir.DoubleType(), to.lanes)
        squares = cgutils.alloca_once_value(builder, ir.Constant(double, None))
        rest = cgutils.alloca_once_value(builder, ir.Constant(ir.DoubleType(), 0.0))
        last_ones = cgutils.alloca_once_value(builder, zero)
        whole = builder.and_(count_, ir.Constant(count_.type, -to.lanes))
        last = builder.sub(count_, ir.Constant(count_.type, 1))

        def widened(number, kind):
            return number if number.type == kind else builder.fpext(number, kind)

        def through(offsets):
            row = None if offsets is None else [rows.load(plus(builder, left_at_, v)) for v in offsets]

            def products(places):
                """Products of as many samples as there are lanes."""
                ats = [builder.mul(indices.integer(builder.add(first_, place), length_), step_) for place in places]
                if row is None:
                    sums = [cgutils.alloca_once_value(builder, zero) for _ in ats]
                    pairs = builder.and_(length_, ir.Constant(length_.type, -2 * to.lanes))
                    for first, end, vectors in ((zero_of(length_), pairs, 2), (pairs, length_, 1)):
                        with loop(builder, first, end, vectors * to.lanes) as (v, _):
                            places = [plus(builder, v, e * to.lanes) for e in range(vectors)]
                            row_parts = [rows.load(builder.add(left_at_, place)) for place in places]
                            for total, other in zip(sums, ats, strict=True):
                                parts = [others.load(builder.add(other, place)) for place in places]
                                product = chain(builder, list(zip(row_parts, parts, strict=True)))
                                builder.store(builder.fadd(builder.load(total), product, flags=FLAGS), total)
                    found = [builder.load(total) for total in sums]
                else:
                    found = [
                        chain(
                            builder,
                            [(x, others.load(plus(builder, at, v))) for x, v in zip(row, offsets, strict=True)],
                        )
                        for at in ats
                    ]
                group = 1
                while len(found) > 1:  # every vector of the next round holds sums of `group` lanes of two of this one
                    found = [add_groups(builder, a, b, group) for a, b in zip(found[::2], found[1::2], strict=True)]
                    group *= 2
                return found[0]

            with loop(builder, zero_of(count_), count_, to.lanes) as (j, _):
                places = [plus(builder, j, e) for e in range(to.lanes)]  # the last sample again where there are no more
                places = [builder.select(builder.icmp_signed("<", p, last), p, last) for p in places]
                found = products(places)
                with builder.if_else(builder.icmp_signed("<", j, whole)) as (all_of_them, some):
                    with all_of_them:
                        error = builder.fsub(found, known.load(builder.add(values_at_, j)), flags=FLAGS)
                        to.store(error, builder.add(at_, j))
                        error = widened(error, double)
                        builder.store(add_scaled(builder, builder.load(squares), error, error), squares)
                    with some:
                        builder.store(found, last_ones)

        by_length(builder, length_, to.lanes, through, lambda: through(None), SUM_VECTORS)
        with loop(builder, whole, count_, 1) as (j, _):
            found = builder.extract_element(builder.load(last_ones), builder.sub(j, whole))
            error = builder.fsub(found, known.scalar(builder.add(values_at_, j)), flags=FLAGS)
            to.store_scalar(error, builder.add(at_, j))
            error = widened(error, ir.DoubleType())
            builder.store(add_scaled(builder, builder.load(rest), error, error), rest)
        return builder.fadd(add_lanes(builder, builder.load(squares)), builder.load(rest), flags=FLAGS)

    return types.float64(
        errors, at, left, left_at, table, step, index, first, count, values, values_at, length
    ), generate
