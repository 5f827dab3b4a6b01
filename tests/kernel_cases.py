"""Problems that kernels are tried on, and what a fast form has to agree with its reference twin on; see tests/contracts."""

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from dmf.arrays.backend import to_host

from helpers import seeds

WEIGHTED = [3, 8, 20, 100, 200]  # widths of weighted regressions: one vector, two or four samples at a time, BLAS
RANKS = [1, 3, 5, 10, 70, 110]  # 70: more numbers than the registers hold; 110: rows worked through in blocks


def numbers(rng, shape, dtype):
    """Numbers of both signs and of sizes from 1e-3 to 1e3."""
    return (rng.standard_normal(shape) * 10 ** rng.uniform(-3, 3, shape)).astype(dtype)


def arranged(array, layout):
    """The same numbers in another memory layout."""
    if layout == "Fortran":
        return np.asfortranarray(array)
    if layout == "strided":
        wide = np.zeros((2 * array.shape[0], 3 * array.shape[1]), array.dtype)
        wide[::2, 1::3] = array
        return wide[::2, 1::3]
    if layout == "reversed":
        return array[::-1, ::-1].copy()[::-1, ::-1]
    return array


layouts = st.sampled_from(["C", "Fortran", "strided", "reversed"])


@st.composite
def problems(draw, dtype, ranks=RANKS):
    """Positions (sorted; repeated where there are many), values, factors in any layout; m = 0, one row or column too."""
    d1, d2, rank = draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.sampled_from(ranks))
    rng = np.random.default_rng(draw(seeds))
    positions = np.sort(rng.integers(0, d1 * d2, draw(st.integers(0, 60))))
    rows, cols = (index.astype(np.int32) for index in np.divmod(positions, d2))
    left = arranged(numbers(rng, (d1, rank), dtype), draw(layouts))
    right = arranged(numbers(rng, (rank, d2), dtype), draw(layouts))
    return rows, cols, numbers(rng, positions.size, dtype), left, right


def total(positions, count, terms):
    """Sums of the terms (m, r) of each position, in float64."""
    result = np.zeros((count, terms.shape[1]))
    np.add.at(result, positions, terms)
    return result


def assert_close(actual, expected, bound):
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    np.testing.assert_array_less(np.abs(actual.astype(np.float64) - expected), bound)


def check_sampled_product(twin, fast, dtype, problem):
    """The bound: rank + 2 roundings for each term."""
    rows, cols, _, left, right = problem
    expected, actual = twin(left, right, rows, cols), fast(left, right, rows, cols)
    terms = np.sum(np.abs(left.astype(float))[rows] * np.abs(right.astype(float)).T[cols], axis=1)
    assert_close(actual, expected, (left.shape[1] + 2) * np.finfo(dtype).eps * terms + np.finfo(dtype).tiny)


def check_sampled_entries(twin, fast, dtype, problem):
    """The bounds: a term has one rounding for each summand before it, and 3 more; those of the residual are its own."""
    rows, cols, values, left, right = problem
    (d1, rank), d2 = left.shape, right.shape[1]
    twin, fast = (form(rows, cols, (d1, d2)) for form in (twin, fast))
    eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
    big_left, big_right = np.abs(left.astype(float))[rows], np.abs(right.astype(float)).T[cols]
    n_row, n_col = (np.bincount(p, minlength=n) for p, n in ((rows, d1), (cols, d2)))
    product = np.sum(big_left * big_right, axis=1)
    assert_close(fast.product(left, right), twin.product(left, right), (rank + 2) * eps * product + tiny)

    def check_pair(actual, expected, sizes, roundings):
        sizes = sizes[:, None]
        assert_close(
            actual[0], expected[0], (n_row + roundings)[:, None] * eps * total(rows, d1, sizes * big_right) + tiny
        )
        assert_close(actual[1], expected[1], (n_col + roundings) * eps * total(cols, d2, sizes * big_left).T + tiny)

    check_pair(fast.adjoint(values, left, right), twin.adjoint(values, left, right), np.abs(values.astype(float)), 3)
    for form in (fast, twin):  # either product alone
        by_row, by_column = form.adjoint(values, left, right)
        prepared = form.prepare(values)
        for _ in range(2):
            for ours, again in zip((by_row, by_column), form.adjoint(prepared, left, right), strict=True):
                np.testing.assert_array_equal(ours, again)
        np.testing.assert_array_equal(form.adjoint(values, left[:, :0], right)[0], by_row)
        np.testing.assert_array_equal(form.adjoint(values, left, right[:0, :])[1], by_column)
    loss, *actual = fast.residual(values, left, right)
    expected_loss, *expected = twin.residual(values, left, right)
    sizes = product + np.abs(values.astype(float))
    check_pair(actual, expected, sizes, rank + 5)
    assert loss.dtype == np.float64
    bound = (2 * rank + 6) * eps + (values.size + 2) * np.finfo(np.float64).eps
    assert abs(loss - expected_loss) <= bound * 0.5 * np.sum(sizes**2)


