"""Which particles a report is about: read from files, folders or Tiled, and grouped by preparation."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ptychrome.callbacks.results import Revision
from ptychrome.callbacks.sinks.nexus import load_result
from ptychrome.callbacks.tiled_client import TiledUnavailable
from ptychrome.callbacks.tiled_results import read_results
from ptychrome.edges import edge_among
from ptychrome.profiles.errors import UserError

BY_NAME = {"P": "as-prepared", "D": "delithiated"}  # how the paper names its particles: P1, D1, …
OTHERS = "others"


@dataclass(frozen=True)
class Particle:
    """One particle of a report.

    Attributes
    ----------
    label : str
        Its name, unique in the report.
    group : str
        State of preparation.
    result : Revision
        With `label` for its sample name.
    """

    label: str
    group: str
    result: Revision

    @property
    def mapped(self) -> bool:
        """Whether any pixel has been fitted."""
        n_v = self.result.arrays.get("maps/n_v")
        return n_v is not None and bool(np.isfinite(n_v).any())


def read_particles(sources: Sequence[str], groups: Mapping[str, Sequence[str]]) -> tuple[Particle, ...]:
    """Read results and group them.

    Parameters
    ----------
    sources : sequence of str
        NeXus files of results, folders of them, addresses of results in Tiled.
    groups : mapping of str to sequence of str
        Samples of each group; empty: by the preparation that the results name, and where they name none by
        the letters of the paper (P1: as-prepared, D1: delithiated).

    Returns
    -------
    tuple of Particle
        Group by group, by name within a group.

    Raises
    ------
    UserError
        If something cannot be read, is not there or is there twice, or a group names an unknown sample.
    """
    results = [result for source in sources for result in _read(source)]
    twice = [uid for uid, count in Counter(each.raw_uid for each in results).items() if count > 1]
    if twice:
        raise UserError(f"run {twice[0]} is among the results twice; expected each once")
    names = Counter(each.sample_name for each in results)
    labels = [
        name if (name := each.sample_name) and names[name] == 1 else f"{name} {each.raw_uid[:8]}".strip()
        for each in results
    ]
    group_of = _groups(results, labels, groups)
    order = list(dict.fromkeys([*groups, *BY_NAME.values(), *group_of.values()]))
    if OTHERS in order:
        order.sort(key=OTHERS.__eq__)
    particles = [
        Particle(label, group_of[label], replace(result, sample_name=label))
        for label, result in zip(labels, results, strict=True)
    ]
    return tuple(sorted(particles, key=lambda each: (order.index(each.group), _natural(each.label))))


def edge_of(particles: Sequence[Particle]) -> tuple[str, str] | None:
    """Element and edge that all particles were scanned over; None: a single energy, or no edge.

    Raises
    ------
    UserError
        If they are not all of one edge.
    """
    found: dict[tuple[str, str], str] = {}
    for particle in particles:
        attributes = particle.result.attributes
        edge = (attributes["element"], attributes["edge"]) if "edge" in attributes else None
        if len(particle.result.arrays["energy"]) == 1:
            continue
        edge = edge or edge_among(particle.result.arrays["energy"].tolist())
        if edge is not None:
            found.setdefault(edge, particle.label)
    if len(found) > 1:
        told = ", ".join(f"{label}: {element} {edge}" for (element, edge), label in found.items())
        raise UserError(f"results are of different edges ({told}); expected one edge in a report")
    return next(iter(found), None)


def _read(source: str) -> Iterator[Revision]:
    if re.match(r"https?://", source):
        try:
            yield from read_results(source)
        except (TiledUnavailable, ValueError) as error:
            raise UserError(str(error)) from None
        return
    path = Path(source)
    files = sorted(path.glob("*.nxs"), key=lambda file: _natural(file.name)) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no .nxs file in this folder; expected results of ptychrome")
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; expected a .nxs file or a folder of them")
    for file in files:
        try:
            yield load_result(file)
        except ValueError as error:
            raise UserError(str(error)) from None


def _groups(
    results: Sequence[Revision], labels: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    for name, samples in groups.items():
        for sample in samples:
            if sample not in labels:
                raise UserError(
                    f"--group {name}: no sample {sample!r} in the results; expected some of "
                    f"{', '.join(labels)}"
                )
    if groups:
        chosen = {sample: name for name, samples in groups.items() for sample in samples}
        return {label: chosen.get(label, OTHERS) for label in labels}
    return {
        label: str(result.attributes.get("preparation") or _by_name(result.sample_name))
        for label, result in zip(labels, results, strict=True)
    }


def _by_name(sample_name: str) -> str:
    named = re.match(r"([A-Z])\d", sample_name)
    return BY_NAME.get(named[1], OTHERS) if named else OTHERS


def _natural(name: str) -> list[tuple[int, str]]:
    """P2 before P10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name) if part]
