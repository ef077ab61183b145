"""Synthetic results of one particle, and CXI files as other packages write them."""

from __future__ import annotations

import contextlib
import json
import resource
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.constants import electron_volt
from scipy.special import erf

from ptychrome.callbacks.results import Revision

K = 4
SHAPE = (90, 100)
PIXEL_M = 30e-9
ENERGIES_EV = np.r_[
    np.linspace(5420, 5460, 5), np.arange(5463, 5472), np.arange(5473, 5486), np.linspace(5490, 5540, 13)
]


def synthetic_revision(
    *, energies_done: int = 40, maps: bool = True, final: bool = True, sample_name: str = "P1", seed: int = 0
) -> Revision:
    """A particle of four states on a field of 90 x 100 pixels; energies that are not done are NaN."""
    rng = np.random.default_rng(seed)
    n = len(ENERGIES_EV)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    radius = np.hypot(rows - 40, (columns - 55) / 1.2)
    inside = radius < 22 + 4 * np.sin(3 * np.arctan2(rows - 40, columns - 55))
    state = np.clip(((rows + 7 * np.sin(columns / 6) - 20) // 11).astype(int), 0, K - 1)
    thickness = np.where(inside, 1 - 0.5 * (radius / 28) ** 2, 0.0)
    edge = np.where(inside, 5477.0 + state + 0.2 * rng.normal(size=SHAPE), np.nan)
    jump = 0.25 * thickness
    step = 0.5 * (1 + erf((ENERGIES_EV[:, None, None] - np.nan_to_num(edge, nan=5478.0)) / 2.5))
    absorbance = 0.02 + jump * step + 0.003 * rng.normal(size=(n, *SHAPE))
    phase = -1.2 * np.broadcast_to(thickness, absorbance.shape) + 0.004 * rng.normal(size=absorbance.shape)
    absorbance[energies_done:], phase[energies_done:] = np.nan, np.nan
    transmission = np.exp(1j * phase - absorbance / 2)
    y, x = ((size // 2 - np.arange(size)) * PIXEL_M for size in SHAPE)
    arrays: dict[str, np.ndarray] = {
        "energy": ENERGIES_EV,
        "y": y,
        "x": x,
        "object": transmission.astype(np.complex64),
        "absorbance": absorbance.astype(np.float32),
        "phase": phase.astype(np.float32),
        "probe": rng.normal(size=(n, 1, 32, 32, 2)).astype(np.float32).view(np.complex64)[..., 0],
        "quality/error": np.exp(-np.arange(30) / 9 - np.zeros((n, 1))).astype(np.float32) + 0.05,
    }
    if maps:
        n_v = np.where(inside, 4.2e22 * thickness, np.nan)
        values = {
            "edge_energy": edge,
            "edge_jump": np.where(inside, jump, np.nan),
            "pre_edge_area": np.where(inside, jump * (0.6 + 0.6 * state), np.nan),
            "pre_edge_ratio": np.where(inside, 0.6 + 0.6 * state + 0.1 * rng.normal(size=SHAPE), np.nan),
            "n_v": n_v,
            "n_eff": 40 * n_v,
            "n_eff_ratio": np.where(inside, 36 + 3 * state + rng.normal(size=SHAPE), np.nan),
        }
        for name, image in values.items():
            arrays[f"maps/{name}"] = image.astype(np.float32)
            arrays[f"maps/{name}_sigma"] = np.where(inside, 0.02 + 0.01 * radius, np.nan).astype(np.float32)
        label = np.where(inside, state, -1)
        amount = np.array([np.nansum(n_v * (label == k)) for k in range(K)])
        arrays |= {
            "maps/fitted": inside.astype(np.uint8),
            "clusters/label": label.astype(np.int32),
            "clusters/centers": np.array([(5477.0 + k, 0.6 + 0.6 * k, 36.0 + 3 * k) for k in range(K)]),
            "clusters/fractions": amount / amount.sum(),
            "clusters/spectra": np.array([absorbance[:, label == k].mean(axis=1) for k in range(K)]),
        }
    done = np.arange(energies_done)
    table = {"energy_eV": ENERGIES_EV[done], "r_factor": np.full(energies_done, 0.05), "frames": done + 144}
    attributes = {
        "recipe": "live",
        "options": {"stages": [{"engine": "epie", "sweeps": 15}], "clusters": K},
        "software": "ptychrome 0",
        "raw_uid": "0c9e3a7e-run",
        "energies_done": energies_done,
        "energies_planned": n,
    }
    return Revision(
        f"0c9e3a7e-run-{seed}", sample_name, attributes, arrays, {"quality/energies": table}, (), final
    )


def single_energy_revision() -> Revision:
    """A plain ptychography result: object, probe and convergence."""
    many = synthetic_revision(maps=False)
    stacks = ("energy", "object", "absorbance", "phase", "probe", "quality/error")
    arrays = {name: array[-1:] if name in stacks else array for name, array in many.arrays.items()}
    attributes = {**many.attributes, "energies_done": 1, "energies_planned": 1}
    tables = {name: {k: v[-1:] for k, v in table.items()} for name, table in many.tables.items()}
    return Revision("uid", "star", attributes, arrays, tables, (), True)


@pytest.fixture(scope="session")
def revision() -> Callable[..., Revision]:
    return synthetic_revision


@pytest.fixture(scope="session")
def single_energy() -> Revision:
    return single_energy_revision()


DETECTOR = "/entry_1/instrument_1/detector_1"


def cxi_fields(energy_eV: float = 5420.0, count: int = 5, seed: int = 0) -> dict[str, Any]:
    """The least that a CXI file holds: `count` frames of 6 x 8 pixels."""
    rng = np.random.default_rng(seed)
    return {
        "/entry_1/instrument_1/source_1/energy": energy_eV * electron_volt,
        f"{DETECTOR}/data": rng.poisson(9.0, (count, 6, 8)).astype(np.uint16),
        f"{DETECTOR}/distance": 1.27,
        f"{DETECTOR}/x_pixel_size": 75e-6,
        f"{DETECTOR}/y_pixel_size": 55e-6,
        "/entry_1/sample_1/geometry_1/translation": rng.uniform(-1e-6, 1e-6, (count, 3)),
    }


def write_cxi_file(path: Path, fields: dict[str, Any]) -> Path:
    """Write fields by their HDF5 path; None leaves a field out."""
    with h5py.File(path, "w") as file:
        file["cxi_version"] = 160
        for name, value in fields.items():
            if value is not None:
                file[name] = value
    return path


@pytest.fixture(scope="session")
def cxi() -> Callable[..., dict[str, Any]]:
    return cxi_fields


@pytest.fixture(scope="session")
def write_cxi() -> Callable[[Path, dict[str, Any]], Path]:
    return write_cxi_file


@pytest.fixture
def full_disk():
    """No file grows beyond 4 kB while this is entered: what a full disk does, without filling one."""

    @contextlib.contextmanager
    def limited():
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture(scope="session")
def twin_run(tmp_path_factory) -> list[tuple[str, dict[str, Any]]]:
    """Documents of a real scan on the simulated beamline: 6 energies of 16 frames of 48² pixels."""
    from bluesky import RunEngine

    from ptychrome.devices.simulated import simulated_beamline
    from ptychrome.devices.twin import TwinBeamline
    from ptychrome.plans import spectro_ptycho, square

    twin = TwinBeamline("P1", frame_pixels=48)
    beamline = simulated_beamline(twin, tmp_path_factory.mktemp("twin_run"))
    documents: list[tuple[str, dict[str, Any]]] = []
    RE = RunEngine()
    RE.subscribe(lambda name, doc: documents.append((name, doc)))
    energies = [5420.0, 5450.0, 5465.0, 5474.0, 5479.0, 5501.0]
    RE(
        spectro_ptycho(
            [beamline.eiger],
            beamline.dcm,
            beamline.stage,
            energies=energies,
            trajectory=square(600e-9, 200e-9),
            sample_name="P1",
        )
    )
    return documents


@pytest.fixture
def another_run(twin_run) -> list[tuple[str, dict[str, Any]]]:
    """The same scan a second time, under other uids."""
    text = json.dumps(twin_run)
    for name, doc in twin_run:
        if "uid" in doc and name != "event":
            text = text.replace(doc["uid"], str(uuid.uuid4()))
    return [(name, doc) for name, doc in json.loads(text)]
