"""Damaged files of every kind: a DmfError or a result, in little time and memory, whatever the damage."""

import io
import resource
import time
import warnings
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse

import dmf
from dmf.errors import DmfError
from dmf.io.archive import read_archive, write_archive
from dmf.io.idx import read_idx
from dmf.io.matrices import read_entries, read_sensing
from dmf.io.pairs import read_pairs
from dmf.models.drift import Drift, Path
from dmf.solvers import Checkpoint
from dmf.solvers.loop import run as run_loop

from helpers import observe, start
from matrix_files import COORDINATE, MTX
from solver_cases import SOLVERS, Cut, KilledError

SLACK = 2**26  # bytes beside ten times what the unharmed file decodes to
SECONDS = 5
NUMBERS = [0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1]


def saved(write):
    file = io.BytesIO()
    write(file)
    return file.getvalue()


def entries():
    rng = np.random.default_rng(0)
    rows, cols = np.divmod(rng.choice(600, 200, replace=False), 20)
    return rows, cols, rng.standard_normal(200).round(3)


def delimited(separator, header, folder):
    lines = [separator.join(("user", "item", "rating"))] * header
    lines += [
        separator.join((f"u{i}", f'"i {j}"' if separator == "," else f"i{j}", str(v)))
        for i, j, v in zip(*entries(), strict=True)
    ]
    return ("\n".join(lines) + "\n").encode()


def dated(folder):
    days = [f"2024-01-{1 + k % 31:02} 12:{k % 60:02}" if k % 2 else f"{k / 7}" for k in range(200)]
    lines = [f"u{i},i{j},{v},{day}" for i, j, v, day in zip(*entries(), days, strict=True)]
    return "\n".join(["user,item,rating,when", *lines, ""]).encode()


def drifting(folder):
    """A small model, whose rows and columns drift."""
    rows, cols, values = entries()
    known = dmf.SampledEntries(rows, cols, values, (30, 20), times=np.arange(200.0))
    sizes = np.array([[1.0, 0.1], [20.0, 3.0]])
    points = [np.unique(index, return_counts=True)[1] for index in (rows, cols)]
    paths = [
        Path(np.append(0, np.cumsum(n)), np.arange(200.0), np.ones(200, int), np.ones((200, 2)), sizes) for n in points
    ]
    replace(dmf.complete(known, offsets=True), drift=Drift(*paths)).save(folder / "whole.npz")
    return (folder / "whole.npz").read_bytes()


def table(folder):
    matrix = np.full((30, 20), np.nan)
    matrix[entries()[0], entries()[1]] = entries()[2]
    lines = [",".join(["time", *(f"s{k}" for k in range(20))])]
    lines += [
        ",".join([str(1704067200 + i), *("" if np.isnan(v) else str(v) for v in row)]) for i, row in enumerate(matrix)
    ]
    return ("\n".join(lines) + "\n").encode()


def sparse(kind, folder):
    rows, cols, values = entries()
    matrix = scipy.sparse.coo_array((values, (rows, cols)), shape=(30, 20)).asformat(kind)
    return saved(lambda file: scipy.sparse.save_npz(file, matrix))


def coordinate(folder):
    return (
        COORDINATE + "30 20 200\n" + "".join(f"{i + 1} {j + 1} {v}\n" for i, j, v in zip(*entries(), strict=True))
    ).encode()


def array(folder):
    return (MTX + "array real symmetric\n20 20\n" + "".join(f"{k / 7}\n" for k in range(210))).encode()


def parquet(folder):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows, cols, values = entries()
    columns = pa.table({"user": [f"u{i}" for i in rows], "item": cols, "rating": values})
    return saved(lambda file: pq.write_table(columns, file, row_group_size=80))


def archive(folder):
    header = {"format": "some", "shapes": [[3, 4], [5, 6]], "names": ["a", "b"] * 20, "nested": {"a": [1.5, None]}}
    write_archive(folder / "model.npz", header, {"u": np.eye(9), "history": np.arange(5)})
    return (folder / "model.npz").read_bytes()


def sensing(folder):
    return saved(lambda file: np.savez_compressed(file, A=np.ones((20, 5, 4)), y=np.arange(20.0)))


def checkpoint(folder):
    """Of a run that is half done."""
    with pytest.raises(KilledError):
        run_loop(
            Cut(DESCENT, 3), OBSERVED, start(OBSERVED), iterations=6, checkpoint=Checkpoint(folder / "c", seconds=0)
        )
    return (folder / "c").read_bytes()


def resumed(path):
    """What the rest of the run makes of it; the state before the last one does not stand in for it."""
    path.with_name(f"{path.name}.previous").unlink(missing_ok=True)
    with np.errstate(all="ignore"):
        return run_loop(DESCENT, OBSERVED, start(OBSERVED), iterations=6, checkpoint=path, resume=True).network.weights


