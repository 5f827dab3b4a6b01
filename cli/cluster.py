"""--cluster: entries in Parquet files, read and fitted by the workers of a Dask cluster, and predictions that they write."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

import dmf
from dmf.errors import BackendError, MissingPackageError
from dmf.io.partitions import column_names
from dmf.observations import DistributedEntries
from dmf.observations.stored import remove_files
from dmf.recovery.partitions import predict_partitions, top_partitions
from dmf_cli.common import emit, load_model

_PATIENCE = "10s"  # for a scheduler to answer


class Cluster(click.ParamType):
    """local, local:N, or the address of a scheduler."""

    name = "local[:N]|tcp://HOST:PORT"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        """The text, if it is one of them."""
        if not re.fullmatch(r"local(:[1-9][0-9]*)?|[a-z]+://\S+", str(value)):
            self.fail(f"{value!r} is neither local, local:4 nor an address such as tcp://10.0.0.1:8786.", param, ctx)
        return str(value)


@contextmanager
def joined(address: str, memory_limit: str | None) -> Iterator[Any]:
    """Client of a cluster: one on this machine, with a thread in each of its processes, or one that runs already."""
    try:
        import dask
        import distributed
    except ImportError as error:
        raise MissingPackageError("--cluster needs the package distributed. Run: pip install 'dmf[dask]'") from error
    kind, _, count = address.partition(":")
    if kind != "local":
        try:
            client = distributed.Client(address, timeout=_PATIENCE)
        except (OSError, ValueError) as error:
            raise BackendError(
                f"no scheduler answers at {address}: {error}. Start one with `dask scheduler`, or take --cluster local.",
                argument="cluster",
                value=address,
            ) from error
        with client:
            yield client
        return
    workers = int(count) if count else dmf.arrays.threads.thread_count()
    with (
        dask.config.set({"distributed.scheduler.work-stealing": False}),  # see dmf.observations.distributed
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, memory_limit=memory_limit or "auto", dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client
        client.run(remove_files, on_error="ignore")


def check_options(file: Path, stated: Mapping[str, Any], unusable: Mapping[str, Any]) -> None:
    """Raise UsageError where a file or an option does not go with a cluster."""
    for name, value in unusable.items():
        if value:
            raise click.UsageError(f"{name} does not go with --cluster. Leave one of them out.")
    if not (file.is_dir() or file.suffix.lower() == ".parquet"):
        raise click.UsageError(f"{file} is no Parquet file and no folder of such files, which --cluster reads.")
    if len(stated["columns"] or ()) != 3:
        raise click.UsageError("--cluster needs the names of three columns: --columns ROW,COLUMN,VALUE.")


def read_on_cluster(file: Path, stated: Mapping[str, Any], client: Any) -> DistributedEntries:
    """The entries of Parquet files, with the workers."""
    row, column, value = stated["columns"]
    return DistributedEntries.from_parquet(file.resolve(), row, column, value, client)


def predict_on_cluster(
    model: Path,
    pairs: Path | None,
    output: Path,
    top: int | None,
    interval: float | None,
    seen: Path | None,
    cluster: str,
    as_json: bool,
) -> None:
    """Write predictions of pairs, or the best columns of each row, as a folder of Parquet files."""
    recovery = load_model(model)
    if not isinstance(recovery, dmf.Recovery):
        raise click.UsageError(f"{model} is the model of a table, which --cluster does not go with. Leave it out.")
    told: dict[str, Any] = {"model": str(model), "output": str(output)}
    with joined(cluster, None) as client:
        if pairs is not None:
            row, column = column_names(pairs, 2)[:2]
            found = predict_partitions(recovery, pairs.resolve(), row, column, output, client, coverage=interval)
            told |= {"predictions": found[0], "unknown": found[1]}
        else:
            left_out = None
            if seen is not None:
                row, column, value = column_names(seen, 3)[:3]
                left_out = DistributedEntries.from_parquet(seen.resolve(), row, column, value, client)
            told["predictions"] = top_partitions(recovery, top or 1, output, client, seen=left_out)
    emit(as_json, told, [f"{told['predictions']:,} predictions written to {output}"])


def train_rmse(known: DistributedEntries, recovery: dmf.Recovery) -> float:
    """Root mean square of the errors on the fitted entries, before bounds."""
    return math.sqrt(2 * float(known.loss(*recovery.factors())) / known.n_measurements)


def told_of_traffic(known: DistributedEntries, recovery: dmf.Recovery) -> str:
    """What moved between this process and the workers."""
    sent, received = (known.traffic[way] / 1e6 for way in ("sent", "received"))
    return f"{sent:,.1f} MB sent to workers, {received:,.1f} MB received, in {recovery.nit} iterations"
