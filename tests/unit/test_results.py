"""What a solver returns: reading it, filling it in, saving it, and loading files of all sorts."""

import io
import json
import os
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dmf
from dmf.backend import to_host
from dmf.io.archive import write_text
from dmf.offsets import Offsets

from helpers import DTYPES, LIBRARIES, observe, random_weights

EPS = np.finfo(float).eps


def make(dtype=np.float64, move=np.asarray, *, offsets=True, ids=True):
    """A model with every field, of a 4 x 3 matrix."""
    rng = np.random.default_rng(0)
    return dmf.Recovery(
        dmf.DeepLinearNetwork(move(w) for w in random_weights(rng, (3, 2, 2, 4), dtype)),
        dmf.History(
            {
                "iteration": np.array([0, 5, 7]),
                "loss": np.array([1.0, 0.1, 0.01]),
                "seconds": np.array([0.0, 0.5, 0.6]),
                "held out": np.array([[1.0, np.nan], [2.0, np.inf], [0.0, 3.0]]),
            }
        ),
        dmf.Status("budget spent", "After 7 iterations: go on. Übrigens: ∞ 😀."),
        Offsets(0.5, move(rng.standard_normal(4).astype(dtype)), move(rng.standard_normal(3).astype(dtype)))
        if offsets
        else None,
        None,
        {"rank": np.int64(2), "rate": np.float32(0.5), "nested": {"a": [1, np.nan, None, True]}, "text": "\ud800"},
        ("a", "b,", 'c"\n', "ü") if ids else None,
        ("x", "y", "") if ids else None,
    )


