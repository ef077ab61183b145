"""Documents in, complete energies out: references to frames on disk, paired with positions by identity."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlparse

import numpy as np
from event_model import EventPage, unpack_event_page
from numpy.typing import NDArray

from ptychrome.schema import (
    DARK_SUFFIX,
    MASK_SUFFIX,
    PROBE_SUFFIX,
    ScanMetadata,
    scan_metadata,
)


class IntakeError(ValueError):
    """Documents that cannot be understood as a scan; the message names what was expected."""


@dataclass(frozen=True)
class FrameFile:
    """Where frames lie: one HDF5 file with its static arrays (paths of datasets, None where absent).

    Attributes
    ----------
    path, dataset
        The frames.
    mask, dark, probe
        Datasets of the static arrays.
    master : Path or None
        The file that has them, where it is another one.
    window : (int, int, int, int) or None
        First and last + 1 row, then column, of what counts of the stored frames and of the mask; None: all.
    """

    path: Path
    dataset: str
    mask: str | None = None
    dark: str | None = None
    probe: str | None = None
    master: Path | None = None
    window: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, eq=False)
class EnergyJob:
    """All that is needed to reconstruct one energy; frames are references, not arrays.

    Attributes
    ----------
    raw_uid : str
        The run.
    index : int
        Place on the planned energy axis.
    metadata : ScanMetadata
    frames : tuple of (FrameFile, int)
        File and frame number of each position, in the order of the positions.
    stage_yx_m : (n, 2) float64, m
        Sample translations.
    i0 : (n,) float64 or None
        Incident intensity of each frame.
    complete : bool
        Whether all planned positions arrived.
    """

    raw_uid: str
    index: int
    metadata: ScanMetadata
    frames: tuple[tuple[FrameFile, int], ...]
    stage_yx_m: NDArray[np.float64]
    i0: NDArray[np.float64] | None
    complete: bool = True

    @property
    def energy_eV(self) -> float:
        """Planned photon energy, eV."""
        return self.metadata.energies_eV[self.index]


@dataclass
class Intake:
    """Collects the documents of one run.

    Idempotent by sequence number, last write wins: after a pause the RunEngine repeats positions with
    the same numbers. A position counts once both its event and its frame are known.
    """

    metadata: ScanMetadata
    raw_uid: str
    _files: dict[str, FrameFile] = field(default_factory=dict)
    _events: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    _frames: dict[int, tuple[FrameFile, int]] = field(default_factory=dict)
    _members: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    _primary: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    _issued: set[int] = field(default_factory=set)

    @classmethod
    def from_start(cls, start: Mapping[str, Any]) -> Intake:
        """Begin a run.

        Raises
        ------
        ptychrome.schema.SchemaError
            If the start document does not describe a spectro-ptychography scan.
        """
        return cls(scan_metadata(start), start["uid"])

    @property
    def frames_seen(self) -> int:
        """Positions whose frame and event have both arrived."""
        return sum(len(members) for members in self._members.values())

    def __call__(self, name: str, doc: Mapping[str, Any]) -> list[EnergyJob]:
        """Take one document; return the energies that it completed (usually none)."""
        match name:
            case "descriptor" if doc.get("name") == "primary":
                self._primary[doc["uid"]] = doc
            case "stream_resource" if doc["data_key"] == self.metadata.keys.image:
                self._files[doc["uid"]] = self._frame_file(doc)
            case "stream_datum" if doc["stream_resource"] in self._files:
                return self._take_frames(doc)
            case "event" if doc["descriptor"] in self._primary:
                return self._take_event(doc["seq_num"], doc["data"])
            case "event_page" if doc["descriptor"] in self._primary:
                jobs = []
                for event in unpack_event_page(cast(EventPage, doc)):
                    jobs += self._take_event(event["seq_num"], event["data"])
                return jobs
            case "stop":
                return [self._job(index) for index in sorted(self._members) if index not in self._issued]
        return []

    def _frame_file(self, doc: Mapping[str, Any]) -> FrameFile:
        static: dict[str, str | None] = {"mask": None, "dark": None, "probe": None}
        suffixes = {"mask": MASK_SUFFIX, "dark": DARK_SUFFIX, "probe": PROBE_SUFFIX}
        for descriptor in self._primary.values():
            for device in descriptor.get("configuration", {}).values():
                for kind, suffix in suffixes.items():
                    value = device["data"].get(f"{self.metadata.keys.image}_{suffix}")
                    static[kind] = value or static[kind]
        parameters = doc["parameters"]
        master, window = parameters.get("master"), parameters.get("slice")
        return FrameFile(
            local_path(doc["uri"]),
            parameters["dataset"],
            master=local_path(master) if master else None,
            window=_window(window) if window else None,
            **static,
        )

    def _take_frames(self, doc: Mapping[str, Any]) -> list[EnergyJob]:
        file = self._files[doc["stream_resource"]]
        indices, numbers = doc["indices"], doc["seq_nums"]
        span = range(numbers["start"], numbers["stop"])
        for frame, number in zip(range(indices["start"], indices["stop"]), span, strict=True):
            self._frames[number] = (file, frame)
        return self._completed(span)

    def _take_event(self, number: int, data: Mapping[str, Any]) -> list[EnergyJob]:
        self._events[number] = data
        return self._completed([number])

    def _completed(self, numbers: Any) -> list[EnergyJob]:
        jobs = []
        for number in numbers:
            if number not in self._frames or number not in self._events:
                continue
            index = self._energy_index(self._events[number][self.metadata.keys.energy])
            members = self._members[index]
            members.add(number)
            full = len(members) >= self.metadata.positions_per_energy[index]
            if full and index not in self._issued:
                self._issued.add(index)
                jobs.append(self._job(index))
        return jobs

    def _energy_index(self, energy_eV: float) -> int:
        planned = np.asarray(self.metadata.energies_eV)
        index = int(np.argmin(np.abs(planned - energy_eV)))
        gap = np.diff(np.sort(planned)).min() if len(planned) > 1 else 1.0
        if not abs(planned[index] - energy_eV) <= gap / 2:
            raise IntakeError(
                f"an event at {energy_eV} eV is none of the planned energies "
                f"({planned.min():.2f} to {planned.max():.2f} eV); expected one within {gap / 2:.3g} eV"
            )
        return index

    def _job(self, index: int) -> EnergyJob:
        keys = self.metadata.keys
        numbers = sorted(self._members[index])
        events = [self._events[number] for number in numbers]
        return EnergyJob(
            raw_uid=self.raw_uid,
            index=index,
            metadata=self.metadata,
            frames=tuple(self._frames[number] for number in numbers),
            stage_yx_m=np.array([(event[keys.y], event[keys.x]) for event in events], dtype=float),
            i0=np.array([event[keys.i0] for event in events], dtype=float) if keys.i0 else None,
            complete=len(numbers) >= self.metadata.positions_per_energy[index],
        )


def local_path(uri: str) -> Path:
    """The file that a document names."""
    return Path(unquote(urlparse(uri).path))


def _window(text: str) -> tuple[int, int, int, int]:
    """Bounds of rows and columns in a slice such as ``":,387:643,405:661"``."""
    found = re.fullmatch(r":,(\d+):(\d+),(\d+):(\d+)", text)
    if found is None:
        raise IntakeError(
            f"the frames are a slice {text!r}; expected all frames, rows and columns: ':,a:b,c:d'"
        )
    top, bottom, left, right = map(int, found.groups())
    return top, bottom, left, right
