"""Reduced-order models: oblique projection, POD and balanced truncation of one system; autoencoders of handwritten digits.

python benchmarks/reduced_models.py writes benchmarks/results/reduced_models.json. The system is a chain of 30 states, stable, not
normal, driven at one end and read at the other; errors are those of its impulse response, relative, in the 2-norm. Digits are
scikit-learn's, 64 numbers each, coded as 8: mean squares of what is left out on the third that was not trained on.
"""

import json
import time
from pathlib import Path

import numpy as np
import scipy.linalg

import dmf
from dmf.nonlinear import Adam, Network, Samples, biorthogonal_autoencoder, train


def chain(n=30, steps=400, step=0.05):
    """A, b, c, snapshots of the impulse response and of the adjoint one."""
    a = np.diag(-np.linspace(0.5, 5, n)) + np.diag(np.full(n - 1, 4.0), 1)
    b, c = np.zeros((n, 1)), np.zeros((1, n))
    b[-5:, 0], c[0, :3] = [1, -2, 0.5, 1, -1], 1
    once = scipy.linalg.expm(step * a)
    states, adjoint = [b], [c.T]
    for _ in range(steps):
        states.append(once @ states[-1])
        adjoint.append(once.T @ adjoint[-1])
    return a, once, c, np.hstack(states), np.hstack(adjoint)


def balanced(a, b, c, rank):
    """Decoder and encoder of balanced truncation, from the Gramians that scipy.linalg's Lyapunov solver finds."""
    roots = []
    for operator, source in ((a, b), (a.T, c.T)):
        gramian = scipy.linalg.solve_continuous_lyapunov(operator, -source @ source.T)
        values, vectors = np.linalg.eigh((gramian + gramian.T) / 2)
        roots.append(vectors * np.sqrt(np.maximum(values, 0)))
    u, s, vt = np.linalg.svd(roots[1].T @ roots[0])
    return roots[0] @ vt[:rank].T / np.sqrt(s[:rank]), (u[:, :rank] / np.sqrt(s[:rank])).T @ roots[1].T


def systems():
    """Errors of the three projections at several ranks."""
    a, once, c, states, adjoint = chain()
    truth, rows = (c @ states)[0], []

    def error(decoder, encoder):
        reduced, z, response = encoder @ once @ decoder, encoder @ states[:, :1], []
        for _ in truth:
            response.append((c @ decoder @ z)[0, 0])
            z = reduced @ z
        return float(np.linalg.norm(response - truth) / np.linalg.norm(truth))

    for rank in (2, 4, 6, 8, 10):
        oblique = dmf.oblique_projection(states, adjoint, rank)
        pod = np.linalg.svd(states)[0][:, :rank]
        defect = float(np.abs(oblique.encoder @ oblique.decoder - np.eye(rank)).max())
        rows.append(
            {"rank": rank, "oblique": error(oblique.decoder, oblique.encoder), "pod": error(pod, pod.T)}
            | {"balanced_truncation": error(*balanced(a, states[:, :1], c, rank)), "defect_of_ED": defect}
        )
    return rows


def digits(size=8, iterations=3000):
    """Mean squares left out by principal components and by biorthogonal autoencoders, and how well encoding undoes decoding."""
    from sklearn.datasets import load_digits

    data = load_digits().data / 16
    order = np.random.default_rng(0).permutation(len(data))
    cut = 2 * len(data) // 3
    seen, held = data[order[:cut]], data[order[cut:]]
    centre = seen.mean(axis=0)
    basis = np.linalg.svd(seen - centre, full_matrices=False)[2][:size]
    left = (held - centre) - (held - centre) @ basis.T @ basis
    rows = [{"model": "principal components", "left_out": float(np.mean(left**2))}]
    for sizes in ((size,), (32, size), (32, 16, size)):
        start, worst = biorthogonal_autoencoder(seen, sizes), []

        def inverse(snapshot, worst=worst):
            layer = snapshot.network.layers[0]
            z = layer.encode(seen[:20])
            worst.append(float(np.abs(layer.encode(layer.decode(z)) - z).max()))

        began = time.perf_counter()
        run = train(
            Network([start]),
            Samples(seen, seen),
            Adam(0.002),
            loss="squared",
            batch_size=100,
            iterations=iterations,
            callback=inverse,
        )
        left = run.network(held) - held
        rows.append(
            {"model": f"autoencoder 64-{'-'.join(map(str, sizes))}", "left_out": float(np.mean(left**2))}
            | {"worst_inverse": max(worst), "seconds": round(time.perf_counter() - began, 1)}
        )
    return rows


def main():
    """Run both, print and write."""
    results = {"system": systems(), "digits": digits()}
    for rows in results.values():
        for row in rows:
            print(row, flush=True)
    (Path(__file__).parent / "results" / "reduced_models.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