@st.composite
def dense_problems(draw, dtype):
    """Matrices in any layout, all or distinct ones of them, also none; sizes on both sides of a block and of a chunk."""
    count, size = draw(st.integers(0, 150)), draw(st.sampled_from([1, 7, 8, 16, 29, 100]))
    rng = np.random.default_rng(draw(seeds))
    matrices = arranged(numbers(rng, (count, size), dtype), draw(layouts))
    matrices.flags.writeable = draw(st.booleans())
    rows = draw(st.sampled_from([None, np.flatnonzero(rng.random(count) < 0.5)]))
    values = numbers(rng, (count if rows is None else rows.size, 2), dtype)[:, draw(st.integers(0, 1))]
    return matrices, rows, values, numbers(rng, (size, 2), dtype)[:, draw(st.integers(0, 1))]


def check_dense_residual(twin, fast, dtype, problem):
    """The bounds: a residual has one rounding for each summand and 2 more, a term of the gradient one for each after it."""
    matrices, rows, values, matrix = problem
    (loss, gradient), (expected_loss, expected) = fast(*problem), twin(*problem)
    used = np.abs(matrices.astype(float))[slice(None) if rows is None else rows]
    sizes = used @ np.abs(matrix.astype(float)) + np.abs(values.astype(float))
    count = matrix.size + values.size + 4
    bound = count * np.finfo(dtype).eps * (sizes @ used) + np.finfo(dtype).tiny
    assert_close(gradient, expected, bound)
    assert loss.dtype == np.float64
    assert abs(loss - expected_loss) <= (2 * count * np.finfo(dtype).eps) * 0.5 * np.sum(sizes**2)


def problems_of(name, dtype, ranks=RANKS):
    dense = {"dense_residual": dense_problems, "restricted_map": restricted_problems}
    return dense[name](dtype) if name in dense else problems(dtype, ranks)


def strided(array, layout):
    """The same numbers in another memory layout."""
    if layout == "strided":
        wide = np.zeros((2 * array.shape[0], *(3 * n for n in array.shape[1:])), array.dtype)
        view = wide[(slice(None, None, 2), *[slice(1, None, 3)] * (array.ndim - 1))]
        view[:] = array
        return view
    return {"C": np.ascontiguousarray, "Fortran": np.asfortranarray, "reversed": lambda a: a[::-1].copy()[::-1]}[
        layout
    ](array)