def assert_equal(one, other):
    assert len(one.network.weights) == len(other.network.weights)
    for a, b in zip(one.network.weights, other.network.weights, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert list(one.history) == list(other.history)
    for name in one.history:
        assert one.history[name].dtype == other.history[name].dtype
        np.testing.assert_array_equal(one.history[name], other.history[name])
    assert one.status == other.status
    assert (one.row_ids, one.col_ids) == (other.row_ids, other.col_ids)
    assert (one.offsets is None) == (other.offsets is None)
    if one.offsets is not None:
        assert one.offsets.mean == other.offsets.mean
        for a, b in ((one.offsets.row, other.offsets.row), (one.offsets.col, other.offsets.col)):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("offsets", [True, False])
@pytest.mark.parametrize("ids", [True, False])
def test_save_and_load_keep_every_field(dtype, offsets, ids, tmp_path):
    model = make(dtype, offsets=offsets, ids=ids)
    model.save(tmp_path / "model.npz")
    loaded = dmf.load(str(tmp_path / "model.npz"))
    assert_equal(loaded, model)
    assert loaded.observations is None
    # NaN is no JSON; it comes back as None
    assert loaded.options == {"rank": 2, "rate": 0.5, "nested": {"a": [1, None, None, True]}, "text": "\ud800"}
    loaded.save(tmp_path / "again.npz")
    assert_equal(dmf.load(tmp_path / "again.npz"), model)


def test_models_of_other_libraries_are_loaded_as_numpy(tmp_path):
    make(move=LIBRARIES["strict"]).save(tmp_path / "model.npz")
    assert_equal(dmf.load(tmp_path / "model.npz"), make())


def test_a_solved_model_survives_the_file(tmp_path):
    observations = observe("entries")
    recovery = dmf.gradient_descent(
        observations,
        dmf.spectral_network(observations, 2),
        0.1,
        iterations=3,
        callback=lambda s: {"empty": np.zeros(0), "iteration squared": s.iteration**2},
    )
    recovery.save(tmp_path / "model.npz")
    loaded = dmf.load(tmp_path / "model.npz")
    assert_equal(loaded, recovery)
    assert loaded.options == recovery.options
    np.testing.assert_array_equal(loaded.filled(observations), recovery.filled())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def saved(folder):
    """The bytes of a model file."""
    make().save(folder / "good.npz")
    return (folder / "good.npz").read_bytes()


def assert_refused(path, match=None):
    with pytest.raises(dmf.FileError, match=match) as caught:
        dmf.load(path)
    assert type(caught.value) is dmf.FileError
    assert str(path) in str(caught.value)


def load_bytes(folder, data):
    path = folder / "changed.npz"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("decile", range(10))
def test_truncated_files(decile, folder, saved):
    assert_refused(load_bytes(folder, saved[: len(saved) * decile // 10]))


@settings(max_examples=25)
@given(data=st.data())
def test_truncation_anywhere(data, folder, saved):
    assert_refused(load_bytes(folder, saved[: data.draw(st.integers(0, len(saved) - 1))]))


@settings(max_examples=150)
@given(data=st.data())
def test_a_changed_byte_is_noticed_or_does_not_matter(data, folder, saved):
    """Most bytes are under a checksum; the rest (dates, attributes) leave the model as it was."""
    changed = bytearray(saved)
    changed[data.draw(st.integers(0, len(saved) - 1))] ^= data.draw(st.integers(1, 255))
    path = load_bytes(folder, changed)
    try:
        loaded = dmf.load(path)
    except dmf.FileError as error:
        assert str(path) in str(error)
    else:
        assert_equal(loaded, make())


@settings(max_examples=50)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused(data, folder):
    assert_refused(load_bytes(folder, data))
    assert_refused(load_bytes(folder, b"PK\x03\x04" + data))


def members(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def archive_of(contents, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return stream.getvalue()


def array_bytes(array, *, allow_pickle=False):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    return stream.getvalue()


def raw_array(literal, body=b""):
    """An npy file with a correct frame around any text as its header."""
    header = literal.encode("latin1")
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


def with_member(data, name, content):
    return archive_of({**members(data), f"{name}.npy": content})


def with_header(data, **changes):
    header = json.loads(np.load(io.BytesIO(members(data)["header.npy"])).tobytes())
    header = {key: value for key, value in {**header, **changes}.items() if value is not ...}
    return with_member(data, "header", array_bytes(np.frombuffer(json.dumps(header).encode(), np.uint8)))


def test_the_tools_of_this_suite_make_files_that_load(folder, saved):
    """Rewritten without a change, the file is good; so what is refused below is refused for its one change."""
    for data in (archive_of(members(saved)), with_header(saved), with_member(saved, "extra", array_bytes(np.ones(2)))):
        assert_equal(dmf.load(load_bytes(folder, data)), make())
    literal = "{'descr': '<f8', 'fortran_order': True, 'shape': (2, 3)}"
    weight = make().network.weights[0]
    good = with_member(saved, "weights_1", raw_array(literal, np.asfortranarray(weight).tobytes(order="F")))
    assert_equal(dmf.load(load_bytes(folder, good)), make())


REQUIRED = [
    "header", "weights_1", "weights_2", "weights_3", "offsets_row", "offsets_col", "history_iteration", "history_loss",
    "history_seconds", "history_held out",
]  # fmt: skip


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_member(name, folder, saved):
    contents = members(saved)
    del contents[f"{name}.npy"]
    assert_refused(load_bytes(folder, archive_of(contents)), "missing|no member")


@pytest.mark.parametrize("name", [name for name in REQUIRED if name != "header"])
def test_a_member_of_another_shape(name, folder, saved):
    """Columns of callbacks may have any shape, but as many rows as the others."""
    array = np.load(io.BytesIO(members(saved)[f"{name}.npy"]))
    others = [array[:1], np.concatenate([array, array]), array.ravel()[0]]
    if name != "history_held out":
        others.append(array[..., None])
    for other in others:
        assert_refused(load_bytes(folder, with_member(saved, name, array_bytes(other))), "shape|length")


@pytest.mark.parametrize("name", ["weights_2", "offsets_row", "offsets_col", "history_loss", "history_seconds"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(name, bad, folder, saved):
    array = np.load(io.BytesIO(members(saved)[f"{name}.npy"]))
    array.flat[-1] = bad
    assert_refused(load_bytes(folder, with_member(saved, name, array_bytes(array))), "NaN|finite")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("weights_1", np.float32),
        ("weights_1", np.int64),
        ("weights_1", ">f8"),
        ("weights_1", np.complex128),
        ("weights_1", "U3"),
        ("offsets_row", np.float32),
        ("history_iteration", np.float64),
        ("history_loss", np.int64),
        ("row_ids", np.int64),
        ("header", "M8[s]"),
    ],
)
def test_a_member_of_another_dtype(name, dtype, folder, saved):
    array = np.load(io.BytesIO(members(saved)[f"{name}.npy"])).astype(dtype)
    assert_refused(load_bytes(folder, with_member(saved, name, array_bytes(array))), "dtype|JSON|codec")


class Bomb:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (pytest.fail, ("a model file was unpickled",))


def test_pickled_objects_are_refused(folder, saved):
    array = np.array([Bomb()], dtype=object)
    for name in ("weights_1", "history_loss", "extra", "header"):
        assert_refused(
            load_bytes(folder, with_member(saved, name, array_bytes(array, allow_pickle=True))), "numbers only"
        )


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_members_are_refused(compression, folder, saved):
    """So a small file cannot fill the memory."""
    assert_refused(load_bytes(folder, archive_of(members(saved), compression)), "compressed")


@pytest.mark.parametrize("name", ["notes.txt", "weights_1.npy"])
def test_members_that_dmf_never_writes(name, folder, saved):
    path = load_bytes(folder, saved)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")  # of zipfile, at a name that is there already
        archive.writestr(name, array_bytes(np.ones((2, 3))))
    assert_refused(path, "unexpected member")


@pytest.mark.parametrize(
    "literal",
    [
        "",
        "1",
        "(" * 300,
        "-" * 5000 + "1",
        "'''",
        "  a\n b",
        "\x00",
        "{[]: 1}",
        "{1: 2, 'a': 3}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2L, 3)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-2, -3)}",
        f"{{'descr': '<f8', 'fortran_order': False, 'shape': (0, {10**30})}}",
        f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({10**9}, 1)}}",
        "{'descr': '<f8', 'fortran_order': 1, 'shape': (2, 3)}",
        "{'descr': ('<f8', (2,)), 'fortran_order': False, 'shape': (3,)}",
        "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (2, 3)}",
        "{'descr': {}, 'fortran_order': False, 'shape': (2, 3)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (2, 3)}",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (2, 3)}",
    ],
)
def test_an_array_with_a_false_header(literal, folder, saved):
    """Under a correct checksum: NumPy's parser of headers raises a dozen kinds of error, or warns and repairs."""
    for body in (b"", bytes(48)):
        assert_refused(load_bytes(folder, with_member(saved, "weights_1", raw_array(literal, body))))


@settings(max_examples=100)
@given(data=st.data())
def test_a_changed_byte_of_an_array_under_a_correct_checksum(data, folder, saved):
    """Whatever loads is finite and of the shapes that the header names."""
    name = data.draw(st.sampled_from(["weights_1.npy", "history_loss.npy", "header.npy", "row_ids.npy"]))
    content = bytearray(members(saved)[name])
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = load_bytes(folder, archive_of({**members(saved), name: bytes(content)}))
    try:
        loaded = dmf.load(path)
    except dmf.FileError as error:
        assert str(path) in str(error)
    else:
        assert loaded.shape == (4, 3)
        assert all(np.isfinite(w).all() for w in loaded.network.weights)
        assert np.isfinite(loaded.history.loss).all()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": "other"}, "its format is 'other'"),
        ({"format": ...}, "its format is None"),
        ({"format_version": 2}, "version is 2; this dmf reads 1"),
        ({"format_version": ...}, "version is None"),
        ({"shapes": []}, "at least one layer"),
        ({"shapes": ...}, "'shapes' is None"),
        ({"shapes": [[2, 3], [2, 2]]}, "offsets_row"),
        ({"shapes": [[2, 3], [2, 2], [4, 2], [9, 4]]}, "'weights_4' is missing"),
        ({"shapes": [[2, 3], [2, 2], [4, "2"]]}, "pairs of integers"),
        ({"shapes": [2, 3]}, "pairs of integers"),
        ({"shapes": [[2, 3], [2, 2], [5, 2]]}, "'weights_3' has shape"),
        ({"dtype": "float32"}, "says 'float32'"),
        ({"dtype": None}, "'dtype' is None"),
        ({"mean": "0"}, "'mean' is '0'"),
        ({"mean": True}, "'mean' is True"),
        ({"mean": float("nan")}, "not a finite number"),
        ({"mean": float("inf")}, "not a finite number"),
        ({"mean": 10**400}, "not a finite number"),
        ({"history": []}, "lacks iteration, loss or seconds"),
        ({"history": "iteration"}, "'history' is 'iteration'"),
        ({"history": ["iteration", "loss", "seconds", "other"]}, "column 'other' is missing"),
        ({"history": ["iteration", "loss", "seconds", {}]}, "column '{}' is missing"),
        ({"status": {}}, "'status' is {}"),
        ({"status": {"reason": "done", "advice": ""}}, "'status' is"),
        ({"status": {"reason": [], "advice": ""}}, "'status' is"),
        ({"status": {"reason": "converged", "advice": 1}}, "'status' is"),
        ({"options": []}, r"'options' is \[\]"),
    ],
)
def test_a_header_that_does_not_fit(changes, match, folder, saved):
    assert_refused(load_bytes(folder, with_header(saved, **changes)), match)


@pytest.mark.parametrize("text", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000, b'{"format": NaN}'])
def test_a_header_that_is_no_json_object(text, folder, saved):
    data = with_member(saved, "header", array_bytes(np.frombuffer(text, np.uint8)))
    assert_refused(load_bytes(folder, data), "JSON|format")


