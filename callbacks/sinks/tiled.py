"""Results in Tiled: ``ptychrome/<raw uid>/...``, revised in place while the energies arrive."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ptychrome.callbacks.results import Revision
from ptychrome.schema import FEATURES, MAP_LABELS, MAPS, RESULT_SPEC, SPECTRA

if TYPE_CHECKING:
    from tiled.client.array import ArrayClient
    from tiled.client.container import Container

POOLED = "pooled"
_STACK = ("energy", "y", "x")
_MAP = ("y", "x")
_AXES: dict[str, tuple[tuple[str, ...], str]] = {  # name -> (dimensions, unit)
    "energy": (("energy",), "eV"),
    "y": (("y",), "m"),
    "x": (("x",), "m"),
    "object": (_STACK, "1"),
    "absorbance": (_STACK, "1"),
    "phase": (_STACK, "rad"),
    "probe": (("energy", "mode", "probe_y", "probe_x"), "sqrt(photons)"),
    "clusters/label": (_MAP, "1"),
    "clusters/probability": (_MAP, "1"),
    "clusters/centers": (("cluster", "feature"), " ".join(MAPS[name].unit for name in FEATURES)),
    "clusters/fractions": (("cluster",), "1"),
    "clusters/fractions_sigma": (("cluster",), "1"),
    "clusters/spectra": (("cluster", "energy"), "1"),
} | {name: (info.dimensions, info.unit) for name, info in SPECTRA.items()}
_STACKS = ("object", "absorbance", "phase", "probe")


class TiledSink:
    """Writes every revision where other clients see it at once, reading or subscribed.

    Of the stacks only the slices that changed are sent, of the rest only the arrays that did. Maps, labels,
    absorbance and phase go out with every revision, everything else at most every `rest_s` seconds and with
    the final one: a server spends 20-35 ms on each array. After a failure the next revision of the run is
    sent whole, so that nothing stays behind.

    Parameters
    ----------
    results : tiled container
        ``ptychrome``. Take it from a client of `ptychrome.callbacks.tiled_client.connect`: others keep a
        failing write waiting for most of a minute.
    rest_s : float
        Shortest time between two writes of what is not looked at first.
    """

    def __init__(self, results: Container, *, rest_s: float = 10.0) -> None:
        self._results = results
        self._rest_s = rest_s
        self._runs: dict[str, _Run] = {}

    def write(self, revision: Revision) -> None:
        """Write one revision; its attributes come last, with a ``revision`` number that counts up.

        Raises
        ------
        TiledUnavailable
            If the server does not answer or fails.
        """
        uid = revision.raw_uid
        run = self._runs.pop(uid, None) or _Run(_Folder(_container(self._results, uid, specs=[RESULT_SPEC])))
        everything = revision.final or time.monotonic() >= run.rest_due_s
        for name, array in revision.arrays.items():
            changed = run.unsent.setdefault(name, set())
            changed.update(revision.changed)
            if everything or _goes_first(name):
                run.folder.write_array(name, array, tuple(sorted(changed)) if name in _STACKS else None)
                changed.clear()
        if everything:
            for name, columns in revision.tables.items():
                run.folder.write_table(name, columns)
            run.rest_due_s = time.monotonic() + self._rest_s
        run.folder.update(
            {
                **revision.attributes,
                "raw_uid": uid,
                "sample_name": revision.sample_name,
                "final": revision.final,
                "revision": run.folder.metadata.get("revision", 0) + 1,
            }
        )
        if not revision.final:
            self._runs[uid] = run

    def write_pooled(self, name: str, runs: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Write what was found in several runs together.

        Parameters
        ----------
        name : str
            Of the pool: ``ptychrome/pooled/<name>/<raw uid>/...``.
        runs : mapping of raw uid to mapping of name to array
            For example ``{"<raw uid>": {"clusters/label": ...}}``.

        Raises
        ------
        TiledUnavailable
            If the server does not answer or fails.
        """
        pool = _Folder(_container(self._results, POOLED)).folder(name)
        for uid, arrays in runs.items():
            run = pool.folder(uid)
            for key, array in arrays.items():
                run.write_array(key, array)

    def close(self) -> None:
        """Forget the nodes; the client belongs to the caller."""
        self._runs.clear()


@dataclass
class _Run:
    """A run's container, when the rest is due, and the slices of each stack that are still to be sent."""

    folder: _Folder
    rest_due_s: float = 0.0
    unsent: dict[str, set[int]] = field(default_factory=dict)


def _goes_first(name: str) -> bool:
    """Whether an array is sent with every revision."""
    shown = name.startswith("maps/") and not name.endswith(("_sigma", "/chi2"))
    return shown or name in ("energy", "y", "x", "absorbance", "phase", "clusters/label")


