"""What plans of daily use need from a session: the drift as found, the energy offset kept, the focus told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ptychrome.analysis.focus import Focus, focus_of
from ptychrome.analysis.scan import DataError
from ptychrome.callbacks.calibration import FoilCalibration
from ptychrome.callbacks.progress import Status
from ptychrome.callbacks.reconstruct import geometry_at
from ptychrome.profiles.errors import UserError
from ptychrome.schema import RAW_ROOT, RESULT_ROOT, START_KEY, scan_metadata

if TYPE_CHECKING:
    from bluesky import RunEngine

    from ptychrome.devices.drift import DriftMonitor
    from ptychrome.profiles.session import Session

OFFSET_KEY = "energy_offset_eV"  # in RE.md
MIRRORS = ("vertical", "horizontal")


def follow_drift(session: Session) -> DriftMonitor:
    """A device ``drift`` that knows how far the sample of the present scan has drifted.

    Its value is what the live analysis found when it aligned the newest energy; 0 at the start of a scan.
    """
    from ptychrome.devices.drift import DriftMonitor

    drift = DriftMonitor(name="drift")
    present = ""

    def begin(name: str, start: Mapping[str, Any]) -> None:
        nonlocal present
        if START_KEY in start:
            present = start["uid"]
            drift.tell(0.0, 0.0)

    def update(status: Status) -> None:
        if status.raw_uid == present:
            drift.tell(*status.drift_m)

    session.RE.subscribe(begin, "start")
    session.runs.follow(update)
    return drift


def keep_energy_offset(RE: RunEngine, dcm: Any, say: Callable[[str], None] = print) -> None:
    """Give a monochromator the offset that an earlier session found, and keep what calibrate_energy finds.

    Parameters
    ----------
    RE : RunEngine
        The offset is kept in its metadata, and so goes into every start document.
    dcm : device
        With a signal ``energy_offset``, eV.
    say : callable
        Told what a foil says.
    """

    def store(offset_eV: float, sigma_eV: float) -> None:
        before = dcm.energy_offset.get()
        dcm.energy_offset.put(offset_eV)
        RE.md[OFFSET_KEY] = offset_eV
        say(
            f"energy offset {offset_eV:+.2f} ± {sigma_eV:.2f} eV (it was {before:+.2f} eV): "
            "the scans from now on carry it with them"
        )

    dcm.energy_offset.put(float(RE.md.get(OFFSET_KEY, 0.0)))
    RE.subscribe(FoilCalibration(store, say))


def measure_focus(session: Session, uid: str | None = None) -> Focus:
    """The focus by the reconstructed probe of a run's lowest energy.

    Parameters
    ----------
    session : Session
    uid : str, optional
        Of the run; by default the newest one.

    Raises
    ------
    UserError
        If there is no run, or no probe of it.
    """
    uid = uid or session.runs.newest
    if uid is None:
        raise UserError("no run yet: RE(align_focus([eiger], dcm, stage)) makes one")
    session.wait()
    client = session.client()
    try:
        result, metadata = client[RESULT_ROOT, uid], scan_metadata(client[RAW_ROOT, uid].metadata["start"])
        probe = result["probe"][0, 0]
    except KeyError:
        raise UserError(f"no probe of run {uid[:8]}: was it analysed?") from None
    energy_eV = min(metadata.energies_eV)
    try:
        return focus_of(probe, geometry_at(metadata, energy_eV).pixel_m, energy_eV)
    except DataError as error:
        raise UserError(f"run {uid[:8]}: {error}") from None


def describe_focus(focus: Focus) -> str:
    """One line for each mirror."""
    return "\n".join(
        f"{mirror}: the sample stands {abs(defocus) * 1e6:.0f} µm "
        f"{'downstream' if defocus > 0 else 'upstream'} of the focus, which is {fwhm * 1e9:.0f} nm wide"
        for mirror, defocus, fwhm in zip(MIRRORS, focus.defocus_m, focus.fwhm_m, strict=True)
    )