@st.composite
def ridge_problems(draw, dtype, widths, least_penalty=0.1):
    """Positions (sorted, repeated; none; whole rows and columns of none) and arguments of `ridge`.

    Columns of the factor have norms from 0.1 to 10, and penalties of at least `least_penalty` times their squares: what the
    kernels compute does not depend on the scales of the columns, apart from that.
    """
    d1, d2, width = draw(st.integers(1, 20)), draw(st.integers(1, 9)), draw(st.sampled_from(widths))
    rng = np.random.default_rng(draw(seeds))
    positions = np.sort(rng.integers(0, d1 * d2, draw(st.integers(0, 100))))
    rows, cols = (index.astype(np.int32) for index in np.divmod(positions, d2))
    side = draw(st.sampled_from([0, 1]))
    scale = 10 ** rng.uniform(-1, 1, width)
    given_factor = rng.standard_normal(((d1, d2)[1 - side], width)) * scale
    penalty = max(positions.size, 1) * least_penalty * 10 ** rng.uniform(0, 2, width) * scale**2
    variances = rng.uniform(0, 1, given_factor.shape) * scale**2 if draw(st.booleans()) else None
    values = 10 ** rng.uniform(-3, 3) * rng.standard_normal(positions.size)
    means = rng.standard_normal(((d1, d2)[side], width)) / scale if draw(st.booleans()) else None
    weighted = width in WEIGHTED and draw(st.booleans())
    roots = 10 ** rng.uniform(-1, 0, positions.size) if weighted else None
    arrays = [
        None if array is None else strided(array.astype(dtype), draw(layouts))
        for array in (values, given_factor, penalty, variances, means, roots)
    ]
    return (rows, cols, (d1, d2)), (side, *arrays)


def designs(positions, arguments):
    """For each row: rows of the factor that its samples meet, times the roots of their weights, their values, added and
    penalised diagonal, mean; in float64.
    """
    (rows, cols, shape), (side, values, factor, penalty, variances, means, roots) = positions, arguments
    mine, other = (rows, cols) if side == 0 else (cols, rows)
    values, factor, penalty = (a.astype(np.float64) for a in (values, factor, penalty))
    roots = np.ones(rows.size) if roots is None else roots.astype(np.float64)
    for i in range(shape[side]):
        chosen, scale = other[mine == i], roots[mine == i][:, None]
        added = np.zeros_like(penalty) if variances is None else (scale**2 * variances.astype(float)[chosen]).sum(0)
        mean = np.zeros_like(penalty) if means is None else means[i].astype(float)
        yield scale * factor[chosen], values[mine == i], added, penalty, mean


def ridge_roundings(design, dtype):
    """Of a normal matrix, its Cholesky factor and a solution; not sharp: each is the length of the sums in it, or two."""
    count, width = design.shape
    return (2 * count + 8 * width + 40) * np.finfo(dtype).eps


def check_rows(rows, positions, arguments, dtype):
    """Backward error: ``|N x - D^T y|`` within rounding of the sizes of N, x and the target, however singular N is."""
    for row, (design, target, added, penalty, mean) in zip(
        to_host(rows).astype(float), designs(positions, arguments), strict=True
    ):
        diagonal = np.sum(design**2, axis=0) + added + penalty
        residual = design.T @ (design @ row - target) + added * row + penalty * (row - mean)
        root = np.sqrt(diagonal)
        lengths = np.linalg.norm(root * row) + np.linalg.norm(root * mean)
        bound = root * (lengths * row.size + np.linalg.norm(target))
        np.testing.assert_array_less(np.abs(residual), ridge_roundings(design, dtype) * bound + np.finfo(dtype).tiny)


def check_result(result, positions, arguments, dtype):
    """Types, shapes, and that sums and variances are those of the rows."""
    rows, inverses, square, uncertainty, freedom = result
    side, factor = arguments[0], arguments[2]
    assert rows.shape == (positions[2][side], factor.shape[1])
    assert rows.dtype == dtype
    assert all(isinstance(number, float) for number in (square, uncertainty, freedom))
    expected = np.zeros(3)
    sizes = np.zeros(3)
    for i, (design, target, added, penalty, _) in enumerate(designs(positions, arguments)):
        row = rows[i].astype(float)
        size = np.abs(design) @ np.abs(row) + np.abs(target)
        expected[0] += np.sum((design @ row - target) ** 2)
        sizes[0] += size @ size * ridge_roundings(design, dtype)
        if inverses is None:
            continue
        diagonal = np.sum(design**2, axis=0) + added
        exact = 1 / (diagonal + penalty)
        np.testing.assert_allclose(inverses[i], exact, rtol=2 * ridge_roundings(design, dtype))
        expected[1:] += row**2 @ added, diagonal @ exact
        sizes[1:] += np.array([row**2 @ added, diagonal @ exact]) * ridge_roundings(design, dtype)
    assert np.all(np.abs([square, uncertainty, freedom] - expected) <= 4 * sizes)


