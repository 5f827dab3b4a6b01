"""`dmf complete --cluster`: what is refused before anything starts; tests/slow/test_cluster.py runs it."""

import sys

import pytest

import dmf
from dmf_cli.cluster import joined


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.parquet", "--cluster", "elsewhere"], "neither local, local:4 nor an address"),
        (["a.parquet", "--cluster", "local:0"], "neither local, local:4 nor an address"),
        (["a.parquet", "--cluster", "local"], "--columns ROW,COLUMN,VALUE"),
        (["a.csv", "--cluster", "local", "--columns", "u,i,s"], "no Parquet file"),
        (["a.parquet", "--cluster", "local", "--columns", "u,i,s", "--report", "r.html"], "--report does not go with"),
    ],
)
def test_what_does_not_go_with_a_cluster(arguments, message, dmf_program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.parquet", "a.csv"):
        (tmp_path / name).write_text("nothing")
    assert message in " ".join(dmf_program("complete", *arguments, code=2).stderr.split())


def test_without_dask(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(dmf.errors.MissingPackageError, match="pip install 'dmf\\[dask\\]'"), joined("local", None):
        pass


def test_no_scheduler(monkeypatch):
    pytest.importorskip("distributed", reason="Dask is not installed: pip install 'dmf[dask]'")
    monkeypatch.setattr("dmf_cli.cluster._PATIENCE", "1s")
    with pytest.raises(dmf.errors.BackendError, match="no scheduler answers"), joined("tcp://127.0.0.1:9", None):
        pass
