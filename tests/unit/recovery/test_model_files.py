"""Model files: what is saved comes back, and files of all other sorts are refused."""

import io
import json
import warnings
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf

from helpers import DTYPES, LIBRARIES, assert_same_model, example_model, examples, observe


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("offsets", [True, False])
@pytest.mark.parametrize("ids", [True, False])
def test_save_and_load_keep_every_field(dtype, offsets, ids, tmp_path):
    model = example_model(dtype, offsets=offsets, ids=ids)
    model.save(tmp_path / "model.npz")
    loaded = dmf.load(str(tmp_path / "model.npz"))
    assert_same_model(loaded, model)
    assert loaded.observations is None
    loaded.save(tmp_path / "again.npz")
    assert_same_model(dmf.load(tmp_path / "again.npz"), model)


def test_models_of_other_libraries_are_loaded_as_numpy(tmp_path):
    example_model(move=LIBRARIES["strict"]).save(tmp_path / "model.npz")
    assert_same_model(dmf.load(tmp_path / "model.npz"), example_model())


def test_a_solved_model_survives_the_file(tmp_path):
    observations = observe("entries")
    recovery = dmf.complete(
        observations, holdout=0.2, callback=lambda s: {"empty": np.zeros(0), "iteration squared": s.iteration**2}
    )
    recovery.save(tmp_path / "model.npz")
    loaded = dmf.load(tmp_path / "model.npz")
    assert_same_model(loaded, recovery)
    assert loaded.message == recovery.message
    np.testing.assert_array_equal(loaded.filled(observations), recovery.filled())


def test_numbers_that_were_not_finite_come_back_as_nan(tmp_path):
    model = example_model()
    replace(model, found=replace(model.found, noise=np.inf)).save(tmp_path / "model.npz")
    assert np.isnan(dmf.load(tmp_path / "model.npz").found.noise)


@pytest.fixture(scope="module")
def saved(folder):
    """The bytes of a model file."""
    example_model().save(folder / "good.npz")
    return (folder / "good.npz").read_bytes()


def assert_refused(path, match=None):
    with pytest.raises(dmf.errors.FileError, match=match) as caught:
        dmf.load(path)
    assert type(caught.value) is dmf.errors.FileError
    assert str(path) in str(caught.value)


def load_bytes(folder, data):
    path = folder / "changed.npz"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("decile", range(10))
