"""A simulated beamline whose twin remembers what it exposed, a RunEngine and its documents."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.preprocessors import plan_mutator
from bluesky.utils import single_gen
from event_model import DocumentNames, schema_validators, unpack_event_page

from ptychrome.callbacks.sources.spool_process import StreamReceiver
from ptychrome.devices.simulated import simulated_beamline
from ptychrome.devices.twin import TwinBeamline
from ptychrome.plans import fly_spectro_ptycho, rows
from ptychrome.plans.spectro_ptycho import spectro_ptycho
from ptychrome.schema import validate_start

ENERGIES = [5420.0, 5465.5, 5480.25]
TRAJECTORY = {"kind": "points", "x": [-1e-7, 0.0, 1e-7, 2e-7], "y": [0.0, 3e-7, 0.0, -3e-7]}


class RecordingTwin:
    """Passes everything to a twin and keeps the exposures with the state they were made in."""

    def __init__(self, twin: Any) -> None:
        self.twin = twin
        self.detector, self.nominal_probe = twin.detector, twin.nominal_probe
        self.energy_eV, self.stage_m, self.shutter_open = twin.energy_eV, twin.stage_m, twin.shutter_open
        self.stage_velocity_m_s = twin.stage_velocity_m_s
        self.velocities: list[tuple[float, float]] = []
        self.exposures: list[tuple[float, tuple[float, float], bool, Any]] = []

    def expose(self, exposure_s: float) -> Any:
        self.twin.energy_eV, self.twin.stage_m = self.energy_eV, self.stage_m
        self.twin.stage_velocity_m_s, self.twin.shutter_open = self.stage_velocity_m_s, self.shutter_open
        exposure = self.twin.expose(exposure_s)
        self.exposures.append((self.energy_eV, self.stage_m, self.shutter_open, exposure))
        self.velocities.append(self.stage_velocity_m_s)
        return exposure


@dataclass(eq=False)
class Documents:
    """Collects documents, each checked against its schema on arrival."""

    all: list[tuple[str, dict]] = field(default_factory=list)

    def __call__(self, name: str, doc: dict) -> None:
        schema_validators[DocumentNames[name]].validate(doc)
        self.all.append((name, doc))

    def of(self, name: str) -> list[dict]:
        return [doc for kind, doc in self.all if kind == name]

    @property
    def start(self) -> dict:
        (start,) = self.of("start")
        return start

    @property
    def stop(self) -> dict:
        (stop,) = self.of("stop")
        return stop

    def events(self) -> dict[int, dict]:
        """Events of the primary stream by seq_num, the last one of each."""
        streams = {descriptor["uid"]: descriptor["name"] for descriptor in self.of("descriptor")}
        pages = [event for page in self.of("event_page") for event in unpack_event_page(page)]
        return {
            event["seq_num"]: event
            for event in [*self.of("event"), *pages]
            if streams[event["descriptor"]] == "primary"
        }

    def frames(self) -> dict[int, int]:
        """Index of the frame of each seq_num, the last one of each."""
        return {
            datum["seq_nums"]["start"] + i: datum["indices"]["start"] + i
            for datum in self.of("stream_datum")
            for i in range(datum["indices"]["stop"] - datum["indices"]["start"])
        }


@pytest.fixture
def twin():
    return RecordingTwin(TwinBeamline("P1", frame_pixels=48))


@pytest.fixture
def beamline(twin, tmp_path):
    return simulated_beamline(twin, tmp_path)


@pytest.fixture
def documents():
    return Documents()


@pytest.fixture
def collect():
    """For tests with several runs: a collector for each."""
    return Documents


@pytest.fixture
def RE(documents):
    engine = RunEngine({})
    engine.md_validator = validate_start
    engine.subscribe(documents)
    return engine


@pytest.fixture
def before():
    """``before("trigger", n, act)``: a preprocessor that acts before the n-th message of a kind.

    ``act()`` returns a message for after that one, or None.
    """

    def preprocessor(command, occurrence, act):
        seen = 0

        def insert(msg):
            nonlocal seen
            seen += msg.command == command
            if msg.command == command and seen == occurrence:
                request = act()
                return (None, None) if request is None else (None, single_gen(request))
            return None, None

        return lambda plan: plan_mutator(plan, insert)

    return preprocessor


@pytest.fixture
def received(ioc, tmp_path, collect):
    """Receiver of the IOC's stream, the documents that it passes on, and what it reports."""
    documents, reports = collect(), []
    receiver = StreamReceiver(
        ioc.options.stream, tmp_path, lambda name, doc: documents.all.append((name, doc)), reports.append
    )
    yield receiver, documents, reports
    receiver.close(0)


@pytest.fixture
def scan(beamline):
    """A tiny scan: 3 energies of 4 positions."""

    def plan(**options):
        options = {
            "energies": ENERGIES,
            "trajectory": TRAJECTORY,
            "exposure_s": 0.1,
            "sample_name": "P1",
        } | options
        return spectro_ptycho([beamline.eiger], beamline.dcm, beamline.stage, **options)

    return plan


@pytest.fixture
def fly(beamline):
    """A tiny fly scan: 2 energies of 3 lines of 5 frames."""

    def plan(**options):
        options = {
            "energies": ENERGIES[:2],
            "trajectory": rows(4e-7, 1e-7, 2e-7),
            "exposure_s": 0.01,
            "sample_name": "P1",
        } | options
        return fly_spectro_ptycho(beamline.flyer, beamline.dcm, **options)

    return plan
