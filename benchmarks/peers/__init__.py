"""Other ways to complete a matrix, one per module, for comparison.

Every module has ``available() -> (bool, reason)`` and ``solve(case, rank, *, watch=None, threads=2, seed=0, **options)``
that returns factors left (d1, w) and right (d2, w) of the matrix found, and the seconds that this took without reading, compiling
or measuring. `case` holds rows, cols, values and shape; `watch` is a `peers.common.Watch`.
"""