def test_truncated_files(decile, folder, saved):
    assert_refused(load_bytes(folder, saved[: len(saved) * decile // 10]))


@examples(10)
@given(data=st.data())
def test_truncation_anywhere(data, folder, saved):
    assert_refused(load_bytes(folder, saved[: data.draw(st.integers(0, len(saved) - 1))]))


@examples(60)
@given(data=st.data())
def test_a_changed_byte_is_noticed_or_does_not_matter(data, folder, saved):
    """Most bytes are under a checksum; the rest (dates, attributes) leave the model as it was."""
    changed = bytearray(saved)
    changed[data.draw(st.integers(0, len(saved) - 1))] ^= data.draw(st.integers(1, 255))
    path = load_bytes(folder, changed)
    try:
        loaded = dmf.load(path)
    except dmf.errors.FileError as error:
        assert str(path) in str(error)
    else:
        assert_same_model(loaded, example_model())


@examples(20)
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


def header_of(data):
    return json.loads(np.load(io.BytesIO(members(data)["header.npy"])).tobytes())


def with_header(data, **changes):
    header = header_of(data)
    header = {key: value for key, value in {**header, **changes}.items() if value is not ...}
    return with_member(data, "header", array_bytes(np.frombuffer(json.dumps(header).encode(), np.uint8)))


def test_the_tools_of_this_suite_make_files_that_load(folder, saved):
    """Rewritten without a change, the file is good; so what is refused below is refused for its one change."""
    for data in (archive_of(members(saved)), with_header(saved), with_member(saved, "extra", array_bytes(np.ones(2)))):
        assert_same_model(dmf.load(load_bytes(folder, data)), example_model())
    literal = "{'descr': '<f8', 'fortran_order': True, 'shape': (2, 3)}"
    vt = example_model().model.vt
    good = with_member(saved, "vt", raw_array(literal, np.asfortranarray(vt).tobytes(order="F")))
    assert_same_model(dmf.load(load_bytes(folder, good)), example_model())


REQUIRED = [
    "header", "u", "s", "vt", "offsets_row", "offsets_col", "history_iteration", "history_loss",
    "history_seconds", "history_held out", "outliers_rows", "outliers_cols", "outliers_values", "row_ids", "col_ids",
]  # fmt: skip


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_member(name, folder, saved):
    contents = members(saved)
    del contents[f"{name}.npy"]
    assert_refused(load_bytes(folder, archive_of(contents)), "missing|no member")


@pytest.mark.parametrize("name", REQUIRED[1:-2])
def test_a_member_of_another_shape(name, folder, saved):
    """Columns of callbacks may have any shape, but as many rows as the others."""
    array = np.load(io.BytesIO(members(saved)[f"{name}.npy"]))
    others = [array[:1], np.concatenate([array, array]), array.ravel()[0]]
    if name != "history_held out":
        others.append(array[..., None])
    for other in others:
        assert_refused(load_bytes(folder, with_member(saved, name, array_bytes(other))), "shape|length|fit together")


@pytest.mark.parametrize("name", ["u", "s", "vt", "offsets_row", "offsets_col", "history_loss", "history_seconds"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(name, bad, folder, saved):
    array = np.load(io.BytesIO(members(saved)[f"{name}.npy"]))
    array.flat[-1] = bad
    assert_refused(load_bytes(folder, with_member(saved, name, array_bytes(array))), "NaN|finite")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("vt", np.float32),
        ("vt", np.int64),
        ("vt", np.complex128),
        ("vt", "U3"),
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
    for name in ("vt", "history_loss", "extra", "header"):
        assert_refused(
            load_bytes(folder, with_member(saved, name, array_bytes(array, allow_pickle=True))), "dtype is object"
        )


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_members_are_refused(compression, folder, saved):
    """So a small file cannot fill the memory."""
    assert_refused(load_bytes(folder, archive_of(members(saved), compression)), "compressed")


@pytest.mark.parametrize("name", ["notes.txt", "vt.npy"])
def test_members_that_dmf_never_writes(name, folder, saved):
    path = load_bytes(folder, saved)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")  # of zipfile, at a name that is there already
        archive.writestr(name, array_bytes(np.ones((2, 3))))
    assert_refused(path, "unexpected member|one name")


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
        assert_refused(load_bytes(folder, with_member(saved, "vt", raw_array(literal, body))))


@examples(40)
@given(data=st.data())
def test_a_changed_byte_of_an_array_under_a_correct_checksum(data, folder, saved):
    """Whatever loads is finite and of the shapes that the header names."""
    name = data.draw(st.sampled_from(["vt.npy", "history_loss.npy", "header.npy", "row_ids.npy"]))
    content = bytearray(members(saved)[name])
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = load_bytes(folder, archive_of({**members(saved), name: bytes(content)}))
    try:
        loaded = dmf.load(path)
    except dmf.errors.FileError as error:
        assert str(path) in str(error)
    else:
        assert loaded.shape == (4, 3)
        assert all(np.isfinite(part).all() for part in loaded.factors())
        assert np.isfinite(loaded.history.loss).all()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": "other"}, "its format is 'other'"),
        ({"format": ...}, "its format is None"),
        ({"format_version": 1}, "version is 1; this dmf reads 4"),
        ({"format_version": ...}, "version is None"),
        ({"mean": "0"}, "'mean' is '0'"),
        ({"mean": True}, "'mean' is True"),
        ({"mean": float("nan")}, "not a finite number"),
        ({"mean": float("inf")}, "not a finite number"),
        ({"mean": 10**400}, "not a finite number"),
        ({"history": []}, "lacks iteration, loss or seconds"),
        ({"history": "iteration"}, "'history' is 'iteration'"),
        ({"history": ["iteration", "loss", "seconds", "other"]}, "column 'other' is missing"),
        ({"history": ["iteration", "loss", "seconds", {}]}, "column '{}' is missing"),
        ({"ids": True}, "'ids' is True"),
        ({"outcome": "DONE"}, "outcome is 'DONE'"),
        ({"outcome": []}, "outcome is"),
        ({"found": []}, "'found' is"),
        ({"settings": ...}, "'settings' is None"),
        ({"heldout": 3}, "'heldout' is 3"),
        ({"runs": {}}, "'runs' is"),
        ({"runs": [1]}, "'runs' is 1"),
    ],
)
def test_a_header_that_does_not_fit(changes, match, folder, saved):
    assert_refused(load_bytes(folder, with_header(saved, **changes)), match)


@pytest.mark.parametrize(
    ("entry", "name", "bad"),
    [
        ("found", "rank", "2"),
        ("found", "rank", True),
        ("found", "rank", None),
        ("found", "noise", -1),
        ("found", "noise", 10**400),
        ("found", "rank", 3),
        ("found", "exact", 1),
        ("found", "offsets", "auto"),
        *(("found", "undetermined", bad) for bad in ([1], [1, 2], [[2, 1], []], [[], [-1]], [[], [10**6]])),
        ("found", "symmetric", None),
        ("settings", "seed", 1.5),
        ("settings", "rank", 4),
        *(("settings", "holdout", bad) for bad in (1, None, -0.1)),
        ("settings", "offsets", "yes"),
        *(
            ("settings", "bounds", bad)
            for bad in ([1, 1], [2, 1], [0], 3, "ab", [True, 2], [[], 2], {"a": 1}, [0, "1"])
        ),
        ("heldout", "rmse", "x"),
        ("heldout", "standard_error", []),
        ("heldout", "count", None),
        ("heldout", "quantiles", []),
        ("heldout", "quantiles", [1, "2"]),
        *(("heldout", "quantiles", bad) for bad in ([10**400], [None, 1], [1, 0.5], [1, True], [1, 2, 3, 4])),
    ],
)
def test_a_field_that_does_not_fit(entry, name, bad, folder, saved):
    header = header_of(saved)
    assert_refused(load_bytes(folder, with_header(saved, **{entry: header[entry] | {name: bad}})), entry)
    header[entry].pop(name)
    assert_refused(load_bytes(folder, with_header(saved, **{entry: header[entry]})), entry)


@pytest.mark.parametrize("name", ["noise", "rank", "run"])
def test_history_columns_of_numbers_hold_one_for_each_record(name, folder, saved):
    """So that the learning curve can be drawn; the example has one run, number 0."""
    with_name = with_header(saved, history=[*header_of(saved)["history"], name])
    good = array_bytes(np.zeros(3))
    assert name in dmf.load(load_bytes(folder, with_member(with_name, f"history_{name}", good))).history
    bad = [np.zeros((3, 2)), np.array(["a", "b", "c"])] + [np.array([0.0, 0.0, 2.0])] * (name == "run")
    for column in bad:
        data = with_member(with_name, f"history_{name}", array_bytes(column))
        assert_refused(load_bytes(folder, data), f"{name}|numeric|dtype")


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("s", np.array([1.0, 2.0])),
        ("history_iteration", np.array([0, 7, 5])),
        ("history_iteration", np.array([-1, 5, 7])),
    ],
)
def test_numbers_out_of_order(name, array, folder, saved):
    assert_refused(load_bytes(folder, with_member(saved, name, array_bytes(array))), "descend|ascend")


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
