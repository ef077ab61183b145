"""What a beamline must tell of itself: record names, distances, folders. Read from one TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ptychrome.profiles.settings import STREAM_ADDRESS, SessionSettings
from ptychrome.schema import PositiveFloat, ProbeModel

Pixels = Annotated[int, Field(gt=0)]
Pixel = Annotated[int, Field(ge=0)]
Retries = Annotated[int, Field(ge=0, le=10)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Record = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^\S+$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ChannelAccessSettings(_Section):
    """Where records are looked for.

    Attributes
    ----------
    addresses : tuple of str
        For ``EPICS_CA_ADDR_LIST``, with ``:port`` where it is not 5064; empty: as the environment has it.
    broadcast : bool
        Whether to search the local networks too (``EPICS_CA_AUTO_ADDR_LIST``).
    connect_s : float
        How long the start of a session waits for devices; those that are off-line then are named.
    timeout_s : float
        How long a scan waits for an answer, and for a record that has disconnected to come back.
    """

    addresses: tuple[str, ...] = ()
    broadcast: bool = True
    connect_s: PositiveFloat = 5.0
    timeout_s: PositiveFloat = 10.0


class DCMSettings(_Section):
    """The monochromator; see `ptychrome.devices.epics.EpicsDCM`."""

    prefix: Record
    bragg: Record = "Bragg"
    gap: Record = "Gap"
    pitch: Record = "Pitch"
    exit_offset_mm: PositiveFloat = 20.0
    spacing_angstrom: PositiveFloat = 3.1356
    energy_tolerance_eV: PositiveFloat = 0.05
    bragg_tolerance_deg: PositiveFloat = 2e-4
    gap_tolerance_mm: PositiveFloat = 0.002
    settle_s: NotNegative = 0.0
    timeout_s: PositiveFloat = 120.0


class StageSettings(_Section):
    """The raster stage: ``piezo`` (set point with put completion, and readback) or ``motors`` (records).

    Attributes
    ----------
    units : str
        Of the records; devices, plans and documents are in m.
    """

    kind: Literal["piezo", "motors"] = "piezo"
    prefix: Record
    x: Record = "X"
    y: Record = "Y"
    readback_suffix: str = "_RBV"
    units: Literal["m", "mm", "um", "nm"] = "m"
    tolerance_m: PositiveFloat = 10e-9
    settle_s: NotNegative = 0.0
    timeout_s: PositiveFloat = 10.0


class FlyerSettings(_Section):
    """The controller of fly scans; see `ptychrome.devices.epics_flyer.EpicsFlyer`.

    Attributes
    ----------
    max_speed_m_s : float
        Of the stage, on a line.
    ramp_s : float
        Time to come to speed and to rest.
    patience_s : float
        How much longer than planned a line may take.
    """

    prefix: Record
    max_speed_m_s: PositiveFloat = 20e-6
    ramp_s: PositiveFloat = 0.005
    patience_s: PositiveFloat = 5.0


class EigerSettings(_Section):
    """The detector; see `ptychrome.devices.detector_site.DetectorSite`.

    Attributes
    ----------
    writer : str
        ``hdf1`` (areaDetector's HDF5 plugin), ``filewriter`` (the detector itself) or ``stream`` (the
        session, which receives the detector's stream).
    stream : str or None
        Address of the detector's stream, for the writer ``stream``.
    images_per_file : int
        Frames of a file of ``filewriter``; they can be read when it is full.
    write_directory : str
        Where the file plugin's computer writes; "": `read_directory`.
    read_directory : Path or None
        The same folder as this computer names it; None: ``frames`` in the session's folder.
    bit_depth : int or None
        Expected of the frames: 8, 16 or 32; None: as the detector chooses.
    """

    prefix: Record
    writer: Literal["hdf1", "filewriter", "stream"] = "hdf1"
    stream: Annotated[str, Field(pattern=STREAM_ADDRESS)] | None = None
    images_per_file: Annotated[int, Field(gt=0)] = 1
    shape: tuple[Pixels, Pixels]
    pixel_size_m: tuple[PositiveFloat, PositiveFloat] = (75e-6, 75e-6)
    distance_m: PositiveFloat
    roi_origin: tuple[Pixel, Pixel] | None = None
    write_directory: str = ""
    read_directory: Path | None = None
    mask_dataset: str = ""
    patience_s: PositiveFloat = 5.0
    retries: Retries = 1
    bit_depth: Literal[8, 16, 32] | None = None

    @model_validator(mode="after")
    def _address(self) -> EigerSettings:
        if self.writer == "stream" and self.stream is None:
            raise ValueError(
                'writer is "stream" and stream is not set; expected its address, tcp://DETECTOR:9999'
            )
        return self

    @model_validator(mode="after")
    def _one_folder(self) -> EigerSettings:
        if self.write_directory and self.read_directory is None:
            raise ValueError(
                "write_directory is set and read_directory is not; expected the same folder under both names"
            )
        return self


class SuspenderSettings(_Section):
    """When a scan waits.

    Attributes
    ----------
    ring_current_mA : float
        Below this a scan is suspended; 0: never.
    resume_mA : float
        Above this it goes on.
    settle_s : float
        How long after that.
    """

    ring_current_mA: NotNegative = 0.0
    resume_mA: NotNegative = 0.0
    settle_s: NotNegative = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> SuspenderSettings:
        if self.resume_mA < self.ring_current_mA:
            raise ValueError(
                f"resume_mA is {self.resume_mA}; expected at least ring_current_mA = {self.ring_current_mA}"
            )
        return self


class BeamlineSettings(SessionSettings):
    """Settings of ``profile_ioc`` and ``profile_epics``, beside those of `SessionSettings`.

    Attributes
    ----------
    kb : str
        Prefix of the mirrors' records.
    i0, ring_current, shutter : str
        Records.
    front_end : str or None
        Record that is 0 while the front end is closed; scans wait then.
    probe : ProbeModel
        The nominal focus.
    """

    channel_access: ChannelAccessSettings = ChannelAccessSettings()
    dcm: DCMSettings
    stage: StageSettings
    eiger: EigerSettings
    flyer: FlyerSettings | None = None
    kb: Record
    i0: Record
    ring_current: Record
    shutter: Record
    front_end: Record | None = None
    probe: ProbeModel = ProbeModel()
    suspend: SuspenderSettings = SuspenderSettings()

    @property
    def frames(self) -> Path | None:
        """Folder of the detector's files; None: in the session's."""
        return self.eiger.read_directory

    @property
    def stream(self) -> str | None:
        """Address of the detector's stream, where frames come by it."""
        return self.eiger.stream if self.eiger.writer == "stream" else None
