"""Checkpoint files: what they refuse, what survives damage, what several runs in one do."""

import json

import numpy as np
import pytest

import dmf
from dmf.io.archive import read_archive, write_archive
from dmf.solvers import Checkpoint
from dmf.solvers.checkpoints import data_fingerprint
from dmf.solvers.loop import run

from helpers import observe, start
from solver_cases import Cut, KilledError, assert_same_run

ENTRIES = observe("entries")


def descend(observations=ENTRIES, step_size=0.01, seed=17, **options):
    return dmf.gradient_descent(
        observations, start(observations, seed=seed), step_size, reduction="sum", **{"iterations": 6} | options
    )


@pytest.fixture
def path(tmp_path):
    """A run that was killed after 4 iterations."""
    solver = dmf.solvers.descent.GradientDescent(0.01, reduction="sum")
    kept = Checkpoint(tmp_path / "run.npz", seconds=0)
    with pytest.raises(KilledError):
        run(Cut(solver, 4), ENTRIES, start(ENTRIES), iterations=6, checkpoint=kept)
    return tmp_path / "run.npz"


def test_an_existing_checkpoint_is_not_overwritten(path):
    before = path.read_bytes()
    with pytest.raises(dmf.errors.ArgumentError, match="Pass resume=True") as caught:
        descend(checkpoint=path)
    assert caught.value.argument == "checkpoint"
    assert path.read_bytes() == before


def test_there_is_nothing_to_resume_without_a_checkpoint():
    with pytest.raises(dmf.errors.ArgumentError, match="Pass checkpoint=") as caught:
        descend(resume=True)
    assert caught.value.argument == "resume"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"step_size": 0.02}, "step_size"),
        ({"iterations": 7}, "iterations"),
        ({"record_every": 2}, "record_every"),
        ({"tolerance": 1e-9}, "tolerance"),
        ({"seed": 18}, "start model"),
        ({"observations": observe("entries", seed=1)}, "data"),
        ({"observations": ENTRIES.with_values(ENTRIES.values * (1 + 1e-12))}, "data"),
    ],
)
def test_other_data_and_options_are_refused_by_name(path, changed, named):
    before = path.read_bytes()
    with pytest.raises(dmf.errors.ArgumentError, match=f"of something else: .*{named}") as caught:
        descend(checkpoint=path, resume=True, **changed)
    assert list(caught.value.value) == [named]
    assert path.read_bytes() == before


@pytest.mark.parametrize("size", [1e-100, 1.0, 1e90])
def test_data_of_any_size_are_told_apart(size):
    values = size * ENTRIES.values
    other = np.where(np.arange(values.size) == 3, values * (1 + 1e-12), values)
    moved = dmf.SampledEntries(ENTRIES.rows, np.roll(ENTRIES.cols, 1), values, ENTRIES.shape)
    prints = [data_fingerprint(ENTRIES.with_values(v)) for v in (values, values.copy(), other)]
    assert prints[0] == prints[1] and len({*prints, data_fingerprint(moved)}) == 3


@pytest.mark.parametrize("damage", ["cut off", "one byte", "gone"])
def test_the_last_but_one_stands_in_for_a_damaged_file(path, damage, rng):
    content = path.read_bytes()
    place = content.index(b"entry_1.npy") + 500
    if damage == "gone":  # killed between two renamings
        path.unlink()
    else:
        path.write_bytes(
            content[:-100]
            if damage == "cut off"
            else content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        )
    assert_same_run(descend(), descend(checkpoint=path, resume=True))


def test_two_damaged_files_are_an_error(path):
    for file in (path, path.with_name("run.npz.previous")):
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(dmf.errors.FileError, match="cannot read"):
        descend(checkpoint=path, resume=True)


def parts(record):
    """Paths to all that stands in a JSON value."""
    items = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, value in items:
        yield (key,)
        yield from ((key, *rest) for rest in parts(value))


def test_every_part_of_a_header_is_checked(path, rng):
    """Whatever stands in its place is refused, or does not matter: no other error, and nothing that is not finite."""
    header, arrays = read_archive(path)
    values = [None, -1, 2**70, "x", [], {}, 1e300, True, ["array"]]
    for place in [*parts(header)][::4]:
        value = values[rng.integers(len(values))]
        other = json.loads(json.dumps(header))
        target = other
        for key in place[:-1]:
            target = target[key]
        target[place[-1]] = value
        path.with_name("run.npz.previous").unlink(missing_ok=True)
        write_archive(path, other, arrays)
        try:
            found = descend(checkpoint=path, resume=True)
        except dmf.errors.DmfError as error:
            assert str(path) in str(error), (place, value)
        else:
            assert np.isfinite(found.history.loss).all(), (place, value)


@pytest.mark.parametrize("kind", ["folder", "no folder"])
def test_where_nothing_can_be_written_nothing_begins(tmp_path, kind):
    place = tmp_path if kind == "folder" else tmp_path / "none" / "run.npz"
    with pytest.raises(dmf.errors.FileError, match="cannot write"):
        descend(checkpoint=place)


def test_several_runs_share_a_checkpoint(tmp_path):
    """Those that are done are not made again, and the calls must be the same, in the same order."""
    path, sizes = tmp_path / "runs.npz", (0.01, 0.02, 0.03)
    whole = [descend(step_size=size) for size in sizes]

    def killed(snapshot):
        if snapshot.iteration == 3:
            raise KilledError

    kept = Checkpoint(path, seconds=0)
    descend(step_size=sizes[0], checkpoint=kept)
    with pytest.raises(KilledError):
        descend(step_size=sizes[1], checkpoint=kept, callback=killed)
    kept = Checkpoint(path, resume=True)
    for run_, size in zip(whole, sizes, strict=True):
        assert_same_run(run_, descend(step_size=size, checkpoint=kept))
    kept = Checkpoint(path, resume=True)
    with pytest.raises(dmf.errors.ArgumentError, match=r"step_size is 0\.02, there 0\.01"):
        descend(step_size=sizes[1], checkpoint=kept)


def test_what_is_computed_once_is_kept(tmp_path):
    path, calls = tmp_path / "runs.npz", []

    def compute():
        calls.append(len(calls))
        return np.array([[1.0, len(calls)]])

    kept = Checkpoint(path)
    first = [kept.array(compute, part=part) for part in "ab"]
    kept = Checkpoint(path, resume=True)
    for part, found in zip("ab", first, strict=True):
        np.testing.assert_array_equal(kept.array(compute, part=part), found)
    assert len(calls) == 2
    assert kept.array(compute, part="c")[0, 1] == 3
    with pytest.raises(dmf.errors.ArgumentError, match="part is b, there a"):
        Checkpoint(path, resume=True).array(compute, part="b")


@pytest.mark.parametrize(
    "call",
    [
        dmf.solvers.follow_gradient_flow,
        lambda *problem, **options: dmf.solvers.alternating_minimization(problem[0], 2, **options),
        dmf.solvers.refine,
        dmf.solvers.variational_bayes,
        dmf.solvers.continuation,
    ],
    ids=["flow", "alternating", "refine", "bayes", "continuation"],
)
def test_every_solver_takes_a_checkpoint(call, tmp_path):
    path = tmp_path / "run.npz"

    def interrupted(snapshot):
        if snapshot.iteration == 2:
            raise KeyboardInterrupt

    observations = observe("full")
    problem = observations, start(observations, width=2)
    call(*problem, iterations=4, checkpoint=path, callback=interrupted)
    assert_same_run(call(*problem, iterations=4), call(*problem, iterations=4, checkpoint=path, resume=True))
