"""Tables, filled tables, reports, rankings and rank paths, as a program."""

import csv
import gzip
import json
import signal
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import dmf
from dmf.solvers import Outcome
from dmf_cli import common, solve

from cli.program import as_json, error_line

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def measured(tmp_path, rng):
    """A table of 40 x 12 cells of rank 2 with names, a column of words, and a fifth of the cells missing."""
    matrix = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 12))
    lines = [["name", *(f"x{j}" for j in range(12)), "colour"]]
    for i, row in enumerate(matrix):
        cells = [f"{value:.9f}" if rng.random() < 0.8 else "" for value in row]
        lines.append([f"s{i}", *cells, "red"])
    path = tmp_path / "table.csv"
    path.write_text("".join(",".join(line) + "\n" for line in lines))
    return path, matrix


def test_a_table_is_filled_in_its_own_layout(dmf_program, measured, tmp_path):
    path, matrix = measured
    done = dmf_program("complete", path, "-o", "filled.csv", "--rank", 2)
    assert "a table, column names in the first line, row names in column 'name'" in done.stdout
    assert "columns of text ignored: colour" in done.stdout and "--model FILE keeps it" in done.stdout
    with path.open() as before, (tmp_path / "filled.csv").open() as after:
        for old, new in zip(csv.reader(before), csv.reader(after), strict=True):
            assert all(b in ("", a) for b, a in zip(old, new, strict=True))
    with (tmp_path / "filled.csv").open() as file:
        values = [[float(cell) for cell in row[1:-1]] for row in list(csv.reader(file))[1:]]
    np.testing.assert_allclose(values, matrix, atol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["filled.csv", "table.csv"]


def test_a_model_beside_the_filled_table_and_predictions_by_name(dmf_program, measured, tmp_path):
    path, matrix = measured
    report = as_json(dmf_program("complete", path, "-o", "filled.tsv", "--model", "m.npz", "--json"))
    assert report["filled"] == "filled.tsv" and report["model"] == "m.npz" and report["cells_filled"] > 0
    assert json.loads((tmp_path / "m.json").read_text())["shape"] == [40, 12]
    (tmp_path / "pairs.csv").write_text("s3,x7\ns39,x0\n")
    dmf_program("predict", "m.npz", "pairs.csv", "-o", "p.csv")
    with (tmp_path / "p.csv").open() as file:
        found = [float(row["prediction"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(found, matrix[[3, 39], [7, 0]], atol=1e-6)


def test_what_cannot_be_filled(dmf_program, ratings, tmp_path):
    assert "none is missing in" in error_line(dmf_program("complete", ratings, "-o", "f.csv", code=1))
    np.save(tmp_path / "holes.npy", np.array([[1.0, np.nan], [2.0, 3.0]]))
    line = error_line(dmf_program("complete", "holes.npy", "-o", "f.csv", code=1))
    assert "is a .npy file, which is written as an array" in line
    assert "is written as text" in error_line(dmf_program("complete", ratings, "-o", "f.xlsx", code=1))
    (tmp_path / "full.csv").write_text("a,b,c,d,e\n" + "1.5,2,3,4,5\n" * 4)
    assert "none is missing in full.csv" in error_line(dmf_program("complete", "full.csv", "-o", "f.csv", code=1))
    assert "1 x 1 matrix" not in dmf_program("factorize", "full.csv").stdout
    assert "--model goes with" in dmf_program("complete", ratings, "--model", "m.npz", code=2).stderr
    (tmp_path / "bad.csv").write_text("a,b\n1,2,3\n")
    assert "line 2: 3 columns" in error_line(dmf_program("complete", "bad.csv", "--format", "table", code=1))
    assert not (tmp_path / "f.csv").exists()


@pytest.mark.parametrize("name", ["report.html", pytest.param("report.png", marks=pytest.mark.slow)])
def test_a_report(dmf_program, ratings, tmp_path, name):
    done = dmf_program("complete", ratings, "--report", name, "--ranks")
    content = (tmp_path / name).read_bytes()
    words = (b"held-out RMSE", b"ratings.csv", b"error against rank", b"90% intervals", b"coverage")
    assert content.startswith(PNG) or all(word in content for word in words)
    assert "--ranks is for a report" in dmf_program("complete", ratings, "--ranks", code=2).stderr
    assert f"report         {name}" in done.stdout
    assert "its suffix is '.doc'" in error_line(dmf_program("complete", ratings, "--report", "r.doc", code=1))


def test_the_pictures_suffix_is_checked_before_the_file_is_read(dmf_program, tmp_path):
    (tmp_path / "bad.csv").write_text("")
    line = error_line(dmf_program("complete", "bad.csv", "--report", "r.doc", code=1))
    assert "a report is .html or .htm or .png" in line
    line = error_line(dmf_program("rank", "bad.csv", "--plot", "foo.jpg", code=1))
    assert "foo.jpg: its suffix is '.jpg', but a picture is .png" in line


def test_a_failure_after_the_fit_leaves_the_model(dmf_program, tmp_path, rng):
    """A hold-out of 9 of 90 entries is too small to compare ranks on, which is found out after the fit."""
    matrix = np.outer(rng.standard_normal(10), rng.standard_normal(10))
    matrix[0] = np.nan
    matrix[0, 0] = 1.0
    np.save(tmp_path / "m.npy", matrix)
    done = dmf_program("complete", "m.npy", "-o", "m.npz", "--report", "r.html", "--ranks", code=1)
    assert "ranks are compared on at least 20" in error_line(done)
    assert "its model is in m.npz" in done.stderr
    assert dmf.load(tmp_path / "m.npz").shape == (10, 10)
    assert json.loads((tmp_path / "m.json").read_text())["heldout"]["count"] == 9
    assert not (tmp_path / "r.html").exists()


def test_an_interrupted_fit_is_kept_and_no_further_one_begun(monkeypatch, measured, tmp_path):
    """Ctrl-C in the fit: the model is there when the report is drawn, without ranks."""
    path, _ = measured
    monkeypatch.chdir(tmp_path)
    fitted = dmf.complete

    def interrupted(*arguments, **options):
        return replace(fitted(*arguments, **options), outcome=Outcome.INTERRUPTED)

    def report(target, recovery, facts, ranks, **options):
        assert ranks is None and dmf.load("m.npz").outcome is Outcome.INTERRUPTED
        raise KeyboardInterrupt

    monkeypatch.setattr(dmf, "complete", interrupted)
    monkeypatch.setattr(solve, "write_report", report)
    arguments = [str(path), "-o", "m.npz", "--report", "r.html", "--ranks"]
    done = CliRunner().invoke(solve.complete, arguments)
    assert done.exit_code == 130 and "Error: interrupted." in done.output and "its model is in m.npz" in done.output


def test_a_model_and_its_json_are_both_written_when_ctrl_c_comes_between_them(monkeypatch, measured, tmp_path):
    path, _ = measured
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    written = common.write_text

    def interrupted(*arguments):
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        written(*arguments)

    monkeypatch.setattr(common, "write_text", interrupted)
    done = CliRunner().invoke(solve.complete, [str(path), "-o", "m.npz", "--rank", "2"])
    signal.signal(signal.SIGINT, before)
    assert done.exit_code == 130 and "Error: interrupted." in done.output and "its model is in m.npz" in done.output
    assert json.loads((tmp_path / "m.json").read_text())["model"] == "m.npz" and dmf.load("m.npz").shape == (40, 12)


def test_the_best_columns_of_rows(dmf_program, ratings, tmp_path):
    dmf_program("complete", ratings, "-o", "m.npz")
    done = dmf_program("predict", "m.npz", "--top", 3, "--rows", "u7,u2", "--seen", ratings, "-o", "-")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["row"] for row in rows] == ["u7"] * 3 + ["u2"] * 3
    model = dmf.load(tmp_path / "m.npz")
    seen = {tuple(line.split(",")[:2]) for line in ratings.read_text().splitlines()[1:]}
    for name in ("u7", "u2"):
        scores = zip(model.product()[model.row_ids.index(name)].tolist(), model.col_ids, strict=True)
        best = sorted(((-score, col) for score, col in scores if (name, col) not in seen))[:3]
        assert [row["column"] for row in rows if row["row"] == name] == [col for _, col in best]
    (tmp_path / "who.csv").write_text("user\nu1\nu2\n")
    done = dmf_program("predict", "m.npz", "who.csv", "--top", 2, "-o", "best.csv")
    assert "all columns are ranked" in done.stdout and "4 predictions written" in done.stdout
    assert as_json(dmf_program("predict", "m.npz", "--top", 1, "-o", "all.csv", "--json"))["predictions"] == 60


def test_rankings_that_cannot_be(dmf_program, ratings):
    dmf_program("complete", ratings, "--iterations", 5, "-o", "m.npz")
    arguments = ["predict", "m.npz", "-o", "-"]
    assert "'nobody'" in error_line(dmf_program(*arguments, "--top", 1, "--rows", "u1,nobody", code=1))
    assert "--rows names no row" in dmf_program(*arguments, "--top", 1, "--rows", "", code=2).stderr
    assert "(the first: '')" in error_line(dmf_program(*arguments, "--top", 1, "--rows", ",", code=1))
    assert "give a file of PAIRS" in dmf_program(*arguments, code=2).stderr
    assert "only for --top" in dmf_program(*arguments, ratings, "--seen", ratings, code=2).stderr
    assert "given twice" in dmf_program(*arguments, ratings, "--top", 1, "--rows", "u1", code=2).stderr


def test_rank(dmf_program, ratings, tmp_path):
    report = as_json(dmf_program("rank", ratings, "--json", "--plot", "rank.png"))
    assert report["best"] in (2, 3, 4)  # offsets are shrunk, and what that leaves of them is of rank 2
    assert report["offsets"] is True and report["n_heldout"] == 200
    assert [step["rank"] for step in report["steps"]] == list(range(len(report["steps"])))
    assert (tmp_path / "rank.png").read_bytes().startswith(PNG)
    done = dmf_program("rank", ratings, "--most", 2)
    assert "<- chosen" in done.stdout and "held-out RMSE" in done.stdout
    assert "RankError: rank=99" in error_line(dmf_program("rank", ratings, "--most", 99, code=1))


@pytest.fixture
def people(tmp_path, rng):
    """A table whose columns have units of their own, and half of a further one."""
    size = rng.standard_normal((90, 1))
    full = np.hstack([50_000 + 8_000 * size, 0.5 + 0.1 * size, 40 - 10 * size]) + rng.standard_normal((90, 3)) * [
        800,
        0.01,
        1,
    ]
    holes = rng.random(full.shape) < 0.1
    lines = ["income,share,age\n"]
    for row, gone in zip(full, holes, strict=True):
        cells = zip(row, gone, ("%.0f", "%.3f", "%.1f"), strict=True)
        lines.append(",".join("" if missing else form % value for value, missing, form in cells) + "\n")
    path = tmp_path / "people.csv"
    path.write_text("".join(lines))
    return path, full, holes


def test_columns_of_different_units_are_filled_as_a_table(dmf_program, people, tmp_path):
    path, full, holes = people
    done = dmf_program("complete", path, "-o", "filled.csv", "--model", "m.npz", "--report", "r.html")
    assert "units of their own (--format matrix: they have one)" in done.stdout
    filled = np.genfromtxt(tmp_path / "filled.csv", delimiter=",", skip_header=1)
    errors = [np.sqrt(np.mean((filled - full)[gone, k] ** 2)) for k, gone in enumerate(holes.T)]
    assert np.all(np.array(errors) < [4_000, 0.05, 5])
    assert (tmp_path / "r.html").read_text().lower().startswith("<!doctype html>")


def test_the_model_of_a_table_is_shown_and_fills_new_tables(dmf_program, people, tmp_path):
    path, full, _ = people
    fitted = as_json(dmf_program("complete", path, "-o", "filled.csv", "--model", "m.npz", "--json"))
    assert json.loads((tmp_path / "m.json").read_text())["columns"] == fitted["columns"]
    told = as_json(dmf_program("info", "m.npz", "--json"))
    assert told["columns"] == fitted["columns"] and sum(c["weight"] for c in told["candidates"]) == pytest.approx(1)
    held = [(c["column"], c["kind"], c["cells"]) for c in told["columns"]]
    assert [one[:2] for one in held] == [("income", "real"), ("share", "real"), ("age", "real")] and min(held)[2] > 0
    assert all(word in dmf_program("info", "m.npz").stdout for word in ("income", "held-out RMSE", "weight"))

    # the columns in another order, one of words among them, and the shares unknown
    lines = [f"{age:.1f},a,,{income:.0f}" for income, _, age in full[:20]]
    (tmp_path / "new.csv").write_text("\n".join(["age,word,share,income", *lines]) + "\n")
    assert "filled         20 cells" in dmf_program("predict", "m.npz", "new.csv", "-o", "new-filled.csv").stdout
    with (tmp_path / "new-filled.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["word"] for row in rows] == ["a"] * 20
    model = dmf.tables.load(tmp_path / "m.npz")
    known = np.array([[float(row["income"]), np.nan, float(row["age"])] for row in rows])
    np.testing.assert_allclose([float(row["share"]) for row in rows], model.by_place().filled(known)[:, 1], atol=5e-7)
    with pytest.raises(dmf.errors.ShapeError, match="data frame"):
        model.filled(known)

    # another dialect
    commas = (tmp_path / "new.csv").read_text().replace(",", ";").replace(".", ",").replace(";;", ";?;")
    (tmp_path / "commas.csv").write_text(commas)
    stated = ("--decimal", ",", "--missing", "?")
    assert (
        "filled         20" in dmf_program("predict", "m.npz", "commas.csv", "-o", "commas-filled.csv", *stated).stdout
    )
    expected = (tmp_path / "new-filled.csv").read_text().replace(",", ";").replace(".", ",")
    assert (tmp_path / "commas-filled.csv").read_text() == expected

    line = error_line(dmf_program("predict", "m.npz", path.name, "-o", "p.csv", "--top", 2, code=2))
    assert "m.npz is the model of a table" in line and "dmf.tables.load" in line
    (tmp_path / "other.csv").write_text("age,income\n1,\n,2\n")
    assert "share" in error_line(dmf_program("predict", "m.npz", "other.csv", "-o", "p.csv", code=1))
    with pytest.raises(dmf.errors.FileError, match=r"Read it with dmf.tables.load"):
        dmf.load(tmp_path / "m.npz")
    dmf_program("complete", path, "-o", "b.npz", "--format", "matrix")
    told = dmf_program("predict", "b.npz", "new.csv", "-o", "p.csv", "--decimal", ",", code=2).stderr
    assert "--decimal is for the model of a table" in told
    with pytest.raises(dmf.errors.FileError, match=r"Read it with dmf.load"):
        dmf.tables.load(tmp_path / "b.npz")


@pytest.fixture
def flowers(tmp_path, rng):
    """A table of two sorts in units that differ, with names, remarks and a mark, and an eighth of its cells missing."""
    sort = rng.integers(2, size=120)
    size = 3.0 + 4 * sort + 0.2 * rng.standard_normal(120)
    lines, truth = [], [("low, red", "high")[k] for k in sort]
    for i in range(120):
        cells = [f"{size[i]:.2f}", f"{1000 * size[i] + 20 * rng.standard_normal():.0f}", f'"{truth[i]}"']
        hole = rng.integers(8)  # at most one in a row
        cells = ["" if k == hole else cell for k, cell in enumerate(cells)]
        lines.append(",".join([f"f{i}", *cells, f"remark {i}" * (i % 2), "x" * (i % 3 == 0)]) + "\n")
    path = tmp_path / "flowers.csv"
    path.write_text("".join(["name,size,weight,sort,remark,mark\n", *lines]))
    return path, truth


def test_categories_are_filled_and_other_texts_left(dmf_program, flowers, tmp_path):
    path, truth = flowers
    done = dmf_program("complete", path, "-o", "filled.csv", "--model", "m.npz")
    assert "columns of text taken as categories: sort" in done.stdout
    assert "columns without numbers ignored: remark" in done.stdout and "columns of text ignored: mark" in done.stdout
    before, after = (list(csv.DictReader(p.read_text().splitlines())) for p in (path, tmp_path / "filled.csv"))
    assert all(new[key] == cell for old, new in zip(before, after, strict=True) for key, cell in old.items() if cell)
    assert all(new[key] == old[key] for old, new in zip(before, after, strict=True) for key in ("remark", "mark"))
    holes = [i for i, row in enumerate(before) if not row["sort"]]
    assert len(holes) > 5 and all(row["size"] and row["weight"] for row in after)
    assert [after[i]["sort"] for i in holes] == [truth[i] for i in holes]

    # a new table, of whose sorts none is known
    (tmp_path / "new.csv").write_text("sort,weight,size\n,3000,\n,,7.01\n")
    assert "filled         4 cells" in dmf_program("predict", "m.npz", "new.csv", "-o", "n.csv").stdout
    assert [row["sort"] for row in csv.DictReader((tmp_path / "n.csv").read_text().splitlines())] == [
        "low, red",
        "high",
    ]
    (tmp_path / "wrong.csv").write_text("sort,weight,size\n1,3000,\n2,,7.01\n")
    assert "sort" in error_line(dmf_program("predict", "m.npz", "wrong.csv", "-o", "n.csv", code=1))

    # missing categories alone are worth a table; as a matrix, numbers alone are filled
    done = dmf_program("complete", path, "-o", "matrix.csv", "--format", "matrix")
    assert "columns of text ignored: sort, mark" in done.stdout
    assert (tmp_path / "matrix.csv").read_text().count(",,") >= len(holes)


def test_categories_in_a_workbook_are_no_formulas(dmf_program, flowers, tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    path, truth = flowers
    book = openpyxl.Workbook()
    for line in csv.reader(path.read_text().splitlines()):
        book.active.append([float(cell) if cell.replace(".", "").isdigit() else cell or None for cell in line[:4]])
        if line[3] == "high":
            book.active.cell(book.active.max_row, 4, "=high").data_type = "s"
    book.save(tmp_path / "book.xlsx")
    dmf_program("complete", "book.xlsx", "-o", "filled.xlsx")
    cells = [row[3] for row in openpyxl.load_workbook(tmp_path / "filled.xlsx").active.iter_rows(min_row=2)]
    assert [cell.value for cell in cells] == ["=high" if sort == "high" else sort for sort in truth]
    assert {cell.data_type for cell in cells} == {"s"}


def test_categories_in_parquet_keep_their_types(dmf_program, flowers, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path, truth = flowers
    rows = list(csv.DictReader(path.read_text().splitlines()))
    sorts = [row["sort"] or None for row in rows]
    table = pa.table({
        "size": [float(row["size"]) if row["size"] else None for row in rows],
        "weight": [int(row["weight"]) if row["weight"] else None for row in rows],
        "sort": pa.array(sorts).dictionary_encode(),
        "is_high": pa.array([None if sort is None else sort == "high" for sort in sorts]),
        "text": pa.array(sorts, pa.large_string()),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet")
    dmf_program("complete", "t.parquet", "-o", "filled.parquet")
    filled = pq.read_table(tmp_path / "filled.parquet")
    assert filled.schema == pq.read_table(tmp_path / "t.parquet").schema
    assert filled["sort"].to_pylist() == filled["text"].to_pylist() == truth
    assert filled["is_high"].to_pylist() == [sort == "high" for sort in truth]


@pytest.mark.slow
def test_the_format_or_options_of_matrices_say_otherwise(dmf_program, people, measured):
    path, _, _ = people
    assert "result " in dmf_program("complete", path, "-o", "a.csv", "--format", "matrix").stdout
    assert "result " in dmf_program("complete", path, "-o", "a.csv", "--rank", 1).stdout
    told = dmf_program("complete", path, "-o", "a.csv", "--format", "table", "--rank", 1, code=2).stderr
    assert "--rank is for a matrix of one unit" in told
    report = as_json(dmf_program("complete", measured[0], "-o", "b.csv", "--format", "table", "--json"))
    assert report["format"] == "table" and len(report["columns"]) == 12 and report["cells_filled"] > 0
    assert "taken as a matrix of one unit (--format table" in dmf_program("complete", measured[0], "-o", "b.csv").stdout


def test_parquet_comes_out_as_parquet(dmf_program, measured, tmp_path):
    pa_csv, pq = pytest.importorskip("pyarrow.csv"), pytest.importorskip("pyarrow.parquet")
    path, matrix = measured
    pq.write_table(pa_csv.read_csv(path), tmp_path / "t.parquet")
    dmf_program("complete", "t.parquet", "-o", "filled.parquet", "--rank", 2)
    filled = pq.read_table(tmp_path / "filled.parquet")
    assert filled.schema == pq.read_table(tmp_path / "t.parquet").schema
    values = np.column_stack([filled.column(f"x{j}").to_numpy() for j in range(12)])
    np.testing.assert_allclose(values, matrix, atol=1e-6)
    assert "is written as text" in error_line(dmf_program("complete", path, "-o", "f.parquet", code=1))


def test_text_of_any_suffix_and_compressed_text_come_out_as_they_came(dmf_program, measured, tmp_path):
    path, _ = measured
    dmf_program("complete", path, "-o", "plain.csv", "--rank", 2)
    expected = (tmp_path / "plain.csv").read_bytes()
    (tmp_path / "table.dat").write_bytes(path.read_bytes())
    dmf_program("complete", "table.dat", "-o", "filled.dat", "--rank", 2)
    dmf_program("complete", path, "-o", "filled.csv.gz", "--rank", 2)
    assert (
        (tmp_path / "filled.dat").read_bytes() == expected == gzip.decompress((tmp_path / "filled.csv.gz").read_bytes())
    )


def test_an_array_comes_out_as_an_array(dmf_program, tmp_path, rng):
    full = rng.standard_normal((30, 2)) @ rng.standard_normal((2, 8))
    holes = np.where(rng.random(full.shape) < 0.2, np.nan, full).astype(np.float32)
    np.save(tmp_path / "a.npy", holes)
    dmf_program("complete", "a.npy", "-o", "filled.npy")
    filled = np.load(tmp_path / "filled.npy")
    assert filled.dtype == holes.dtype
    np.testing.assert_allclose(filled, full, atol=1e-4)


def test_a_workbook_comes_out_as_a_workbook(dmf_program, tmp_path, rng):
    openpyxl = pytest.importorskip("openpyxl")
    full = np.round(100 * rng.standard_normal((30, 1)) @ rng.standard_normal((1, 6)), 1) + 5
    book = openpyxl.Workbook()
    book.create_sheet("notes")["B2"] = "=1+1"
    sheet = book.create_sheet("data")
    sheet.append(["a title"])
    sheet.append([])
    sheet.append(["who", *"abcdef", "two\nlines"])
    for k, row in enumerate(full):
        sheet.append([f"person\n{k}", *[None if (k + j) % 7 == 3 else value for j, value in enumerate(row)], "=A4"])
        if k == 10:
            sheet.append([])
    sheet["B4"].font = openpyxl.styles.Font(bold=True)
    book.save(tmp_path / "book.xlsx")
    options = ("--sheet", "data", "--skip", 1, "--format", "matrix")
    dmf_program("complete", "book.xlsx", "-o", "filled.xlsx", *options)
    filled = openpyxl.load_workbook(tmp_path / "filled.xlsx")
    assert filled.sheetnames == ["Sheet", "notes", "data"] and filled["notes"]["B2"].value == "=1+1"
    found, before = filled["data"], openpyxl.load_workbook(tmp_path / "book.xlsx")["data"]
    assert found["B4"].font.bold and found["H5"].value == "=A4"
    rows = [row for row in range(4, 35) if row != 15]
    for row, truth in zip(rows, full, strict=True):
        for column, value in enumerate(truth, 2):
            was, now = before.cell(row, column).value, found.cell(row, column).value
            assert now == was if was is not None else (abs(now - value) < 30 and round(now, 1) == now)
    assert found.cell(15, 2).value is None
