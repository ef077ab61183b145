"""What the pipeline hands to its sinks: one revision of the results of one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Revision:
    """The whole state of a run's results at one moment; a run has many, the last one is `final`.

    Attributes
    ----------
    raw_uid, sample_name : str
        The run.
    attributes : mapping
        JSON-able: recipe, options, software version, raw uid, energies done and planned.
    arrays : mapping of str to ndarray
        Every array under its name in the vocabulary (``"maps/edge_energy"``), whole.
    tables : mapping of str to mapping
        Columns of equal length under the name of the table (``"quality/energies"``).
    changed : tuple of int
        Places on the energy axis whose slices of object, absorbance, phase and probe differ from the
        revision before.
    final : bool
        Nothing more will come of this run.
    """

    raw_uid: str
    sample_name: str
    attributes: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    tables: Mapping[str, Mapping[str, np.ndarray]]
    changed: tuple[int, ...]
    final: bool


class Sink(Protocol):
    """Takes revisions somewhere. An exception it raises is reported and never reaches the scan."""

    def write(self, revision: Revision) -> None:
        """Take one revision."""

    def close(self) -> None:
        """Finish; called once, after the last revision of the last run."""