class _Folder:
    """A container, what is known to be in it, and the last content of its small arrays."""

    def __init__(self, node: Container, *, new: bool = False) -> None:
        self._node = node
        self._keys = set() if new else set(node)
        self._folders: dict[str, _Folder] = {}
        self._arrays: dict[str, Any] = {}
        self._tables: dict[str, tuple[Any, dict[str, np.dtype]]] = {}
        self._last: dict[str, np.ndarray] = {}

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self._node.metadata

    def update(self, metadata: Mapping[str, Any]) -> None:
        self._node.update_metadata(dict(metadata), drop_revision=True)

    def folder(self, key: str) -> _Folder:
        """A container in this one, made when it is not there."""
        if key not in self._folders:
            new = key not in self._keys
            node = self._node.create_container(key) if new else self._node[key]
            self._keys.add(key)
            self._folders[key] = _Folder(node, new=new)
        return self._folders[key]

    def write_array(self, name: str, array: np.ndarray, changed: tuple[int, ...] | None = None) -> None:
        """Write an array under a name with slashes: the changed places of the first axis, None for all."""
        folder, key = self._place(name)
        folder._write_array(name, key, np.ascontiguousarray(array), changed)

    def write_table(self, name: str, columns: Mapping[str, np.ndarray]) -> None:
        """Replace a table."""
        folder, key = self._place(name)
        folder._write_table(key, {column: np.asarray(values) for column, values in columns.items()})

    def _place(self, name: str) -> tuple[_Folder, str]:
        head, _, rest = name.partition("/")
        return self.folder(head)._place(rest) if rest else (self, head)

    def _write_array(self, name: str, key: str, array: np.ndarray, changed: tuple[int, ...] | None) -> None:
        known = key in self._arrays
        node: Any = self._arrays[key] if known else self._node[key] if key in self._keys else None
        if (getattr(node, "shape", None), getattr(node, "dtype", None)) != (array.shape, array.dtype):
            self._delete(key)
            node, known = self._new_array(name, key, array, by_slice=changed is not None), False
        if not known:
            node.write(array)
        elif changed is not None:
            for index in changed:
                node.write_block(array[index : index + 1], (index,) + (0,) * (array.ndim - 1))
        elif not np.array_equal(self._last[key], array, equal_nan=array.dtype.kind in "fc"):
            node.write(array)
        self._arrays[key] = node
        if changed is None:
            self._last[key] = array.copy()

    def _new_array(self, name: str, key: str, array: np.ndarray, *, by_slice: bool) -> ArrayClient:
        from tiled.structures.array import ArrayStructure, BuiltinDtype
        from tiled.structures.core import StructureFamily
        from tiled.structures.data_source import DataSource

        chunks = [(size,) for size in array.shape]
        if by_slice:
            chunks[0] = (1,) * array.shape[0]
        dims, attributes = _description(name)
        structure = ArrayStructure(
            data_type=BuiltinDtype.from_numpy_dtype(array.dtype),
            chunks=tuple(chunks),
            shape=array.shape,
            dims=dims,
        )
        source = DataSource(structure=structure, structure_family=StructureFamily.array)
        self._keys.add(key)
        return self._node.new(StructureFamily.array, [source], key=key, metadata=attributes)

    def _write_table(self, key: str, columns: Mapping[str, np.ndarray]) -> None:
        import pandas

        table = pandas.DataFrame(columns)
        types = {column: values.dtype for column, values in columns.items()}
        node, types_before = self._tables.get(key, (None, None))
        if node is not None and types == types_before:
            node.write(table)
        else:
            self._delete(key)
            self._tables[key] = (self._node.write_table(table, key=key), types)
            self._keys.add(key)

    def _delete(self, key: str) -> None:
        if key in self._keys:
            self._node.delete_contents(key, recursive=True, external_only=False)
            self._keys.discard(key)


def _container(parent: Container, key: str, specs: list[str] | None = None) -> Container:
    return parent[key] if key in parent else parent.create_container(key, specs=specs)


def _description(name: str) -> tuple[tuple[str, ...] | None, dict[str, Any]]:
    """Dimensions and metadata of an array of the vocabulary; of others nothing is known."""
    folder, _, key = name.rpartition("/")
    if folder == "maps":
        of = key.removesuffix("_sigma")
        info, sigma = MAPS.get(of), "" if of == key else "σ of "
        label = {"label": f"{sigma}{MAP_LABELS[of]}"} if of in MAP_LABELS else {}
        return _MAP, {"dims": list(_MAP), "units": info.unit if info else "1", **label}
    if name in _AXES:
        dims, unit = _AXES[name]
        return dims, {"dims": list(dims), "units": unit}
    return None, {}
