"""The EIGER chooses the bit depth by the exposure; frames, flags and analysis follow, or it is refused."""

from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (the filter that the frames are compressed with)
import numpy as np
import pytest
from bluesky import RunEngine

from ptychrome.callbacks.intake import Intake
from ptychrome.callbacks.reconstruct import geometry_at, load
from ptychrome.plans import choose_exposure, spectro_ptycho

TRAJECTORY = {"kind": "points", "x": [-1e-7, 0.0, 1e-7, 2e-7], "y": [0.0, 3e-7, 0.0, -3e-7]}
LONG_S, SHORT_S = 0.1, 2e-3


def scan(beamline, exposure_s):
    options = {"energies": [5420.0], "trajectory": TRAJECTORY, "sample_name": "P1", "exposure_s": exposure_s}
    return spectro_ptycho([beamline.eiger], beamline.dcm, beamline.stage, **options)


def frames_of(documents):
    resource, *_ = documents.of("stream_resource")
    with h5py.File(Path(resource["uri"].removeprefix("file://localhost"))) as file:
        return file[resource["parameters"]["dataset"]][()]


@pytest.mark.parametrize("writer", ["hdf1", "filewriter"])
@pytest.mark.parametrize(("exposure_s", "bits"), [(LONG_S, 32), (SHORT_S, 16)])
def test_frames_flags_and_analysis_follow_the_depth(ca, connect, RE, documents, writer, exposure_s, bits):
    beamline = connect(eiger={"writer": writer, "images_per_file": 4, "bit_depth": bits})
    RE(scan(beamline, exposure_s))
    frames, flag = frames_of(documents), 2**bits - 1
    (descriptor,) = documents.of("descriptor")
    assert descriptor["data_keys"]["eiger_image"]["dtype_numpy"] == frames.dtype == f"<u{bits // 8}"
    assert descriptor["configuration"]["eiger"]["data"]["eiger_bit_depth"] == bits
    intake = Intake.from_start(documents.start)
    (job,) = [job for name, doc in documents.all for job in intake(name, doc)]
    data, _ = load(job, geometry_at(job.metadata, job.energy_eV))
    blind = np.fft.fftshift(data.amplitude, axes=(1, 2)) < 0
    np.testing.assert_array_equal(blind, frames == flag)
    assert blind.any()
    for number, event in documents.events().items():
        total = frames[number - 1].sum(where=~blind[number - 1], dtype=np.uint64)
        assert event["data"]["eiger_total"] == total > 0


def test_another_depth_than_expected_is_refused(ca, connect):
    eiger = connect(eiger={"bit_depth": 32}).eiger
    before = eiger.cam.num_triggers.get(), eiger.hdf1.file_path.get()
    eiger.exposure_time.set(SHORT_S).wait(timeout=60)
    with pytest.raises(RuntimeError, match=r"frames of 16 bits at an exposure of 0.002 s; .* expect 32"):
        eiger.stage()
    assert (eiger.cam.num_triggers.get(), eiger.hdf1.file_path.get()) == before
    eiger.exposure_time.set(LONG_S).wait(timeout=60)
    eiger.stage()
    eiger.unstage()
    with pytest.raises(ValueError, match="bit_depth"):
        connect(eiger={"bit_depth": 12})


def test_the_exposure_chosen_reckons_with_the_depth_that_it_has(ca):
    """16 bits of the exposure tried at first would limit it to 0.04 s."""
    engine = RunEngine({}, call_returns_result=True)
    ca.stage.x.set(2e-5).wait(timeout=60)  # nothing but the direct beam
    chosen = engine(choose_exposure([ca.eiger], photons=3e7, start_s=SHORT_S)).plan_result
    # 1e8 photons per second, less 0.3 % that is masked; 1 % of fluctuation, three times
    assert chosen == ca.eiger.exposure_time.get() == pytest.approx(0.3, rel=0.033)
    assert ca.eiger.bit_depth.get() == 32