def check_ridge_results(results, positions, arguments, dtype):
    """Two forms agree: solutions differ by rounding times the condition of the normal matrix, diagonal scaled to 1.

    Bound of row i: ``cond (roundings) |x|`` in the scaled coordinates, plus that of the target; both forms within it.
    """
    for result in results:
        assert (result[1] is None) == (arguments[4] is None)
        check_rows(result[0], positions, arguments, dtype)
        check_result(result, positions, arguments, dtype)
    one, two = (result[0].astype(float) for result in results)
    for i, (design, target, added, penalty, mean) in enumerate(designs(positions, arguments)):
        normal = design.T @ design + np.diag(added + penalty)
        scale = 1 / np.sqrt(np.diag(normal))
        inverse = np.linalg.norm(np.linalg.inv(normal * scale * scale[:, None]), 2)
        lengths = np.linalg.norm(one[i] / scale) + np.linalg.norm(mean / scale)
        length = lengths * scale.size + np.linalg.norm(target)
        bound = 2 * inverse * np.sqrt(scale.size) * ridge_roundings(design, dtype) * length
        assert np.linalg.norm((one[i] - two[i]) / scale) <= bound + np.finfo(dtype).tiny


def check_nearly_singular(form, positions, arguments, dtype):
    """The solution satisfies its equations to rounding, and inverses are positive."""
    assume(positions[0].size > 0)
    rows, inverses, *sums = form(*positions).ridge(*arguments)
    assert np.isfinite(rows).all()
    assert np.isfinite(sums).all()
    check_rows(rows, positions, arguments, dtype)
    if inverses is not None:
        assert np.isfinite(inverses).all()
        assert np.all(inverses > 0)


@st.composite
def restricted_problems(draw, dtype):
    """Matrices in any layout, all or some of them, also none; one factor or both, of rows on both sides of the widest."""
    count, d1, d2 = draw(st.integers(0, 40)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng, width = np.random.default_rng(draw(seeds)), draw(st.sampled_from([1, 3, 30]))
    matrices = arranged(numbers(rng, (count, d1 * d2), dtype), draw(layouts))
    matrices.flags.writeable = draw(st.booleans())
    rows = draw(st.sampled_from([None, np.flatnonzero(rng.random(count) < 0.5)]))
    left, right = (arranged(numbers(rng, (size, width), dtype), draw(layouts)) for size in (d1, d2))
    left, right = draw(st.sampled_from([(left, right), (None, right), (left, None)]))
    return matrices, rows, (d1, d2), left, right


def check_restricted_map(twin, fast, dtype, problem):
    """A number of the design is a sum of as many products as the matrices have rows or columns."""
    matrices, rows, shape, *factors = problem
    sizes = (
        np.abs(matrices.astype(float)),
        rows,
        shape,
        *(None if f is None else np.abs(f.astype(float)) for f in factors),
    )
    bound = 2 * (max(shape) + 1) * np.finfo(dtype).eps * twin(*sizes) + np.finfo(dtype).tiny
    assert_close(fast(*problem), twin(*problem), bound)


def check_infinite_rows(form, dtype):
    """A diverging run meets infinities: rows and columns without them keep their numbers."""
    rows, cols = np.array([0, 0, 1], np.int32), np.array([0, 1, 1], np.int32)
    left, right = np.ones((2, 5), dtype), np.ones((5, 3), dtype)
    left[0] = np.inf
    _, grad_left, grad_right = form(rows, cols, (2, 3)).residual(np.zeros(3, dtype), left, right)
    np.testing.assert_array_equal(grad_left, [[np.inf] * 5, [5] * 5])
    np.testing.assert_array_equal(grad_right[:, 2], 0)


CHECKS = {
    "sampled_product": check_sampled_product,
    "SampledEntries": check_sampled_entries,
    "dense_residual": check_dense_residual,
    "restricted_map": check_restricted_map,
}
