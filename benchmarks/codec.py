"""Model files of MovieLens-100K at the precision of the posterior: bytes and held-out error, beside full files and other coders.

python benchmarks/codec.py writes benchmarks/results/codec.json. Five seeds, a tenth of the ratings not seen. The peers code the
same whole numbers of steps: zlib and LZMA as bytes, column by column. The rate is that of the streams over the entropy of their
Gaussian distributions.
"""

import json
import lzma
import zlib
from pathlib import Path

import numpy as np
from scipy.stats import norm

import dmf
from dmf.io.archive import read_archive
from dmf.io.matrices import read_entries
from dmf.recovery import codec

from ratings_data import movielens_100k


def whole_numbers(recovery):
    """Of steps, and the scales of their distributions, of rows and of columns."""
    found = []
    for side in codec._sides(recovery.model, recovery.observations, recovery.found.noise):
        octaves, steps = codec._steps(side.deviations)
        step = steps * np.ldexp(1.0, octaves)[:, None]
        sizes = np.sqrt(np.mean(side.numbers**2, axis=0))
        found.append((np.rint(side.numbers / step), np.maximum(sizes / step, codec._LEAST_SCALE), octaves))
    return found


def entropy(whole, scale, octaves):
    """Bits that the distributions say."""
    chance = norm.cdf((whole + 0.5) / scale) - norm.cdf((whole - 0.5) / scale)
    counts = np.unique(octaves, return_counts=True)[1]
    return -np.sum(np.log2(np.maximum(chance, 1e-30))) - np.sum(counts * np.log2(counts / counts.sum()))


def one(ratings, seed, folder):
    kept, held = ratings.split(0.1, seed)
    recovery = dmf.complete(kept, holdout=0.1, seed=seed)
    full, small = folder / "codec_full.npz", folder / "codec_small.dmfz"
    recovery.save(full)
    recovery.save(small, precision="posterior")
    rmse = [
        float(np.sqrt(np.mean((model.predict(held.rows, held.cols) - held.entries) ** 2)))
        for model in (recovery, dmf.load(small))
    ]
    parts = whole_numbers(recovery)
    _, arrays = read_archive(small)
    coded = 4 * (arrays["stream_row"].size + arrays["stream_col"].size)
    as_bytes = b"".join(part[0].astype(np.int16).T.tobytes() for part in parts)
    found = {
        "seed": seed,
        "bytes_full": full.stat().st_size,
        "bytes_small": small.stat().st_size,
        "ratio": full.stat().st_size / small.stat().st_size,
        "rmse_full": rmse[0],
        "rmse_small": rmse[1],
        "rmse_worse_by": rmse[1] / rmse[0] - 1,
        "bytes_factors": coded,
        "bytes_over_entropy": 8 * coded / sum(entropy(*part) for part in parts),
        "bytes_zlib": len(zlib.compress(as_bytes, 9)),
        "bytes_lzma": len(lzma.compress(as_bytes, preset=9)),
    }
    full.unlink()
    small.unlink()
    return found


def main():
    ratings = dmf.SampledEntries.from_entries(read_entries(movielens_100k()))
    folder = Path(__file__).parent / "results"
    rows = []
    for seed in range(5):
        rows.append(one(ratings, seed, folder))
        print(rows[-1], flush=True)
    (folder / "codec.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