OBSERVED, DESCENT = observe("entries"), SOLVERS["gradient descent"]
READERS = {
    "checkpoint": ("c.npz", checkpoint, resumed),
    "npy": ("x.npy", lambda folder: saved(lambda file: np.save(file, np.eye(30))), read_entries),
    "npz": ("x.npz", lambda folder: saved(lambda file: np.savez_compressed(file, np.eye(30))), read_entries),
    "triplets": (
        "x.npz",
        lambda folder: saved(
            lambda file: np.savez(file, **dict(zip(("rows", "cols", "values"), entries(), strict=True)))
        ),
        read_entries,
    ),
    "coo": ("x.npz", lambda folder: sparse("coo", folder), read_entries),
    "csr": ("x.npz", lambda folder: sparse("csr", folder), read_entries),
    "coordinate": ("x.mtx", coordinate, read_entries),
    "array": ("x.mtx", array, read_entries),
    "csv": ("x.csv", lambda folder: delimited(",", True, folder), read_entries),
    "double colons": ("x.dat", lambda folder: delimited("::", False, folder), read_entries),
    "table": ("x.csv", table, lambda path: read_entries(path, keep_text=True)),
    "pairs": ("x.csv", lambda folder: delimited("\t", True, folder), lambda path: read_pairs(path, {"u1"}, {"i1"})),
    "parquet": ("x.parquet", parquet, read_entries),
    "times": ("x.csv", dated, lambda path: read_entries(path, time="when")),
    "model with drift": ("m.npz", drifting, lambda path: dmf.load(path).model),
    "archive": ("x.npz", archive, read_archive),
    "measurements": ("x.npz", sensing, read_sensing),
    "idx": (
        "x.idx",
        lambda folder: b"\0\0\x08\3" + b"".join(n.to_bytes(4, "big") for n in (5, 8, 8)) + bytes(320),
        lambda path: read_idx(path, 3),
    ),
}


def mutant(content, rng):
    """The content with one to four places changed; of zip files, half of the time the members before they are packed."""
    if content.startswith(b"PK") and rng.random() < 0.5:
        with zipfile.ZipFile(io.BytesIO(content)) as source:
            members = [(m.filename, source.read(m), m.compress_type) for m in source.infolist()]
        chosen = int(rng.integers(len(members)))
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as target:
            for k, (name, data, method) in enumerate(members):
                target.writestr(name, mutant(data, rng) if k == chosen else data, method)
        return out.getvalue()
    content = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        at = (
            int(rng.integers(len(content) + 1)) if rng.random() < 0.6 else int(rng.integers(min(len(content), 200) + 1))
        )
        size = int(rng.choice([1, 2, 4, 8, 40]))
        match rng.integers(7):
            case 0:
                content[at : at + size] = rng.bytes(size)
            case 1:
                del content[at : at + size]
            case 2:
                content[at:at] = rng.bytes(size)
            case 3:
                del content[at:]
            case 4:
                content[at:at] = content[at : at + 16 * size] * int(rng.choice([1, 20]))
            case 5:
                number = int(rng.choice(np.array(NUMBERS, dtype=np.uint64)))
                width = min(size, 8)
                content[at : at + width] = (number & (2 ** (8 * width) - 1)).to_bytes(width, "little")
            case 6:
                words = [
                    b"nan",
                    b"inf",
                    b"-1",
                    b"1e999",
                    b"9" * 30,
                    b",",
                    b'"',
                    b"\n",
                    b"\x1b[31m",
                    b"0.5",
                    b"%",
                    b"NA",
                ]
                content[at:at] = words[int(rng.integers(len(words)))]
    return bytes(content)


def size_of(found):
    """Bytes of what a file decodes to."""
    if isinstance(found, np.ndarray):
        return found.nbytes
    if isinstance(found, (tuple, list)):
        return sum(map(size_of, found))
    if isinstance(found, dict):
        return sum(map(size_of, found.values()))
    if hasattr(found, "__dict__"):
        return sum(map(size_of, vars(found).values()))
    return len(found) + 50 if isinstance(found, str) else 0


def address_space():
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[0]) * resource.getpagesize()


def run(name, count, folder):
    """Read `count` mutants; everything but a result or a DmfError, in bounded time and memory, is a failure."""
    file_name, make, read = READERS[name]
    content, path, rng = make(folder), folder / file_name, np.random.default_rng(list(name.encode()))
    path.write_bytes(content)
    limit = 10 * size_of(read(path)) + SLACK  # which imports what is needed, too
    refused, (soft, hard) = 0, resource.getrlimit(resource.RLIMIT_AS)
    for k in range(count):
        damaged = mutant(content, rng)
        path.write_bytes(damaged)
        begin = time.process_time()
        resource.setrlimit(resource.RLIMIT_AS, (address_space() + limit, hard))
        try:
            read(path)
        except DmfError as error:
            refused += 1
            assert str(error).isprintable() or "\n" in str(error)
            assert 20 < len(str(error)) < 1500
        except BaseException:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
            (folder / f"failed-{k}-{file_name}").write_bytes(damaged)
            raise
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        assert time.process_time() - begin < SECONDS
    assert refused > 0


@pytest.mark.parametrize("name", READERS)
def test_a_few_damaged_files(name, tmp_path):
    run(name, 200, tmp_path)


@pytest.mark.campaign
@pytest.mark.parametrize("name", READERS)
def test_many_damaged_files(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(name, 4_000, tmp_path)
