"""The devices, and which of them are recorded once before and once after a run (baseline)."""
# names from before: settings (00-settings.py), session and RE (10-session.py)
# ruff: noqa: F821
# mypy: disable-error-code=name-defined

from bluesky.preprocessors import SupplementalData

from ptychrome.profiles.daily import follow_drift, keep_energy_offset
from ptychrome.profiles.session import simulated

beamline = simulated(session, settings)
dcm, stage, kb = beamline.dcm, beamline.stage, beamline.kb
eiger, shutter, flyer = beamline.eiger, beamline.shutter, beamline.flyer
i0, ring_current = beamline.i0, beamline.ring_current
drift = follow_drift(session)  # of the sample, as the live analysis finds it
keep_energy_offset(RE, dcm)

sd = SupplementalData(baseline=beamline.baseline)
RE.preprocessors.append(sd)
RE.md["sample_name"] = settings.sample
