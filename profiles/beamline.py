"""The devices of a beamline, made from its settings; imported only after `prepare_channel_access`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ophyd import Device
from ophyd.signal import EpicsSignalBase

from ptychrome.devices.detector_site import DetectorSite
from ptychrome.devices.epics import (
    EpicsDCM,
    EpicsFrontEnd,
    EpicsIonChamber,
    EpicsKB,
    EpicsMotorStage,
    EpicsRingCurrent,
    EpicsShutter,
    EpicsStage,
)
from ptychrome.devices.epics_eiger import EpicsEiger
from ptychrome.devices.epics_filewriter import FileWriterEiger
from ptychrome.devices.epics_flyer import EpicsFlyer
from ptychrome.devices.epics_stream import FrameArrivals, StreamEiger
from ptychrome.devices.file_detector import Companions
from ptychrome.profiles.beamline_settings import BeamlineSettings, EigerSettings, StageSettings
from ptychrome.profiles.errors import UserError


@dataclass(frozen=True)
class Beamline:
    """All devices of a beamline, ready for plans; attributes as those of a simulated one."""

    dcm: EpicsDCM
    stage: EpicsStage | EpicsMotorStage
    eiger: EpicsEiger
    flyer: EpicsFlyer | None
    kb: EpicsKB
    i0: EpicsIonChamber
    ring_current: EpicsRingCurrent
    shutter: EpicsShutter
    front_end: EpicsFrontEnd | None

    @property
    def devices(self) -> list[Device]:
        """All of them."""
        return [device for device in vars(self).values() if device is not None]

    @property
    def baseline(self) -> list[Device]:
        """What is worth a reading before and after every run."""
        return [self.dcm, self.stage, self.kb, self.ring_current]

    @property
    def scanned(self) -> list[EpicsSignalBase]:
        """Signals without which a scan cannot go on."""
        axes = map(_readback, (self.dcm.bragg, self.dcm.gap, self.stage.x, self.stage.y))
        others = (self.eiger.exposure_time, self.i0.value, self.ring_current.value, self.shutter.is_open)
        return [*axes, *others]

    def wait(self, timeout_s: float) -> dict[str, list[str]]:
        """Wait for all devices to connect.

        Returns
        -------
        dict
            Of each device that is off-line after the time: the records that are missing. They go on being
            looked for.
        """
        end = time.monotonic() + timeout_s
        offline = {}
        for device in self.devices:
            try:
                device.wait_for_connection(timeout=max(end - time.monotonic(), 0.01))
            except TimeoutError:
                offline[device.name] = missing_records(device)
        return {name: records for name, records in offline.items() if records}


def _readback(axis: Any) -> EpicsSignalBase:
    return axis.readback if hasattr(axis, "readback") else axis.user_readback


def missing_records(device: Device) -> list[str]:
    """Names of a device's records that nobody serves now."""
    return [
        record
        for walk in device.walk_signals(include_lazy=False)
        if isinstance(walk.item, EpicsSignalBase)
        for record, connected in walk.item._connection_states.items()
        if not connected
    ]


def beamline(settings: BeamlineSettings, frames: Path, arrivals: FrameArrivals | None = None) -> Beamline:
    """Make all devices; they connect by themselves, whenever they can be reached.

    Parameters
    ----------
    settings : BeamlineSettings
    frames : Path
        Folder of the detector's files where the settings name none.
    arrivals : FrameArrivals, optional
        Of the receiver of the detector's stream, where the settings have frames come by it.

    Raises
    ------
    UserError
        If the settings want a receiver and there is none.
    """
    dcm = _dcm(settings)
    i0 = EpicsIonChamber(settings.i0, name="i0", labels={"detectors"})
    ring_current = EpicsRingCurrent(settings.ring_current, name="ring_current", labels={"detectors"})
    shutter = EpicsShutter(settings.shutter, name="shutter")
    stage = _stage(settings.stage)
    companions = Companions(monitors=(i0, ring_current), shutter=shutter, probe=settings.probe.model_dump())
    eiger = _eiger(settings.eiger, frames, arrivals, dcm.energy, companions)
    flyer = None
    if settings.flyer is not None:
        flyer = EpicsFlyer(name="flyer", detector=eiger, stage=stage, dcm=dcm, **settings.flyer.model_dump())
    return Beamline(
        dcm=dcm,
        stage=stage,
        eiger=eiger,
        flyer=flyer,
        kb=EpicsKB(settings.kb, name="kb", labels={"motors"}),
        i0=i0,
        ring_current=ring_current,
        shutter=shutter,
        front_end=EpicsFrontEnd(settings.front_end, name="front_end") if settings.front_end else None,
    )


def _dcm(settings: BeamlineSettings) -> EpicsDCM:
    values = settings.dcm.model_dump()
    settle_s, timeout_s = values.pop("settle_s"), values.pop("timeout_s")
    dcm = EpicsDCM(values.pop("prefix"), name="dcm", labels={"motors"}, settle_time=settle_s, **values)
    for axis in (dcm, dcm.energy, dcm.bragg, dcm.gap, dcm.pitch):
        axis.timeout = timeout_s
    return dcm


def _stage(settings: StageSettings) -> EpicsStage | EpicsMotorStage:
    where: dict[str, Any] = {"x": settings.x, "y": settings.y, "units": settings.units}
    where |= {"name": "stage", "labels": {"motors"}}
    stage: EpicsStage | EpicsMotorStage
    if settings.kind == "motors":
        stage = EpicsMotorStage(settings.prefix, **where)
    else:
        stage = EpicsStage(settings.prefix, readback_suffix=settings.readback_suffix, **where)
    for axis in (stage.x, stage.y):
        axis.tolerance, axis.settle_time, axis.timeout = (
            settings.tolerance_m,
            settings.settle_s,
            settings.timeout_s,
        )
    return stage


def _eiger(
    settings: EigerSettings,
    frames: Path,
    arrivals: FrameArrivals | None,
    energy: Any,
    companions: Companions,
) -> EpicsEiger:
    common: dict[str, Any] = {
        "site": _site(settings, frames),
        "energy": energy,
        "name": "eiger",
        "companions": companions,
        "labels": {"detectors"},
    }
    if settings.writer == "filewriter":
        return FileWriterEiger(settings.prefix, images_per_file=settings.images_per_file, **common)
    if settings.writer == "stream":
        if arrivals is None:
            raise UserError(
                f'writer is "stream" in [eiger] and nobody receives {settings.stream}; expected a session '
                "that was opened with this stream"
            )
        return StreamEiger(settings.prefix, arrivals=arrivals, **common)
    return EpicsEiger(settings.prefix, **common)


def _site(settings: EigerSettings, frames: Path) -> DetectorSite:
    read_directory = str(settings.read_directory or frames.resolve())
    return DetectorSite(
        shape=settings.shape,
        pixel_size_m=settings.pixel_size_m,
        distance_m=settings.distance_m,
        write_directory=settings.write_directory or read_directory,
        read_directory=read_directory,
        roi_origin=settings.roi_origin,
        mask_dataset=settings.mask_dataset,
        patience_s=settings.patience_s,
        retries=settings.retries,
        bit_depth=settings.bit_depth,
    )
