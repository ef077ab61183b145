"""Ctrl-C, a real one, in mid-scan over Channel Access: detector and shutter are safe afterwards."""

import signal
import subprocess
import sys
import threading
from operator import attrgetter

import pytest

SCRIPT = """
import sys
from pathlib import Path

from ptychrome.profiles.channel_access import prepare_channel_access
from ptychrome.profiles.ioc import IOCOptions, ioc_settings

prefix, port, pixels, frames, writer, end = sys.argv[1:]
options = IOCOptions(prefix=prefix, port=int(port), frame_pixels=int(pixels))
eiger = {"read_directory": Path(frames), "writer": writer, "images_per_file": 4, "patience_s": 60.0}
settings = ioc_settings(options, eiger=eiger)
prepare_channel_access(settings.channel_access)

from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from ptychrome.plans import spectro_ptycho, square
from ptychrome.profiles.beamline import beamline

devices = beamline(settings, Path(frames))
assert devices.wait(60) == {}
RE = RunEngine({})
RE.subscribe(lambda name, doc: print(name, doc.get("exit_status", ""), flush=True))
trajectory = square(1.5e-6, 150e-9)
try:
    RE(spectro_ptycho([devices.eiger], devices.dcm, devices.stage, energies=[5420.0],
                      trajectory=trajectory, exposure_s=1.0, sample_name="P1"))
except RunEngineInterrupted:
    print("interrupted", RE.state, flush=True)
    getattr(RE, end)()
print("left", RE.state, flush=True)
"""
SETTINGS = "cam.acquire cam.trigger_mode cam.manual_trigger cam.num_triggers cam.fw_enable cam.save_files"
SETTINGS += " cam.fw_name_pattern cam.file_path"
HDF1 = " hdf1.capture hdf1.file_name hdf1.file_path hdf1.enable hdf1.file_write_mode hdf1.swmr_mode"
BETWEEN_S = 0.3  # two presses: Bluesky takes those within 0.1 s for one, and pauses at once at the second


def found(ca):
    return {name: attrgetter(name)(ca.eiger).get() for name in (SETTINGS + HDF1).split()}


@pytest.mark.parametrize(("writer", "end"), [("hdf1", "abort"), ("filewriter", "stop")])
def test_ctrl_c_twice_leaves_detector_and_shutter_safe(ca, ioc, simulate, until, tmp_path, writer, end):
    before = found(ca)
    simulate("Clock", 1.0)
    options = ioc.options
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            SCRIPT,
            options.prefix,
            str(options.port),
            str(options.frame_pixels),
            str(tmp_path),
            writer,
            end,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said = []
    reader = threading.Thread(target=lambda: said.extend(iter(process.stdout.readline, "")))
    reader.start()
    try:
        until(lambda: said.count("event \n") >= 2 or process.poll() is not None, "two frames")
        assert process.poll() is None, process.stderr.read()
        assert ca.shutter.is_open.get() == ca.eiger.cam.armed.get() == 1
        process.send_signal(signal.SIGINT)
        threading.Event().wait(BETWEEN_S)
        process.send_signal(signal.SIGINT)
        complaints = process.stderr.read()
        process.wait(120)
    finally:
        process.kill()
        reader.join()
    assert "interrupted paused\n" in said, said
    status = "abort" if end == "abort" else "success"
    assert said[-2:] == [f"stop {status}\n", "left idle\n"]
    assert process.returncode == 0, complaints
    assert ca.shutter.is_open.get() == ca.eiger.cam.armed.get() == 0
    assert found(ca) == before