@pytest.mark.parametrize(
    "ids", [["a", "b", "c"], ["a", "b", "c", "c"], ["a", "b", "c", "d", "d"], ["a", "b", "c", 1], {"a": 1}, 4, None]
)
def test_ids_that_are_not_one_different_string_for_each_row(ids, folder, saved):
    data = with_member(saved, "row_ids", array_bytes(np.frombuffer(json.dumps(ids).encode(), np.uint8)))
    assert_refused(load_bytes(folder, data), "row_ids are not 4 different strings")


def test_a_folder_and_nothing_at_all(tmp_path):
    assert_refused(tmp_path, "it is a folder")
    assert_refused(tmp_path / "missing.npz", "No such file")
    assert_refused(tmp_path / "missing" / "model.npz", "No such file")


def test_a_text_file(tmp_path):
    (tmp_path / "model.csv").write_text("1,2,3\n")
    assert_refused(tmp_path / "model.csv", "Pass a model file that dmf wrote")


# Writing: whole or not at all. (The suite may run as root, whom permission bits do not stop.)


def test_saving_over_a_model_replaces_it(tmp_path):
    path = tmp_path / "model.npz"
    make(ids=False).save(path)
    make().save(path)
    assert_equal(dmf.load(path), make())
    assert [p.name for p in tmp_path.iterdir()] == ["model.npz"]


