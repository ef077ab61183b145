"""The energy scale from a foil: runs of the plan calibrate_energy in, the offset out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ptychrome.analysis.bulk import foil_offset
from ptychrome.analysis.scan import DataError
from ptychrome.callbacks.dispatch import Report

FOIL = "foil"  # the block of the start document: edge_eV, and the data keys energy, before and behind


class FoilCalibration:
    """Takes documents; a complete scan of a foil makes an offset.

    It keeps three numbers a point and fits them in milliseconds, so it may be subscribed to a RunEngine.

    Parameters
    ----------
    store : callable
        ``store(offset_eV, sigma_eV)``: what must be added to the monochromator's energies, and its error.
    report : callable
        Told in one line why a scan does not give an offset.
    """

    def __init__(self, store: Callable[[float, float], None], report: Report) -> None:
        self._store = store
        self._report = report
        self._foil: Mapping[str, Any] | None = None
        self._points: dict[int, tuple[float, float, float]] = {}

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document."""
        if name == "start":
            self._foil, self._points = doc.get(FOIL), {}
        elif self._foil is not None and name == "event":
            keys = (self._foil[key] for key in ("energy", "before", "behind"))
            if all(key in doc["data"] for key in (self._foil["energy"], self._foil["behind"])):
                # a position that is repeated after a pause replaces its first measurement
                self._points[doc["seq_num"]] = tuple(float(doc["data"][key]) for key in keys)  # type: ignore
        elif self._foil is not None and name == "stop" and doc["exit_status"] == "success":
            self._conclude(float(self._foil["edge_eV"]))

    def _conclude(self, edge_eV: float) -> None:
        energy, before, behind = np.array(list(self._points.values())).T
        absorbance = np.full(len(energy), np.nan)
        lit = (before > 0) & (behind > 0)
        absorbance[lit] = np.log(before[lit] / behind[lit])
        try:
            offset_eV, sigma_eV = foil_offset(energy, absorbance, edge_eV)
        except DataError as error:
            self._report(f"energy not calibrated: {error}")
        else:
            self._store(offset_eV, sigma_eV)
