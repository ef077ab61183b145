"""Results read back from Tiled, as revisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from ptychrome.callbacks.results import Revision
from ptychrome.callbacks.sinks.tiled import POOLED
from ptychrome.callbacks.tiled_client import connect
from ptychrome.schema import RESULT_ROOT

if TYPE_CHECKING:
    from tiled.client.container import Container


def read_results(address: str) -> list[Revision]:
    """Read one result or all of a server.

    Parameters
    ----------
    address : str
        Of the server, of its web page, or of one result in either:
        ``http://host:port/ui/browse/ptychrome/<uid>?api_key=…``.

    Returns
    -------
    list of Revision

    Raises
    ------
    TiledUnavailable
        If the server does not answer.
    ValueError
        If there is no such result.
    """
    parts = urlsplit(address)
    key = parse_qs(parts.query).get("api_key", [None])[0]
    client = connect(f"{parts.scheme}://{parts.netloc}/api/v1/", key, timeout_s=60.0)
    if RESULT_ROOT not in client:
        raise ValueError(f"{parts.netloc}: no {RESULT_ROOT!r} on this server; expected one with results")
    results = client[RESULT_ROOT]
    _, _, below = parts.path.partition(f"/{RESULT_ROOT}/")
    uids = [uid for uid in below.split("/")[:1] if uid] or [uid for uid in results if uid != POOLED]
    for uid in uids:
        if uid not in results:
            raise ValueError(f"{parts.netloc}: no result {uid!r}; expected one of {', '.join(results)}")
    return [_revision(results[uid]) for uid in uids]


def _revision(node: Container) -> Revision:
    arrays: dict[str, np.ndarray] = {}
    tables: dict[str, dict[str, np.ndarray]] = {}
    _collect(node, "", arrays, tables)
    attributes = dict(node.metadata)
    uid, sample = str(attributes["raw_uid"]), str(attributes.get("sample_name", ""))
    return Revision(uid, sample, attributes, arrays, tables, (), bool(attributes.get("final")))


def _collect(
    node: Container, prefix: str, arrays: dict[str, np.ndarray], tables: dict[str, dict[str, np.ndarray]]
) -> None:
    for name, child in node.items():
        content: Any = child
        family = str(content.structure_family.value)
        if family == "container":
            _collect(content, f"{prefix}{name}/", arrays, tables)
        elif family == "table":
            table = content.read()
            tables[prefix + name] = {column: table[column].to_numpy() for column in table.columns}
        else:
            arrays[prefix + name] = np.asarray(content.read())