def test_files_get_the_usual_permissions(tmp_path):
    """Not those of a private temporary file."""
    make().save(tmp_path / "model.npz")
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "model.npz").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("name", "match"),
    [(".", "it is a folder. Name a file"), ("missing/model.npz", "a folder that exists"), ("x" * 300, "too long")],
)
def test_a_place_that_cannot_be_written(name, match, tmp_path):
    with pytest.raises(dmf.FileError, match=match):
        make().save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def _fail_midway(error):
    def savez(file, **_):
        file.write(b"half of")
        raise error

    return savez


def _fail(error):
    def replace(*_):
        raise error

    return replace


@pytest.mark.parametrize(
    ("target", "fail"), [("numpy.savez", _fail_midway), ("os.replace", _fail), ("os.fsync", _fail)]
)
def test_a_failing_write_leaves_the_old_file_and_nothing_else(target, fail, tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    make(ids=False).save(path)
    before = path.read_bytes()
    for error, expected in (
        (OSError(28, "No space left on device"), dmf.FileError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, fail(error))
            with pytest.raises(expected, match="No space left" if expected is dmf.FileError else None):
                make().save(path)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["model.npz"]  # noqa: PTH208


def test_text_is_written_the_same_way(tmp_path):
    write_text(tmp_path / "a.txt", "ü\n")
    assert (tmp_path / "a.txt").read_bytes() == "ü\n".encode()
    with pytest.raises(dmf.FileError, match="a folder that exists"):
        write_text(tmp_path / "b" / "a.txt", "")


# Reading


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize("offsets", [True, False])
def test_product_factors_and_predictions_agree(move, offsets):
    """``network + mean + row_i + col_j``, to a few roundings."""
    model = make(move=move, offsets=offsets)
    expected = to_host(model.network.product())
    if offsets:
        expected = expected + 0.5 + to_host(model.offsets.row)[:, None] + to_host(model.offsets.col)
    tolerance = 50 * EPS * np.abs(expected).max()
    np.testing.assert_allclose(to_host(model.product()), expected, rtol=0, atol=tolerance)
    left, right = map(to_host, model.factors())
    np.testing.assert_allclose(left @ right, expected, rtol=0, atol=tolerance)
    rows, cols = np.divmod(np.arange(12), 3)
    for index in (np.int32, np.int64, np.uint64):
        predicted = model.predict(move(rows.astype(index)), move(cols.astype(index)))
        np.testing.assert_allclose(to_host(predicted), expected.ravel(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
def test_filled_keeps_observed_entries_and_means_of_repeated_ones(move):
    observations = dmf.SampledEntries(
        move(np.array([0, 3, 0, 3, 3])),
        move(np.array([1, 2, 1, 2, 0])),
        move(np.array([1.0, 3.0, 2.0, 6.0, 9.0])),
        (4, 3),
    )
    model = make(move=move)
    filled, product = to_host(model.filled(observations)), to_host(model.product())
    assert filled[0, 1] == 1.5
    assert filled[3, 2] == 4.5
    assert filled[3, 0] == 9.0
    others = np.ones((4, 3), bool)
    others[[0, 3, 3], [1, 2, 0]] = False
    np.testing.assert_array_equal(filled[others], product[others])


def test_filled_needs_observations_of_the_same_shape():
    with pytest.raises(dmf.ArgumentError, match=r"Pass filled\(observations=...\)") as caught:
        make().filled()
    assert caught.value.argument == "observations"
    with pytest.raises(dmf.ShapeError, match="the model is of a") as caught:
        make().filled(dmf.FullMatrix(np.ones((3, 4))))
    assert (caught.value.value, caught.value.limit) == ((3, 4), (4, 3))


def test_a_product_beyond_the_memory_is_an_error(monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: 9)
    with pytest.raises(dmf.ArgumentError, match=r"Use predict\(rows, cols\)") as caught:
        make().product()
    assert (caught.value.argument, caught.value.value, caught.value.limit) == ("shape", 96, 81)
    assert make().predict([0], [0]).shape == (1,)


def test_names_of_rows_and_columns():
    model = make(ids=False).with_ids(list("abcd"), None)
    assert model.row_ids == ("a", "b", "c", "d")
    assert model.col_ids is None
    assert_equal(model.with_ids(None, None), make(ids=False))


@pytest.mark.parametrize("ids", [list("abc"), list("abcde"), list("aabc"), [1, 2, 3, 4]])
def test_names_that_could_not_be_loaded_again_are_refused(ids):
    with pytest.raises(dmf.ArgumentError, match="4 different strings are needed") as caught:
        make().with_ids(ids, None)
    assert (caught.value.argument, caught.value.value, caught.value.limit) == ("row_ids", len(ids), 4)


def test_history_is_a_mapping_of_columns():
    history = make().history
    assert list(history) == ["iteration", "loss", "seconds", "held out"]
    assert len(history) == 4
    assert "loss" in history
    assert history.loss is history["loss"]
    assert history.iteration.tolist() == [0, 5, 7]
    assert history.seconds[-1] == 0.6
    assert "3 records" in repr(history)
    with pytest.raises(KeyError):
        history["other"]


def test_status_reads_as_a_sentence():
    assert str(dmf.Status("converged", "Fine.")) == "converged: Fine."
