"""The devices, what is recorded before and after a run (baseline), and what a scan waits for (suspenders)."""
# names from before: settings (00-settings.py), session and RE (10-session.py)
# ruff: noqa: F821
# mypy: disable-error-code=name-defined

from bluesky.preprocessors import SupplementalData

from ptychrome.profiles.daily import follow_drift, keep_energy_offset
from ptychrome.profiles.interactive import connect_beamline
from ptychrome.profiles.suspenders import install_suspenders

beamline = connect_beamline(session, settings)
dcm, stage, kb = beamline.dcm, beamline.stage, beamline.kb
eiger, shutter, front_end = beamline.eiger, beamline.shutter, beamline.front_end
flyer = beamline.flyer  # None where the settings have none
i0, ring_current = beamline.i0, beamline.ring_current
drift = follow_drift(session)  # of the sample, as the live analysis finds it
keep_energy_offset(RE, dcm)

sd = SupplementalData(baseline=beamline.baseline)
RE.preprocessors.append(sd)
suspenders = install_suspenders(RE, beamline, settings.suspend)
