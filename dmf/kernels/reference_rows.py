"""Reference twin of the E-step of Gaussian mixtures on a table with holes, in plain array code."""

from __future__ import annotations

import numpy as np


def gaussian_rows(table, order, starts, index, missing, weights, shares, means, covariances, learn):
    """Conditional moments of what is missing in each row, and what an M-step needs of them.

    Parameters
    ----------
    table : array, shape (n, d), float64
        What stands at missing places is not read.
    order : array of int, shape (n,)
        Rows, those with the same holes one after another.
    starts : array of int, shape (p + 1,)
        Where the rows of each of the p patterns of holes start in `order`.
    index : array of int, shape (p, d)
        Columns, the missing ones of the pattern first.
    missing : array of int, shape (p,)
        How many are missing.
    weights : array, shape (n,)
        How often each row counts.
    shares : array, shape (c,)
        Prior probabilities of the components.
    means : array, shape (c, d)
    covariances : array, shape (c, d, d)
        Positive definite.
    learn : bool
        Whether second moments for an M-step are wanted, or else moments of the rows; the others are empty.

    Returns
    -------
    totals : array, shape (c,)
        Sums of the posterior probabilities r of the components, times the weights.
    sums : array, shape (c, d)
        Sums of r (zhat - mean), zhat the row with its holes filled by their conditional means.
    seconds : array, shape (c, d, d)
        Sums of r ((zhat - mean)(zhat - mean)^T + C), C the conditional covariance of what is missing.
    likelihood : float
        Logarithm of the likelihood of what is observed.
    filled, variances : arrays, shape (n, d)
        Mean and variance of each cell given what is observed of its row; observed cells themselves, and 0.
    """
    (n, d), c = table.shape, len(shares)
    totals, sums = np.zeros(c), np.zeros((c, d))
    seconds = np.zeros((c if learn else 0, d, d))
    filled, variances = np.zeros((0 if learn else n, d)), np.zeros((0 if learn else n, d))
    likelihood, precisions = 0.0, np.linalg.inv(covariances)
    for p, holes in enumerate(missing):
        rows, out, seen = order[starts[p] : starts[p + 1]], index[p, :holes], index[p, holes:]
        deviations, logs = np.zeros((c, len(rows), d)), np.zeros((c, len(rows)))
        conditional = np.linalg.inv(precisions[:, out[:, None], out])
        for k in range(c):
            deviations[k][:, seen] = table[rows][:, seen] - means[k, seen]
            deviations[k][:, out] = -deviations[k][:, seen] @ precisions[k][seen[:, None], out] @ conditional[k]
            squares = np.sum(deviations[k] @ precisions[k] * deviations[k], axis=1)
            logs[k] = np.linalg.slogdet(precisions[k])[1] + np.linalg.slogdet(conditional[k])[1]
            logs[k] += 2 * np.log(shares[k]) - squares - len(seen) * np.log(2 * np.pi)
        logs /= 2
        most = logs.max(axis=0)
        whole = np.exp(logs - most).sum(axis=0)
        likelihood += np.sum(weights[rows] * (most + np.log(whole)))
        parts = np.exp(logs - most) / whole
        scaled = parts * weights[rows]
        totals += scaled.sum(axis=1)
        sums += np.einsum("kn,knd->kd", scaled, deviations)
        if learn:
            seconds += np.einsum("kn,kna,knb->kab", scaled, deviations, deviations)
            seconds[:, out[:, None], out] += scaled.sum(axis=1)[:, None, None] * conditional
        else:
            values = deviations + means[:, None, :]
            filled[rows] = np.einsum("kn,knd->nd", parts, values)
            squares = np.einsum("kn,knd->nd", parts, values**2)
            squares[:, out] += parts.T @ np.diagonal(conditional, axis1=1, axis2=2)
            variances[rows] = np.maximum(squares - filled[rows] ** 2, 0)
            filled[np.ix_(rows, seen)] = table[np.ix_(rows, seen)]
            variances[np.ix_(rows, seen)] = 0
    return totals, sums, seconds, likelihood, filled, variances
