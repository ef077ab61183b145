"""A small real scan that tests can interrupt between energies, and what to check afterwards."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  registers the frames' compression
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp

from ptychrome.analysis.recipe import Recipe
from ptychrome.callbacks.raw import replay
from ptychrome.devices.simplon_simulator import SimplonSimulator
from ptychrome.devices.simulated import simulated_beamline
from ptychrome.devices.twin import TwinBeamline
from ptychrome.plans import spectro_ptycho, square

ENERGIES = [5420.0, 5450.0, 5465.0, 5468.0, 5474.0, 5478.5, 5483.0, 5531.0]
SIDE, STEP_M = 7, 200e-9
RECIPE = {
    "name": "fast",
    "n_clusters": 2,
    "reconstruct": [{"engine": "epie", "sweeps": 10}, {"engine": "ml", "sweeps": 3}],
    "warm": [{"engine": "ml", "sweeps": 3}],
    # so few sweeps leave much noise; the maps are to be there, not to be good
    "chemistry": {"mask": {"min_snr": 1.0, "max_sigma_eV": 20.0, "floor_snr": 1.0}},
}


@dataclass
class Scan:
    """What one scan left behind: its documents as the RunEngine emitted them."""

    energies: list[float]
    documents: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def uid(self) -> str:
        return self.documents[0][1]["uid"]

    @property
    def stop(self) -> dict[str, Any]:
        return self.documents[-1][1]

    def totals(self) -> list[float]:
        """Counts of every frame, from the events."""
        events = (doc["data"] for name, doc in self.documents if name == "event")
        return [data["eiger_total"] for data in events if "eiger_total" in data]

    def check_complete(self, documents_folder: Path) -> Path:
        """The scan went to its end; its documents file has every document, the HDF5 file every frame."""
        assert self.stop["exit_status"] == "success"
        path = documents_folder / f"{self.uid}.jsonl"
        stored = list(replay(path))
        assert [(name, doc.get("uid")) for name, doc in stored] == [
            (name, doc.get("uid")) for name, doc in self.documents
        ]
        totals = self.totals()
        assert len(totals) == len(self.energies) * SIDE**2
        (resource,) = [doc for name, doc in stored if name == "stream_resource"]
        with h5py.File(resource["uri"].removeprefix("file://localhost")) as file:
            frames = file[resource["parameters"]["dataset"]][()]
            masked = file["/entry/instrument/detector/detectorSpecific/pixel_mask"][()] != 0
        saturated = frames == 2**32 - 1
        np.testing.assert_array_equal(
            frames.sum(axis=(1, 2), where=~(masked | saturated), dtype=np.uint64), totals
        )
        return path


@pytest.fixture(scope="session")
def ipython() -> Callable[..., subprocess.CompletedProcess]:
    """``ipython(profile, cwd, *arguments)`` runs a real IPython to its end."""

    def run(profile: Path, cwd: Path, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "IPython", f"--profile-dir={profile}", "--colors=NoColor", *arguments],
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=500,  # some minutes on a machine that does much else
        )

    return run


@pytest.fixture(scope="session")
def copy_profile() -> Callable[[Path, Path, str], Path]:
    """``copy_profile(profile, folder, settings)``: its startup files as they are, with settings of our own.

    IPython writes its history there too.
    """

    def copy(original: Path, folder: Path, settings: str) -> Path:
        profile = folder / "profile_copy"
        shutil.copytree(original / "startup", profile / "startup")
        (profile / "settings.toml").write_text(settings)
        return profile

    return copy


@pytest.fixture(scope="session")
def fast_recipe() -> Recipe:
    return Recipe.model_validate(RECIPE)


@pytest.fixture(scope="session")
def energies() -> list[float]:
    return list(ENERGIES)


@pytest.fixture
def measure() -> Callable[..., Scan]:
    """``measure(RE, frames_folder, before, energies)`` scans some energies of 49 frames of 64² pixels each.

    ``before(k, beamline)`` is called when k energies are measured and the next one is due; what it returns,
    if anything, is a plan to run there.
    """

    def run(
        RE: RunEngine,
        frames: Path,
        before: Callable[..., Any] = lambda k, beamline: None,
        energies: Sequence[float] = ENERGIES,
        stream: SimplonSimulator | None = None,
    ) -> Scan:
        beamline = simulated_beamline(TwinBeamline("P1", frame_pixels=64), frames, stream=stream)
        scan, measured = Scan(list(energies)), iter(range(len(energies)))

        def interject(msg: Any) -> tuple[Any, None]:
            if msg.command != "set" or msg.obj is not beamline.dcm.energy:
                return None, None
            plan = before(next(measured), beamline) or bps.null()
            return bpp.pchain(plan, bpp.single_gen(msg)), None

        token = RE.subscribe(lambda name, doc: scan.documents.append((name, doc)))
        try:
            RE(
                bpp.plan_mutator(
                    spectro_ptycho(
                        [beamline.eiger],
                        beamline.dcm,
                        beamline.stage,
                        energies=scan.energies,
                        trajectory=square((SIDE - 1) * STEP_M, STEP_M),
                        sample_name="P1",
                    ),
                    interject,
                )
            )
        finally:
            RE.unsubscribe(token)
        return scan

    return run
