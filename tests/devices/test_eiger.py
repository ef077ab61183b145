"""The simulated EIGER by itself: its file, its threads, its refusals (some seconds, in other processes)."""

import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest

from ptychrome.devices.clock import Clock
from ptychrome.devices.eiger import SimulatedEiger
from ptychrome.devices.frame_file import DATA_DATASET, MASK_DATASET

SHAPE = (48, 64)


def _mask():
    mask = np.zeros(SHAPE, np.uint32)
    mask[20:24] = 1
    return mask


@dataclass(frozen=True)
class Model:
    shape: tuple[int, int] = SHAPE
    pixel_size_m: tuple[float, float] = (75e-6, 75e-6)
    distance_m: float = 1.27
    mask: np.ndarray = field(default_factory=_mask)
    bit_depth: int = 32


def noise(seed):
    """A frame whose masked pixels read the flag, as an EIGER's do."""
    counts = np.random.default_rng(seed).poisson(1000, SHAPE).astype(np.uint32)
    return np.where(_mask() == 0, counts, np.uint32(2**32 - 1))


class Frames:
    """Hands out the frames of `noise`, one after the other."""

    def __init__(self):
        self.count = 0

    def __call__(self, exposure_s):
        self.count += 1
        return noise(self.count - 1)


@pytest.fixture
def eiger(tmp_path):
    detector = SimulatedEiger(Frames(), Model(), tmp_path, name="eiger")
    yield detector
    detector.unstage()


def the_file(eiger_directory):
    (path,) = Path(eiger_directory).glob("*.h5")
    return path


def documents(eiger):
    return list(eiger.collect_asset_docs())


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_fewer_bits_give_a_smaller_flag(tmp_path, bit_depth):
    """Masked pixels and those that do not fit read the largest number of the file's dtype."""
    flag = 2**bit_depth - 1

    def bright(exposure_s):
        frame = noise(0)
        frame[0, 0] = flag + 1
        return frame

    detector = SimulatedEiger(bright, Model(bit_depth=bit_depth), tmp_path, name="eiger")
    detector.stage()
    detector.trigger().wait(timeout=10)
    assert detector.describe()["eiger_image"]["dtype_numpy"] == f"<u{bit_depth // 8}"
    detector.unstage()
    with h5py.File(the_file(tmp_path)) as file:
        assert file[DATA_DATASET].dtype == f"<u{bit_depth // 8}"
        np.testing.assert_array_equal(file[DATA_DATASET][0], np.minimum(bright(0.0), flag))


def test_frames_are_in_the_file_bit_for_bit(eiger, tmp_path):
    eiger.exposure_time.put(0.25)
    eiger.stage()
    for _ in range(3):
        eiger.trigger().wait(timeout=10)
    assert eiger.read()["eiger_total"]["value"] == noise(2)[_mask() == 0].sum()
    eiger.unstage()
    with h5py.File(the_file(tmp_path)) as file:
        data = file[DATA_DATASET]
        assert (data.shape, data.dtype, data.chunks) == ((3, *SHAPE), np.uint32, (1, *SHAPE))
        assert "32008" in data._filters  # bitshuffle, https://github.com/HDFGroup/hdf5_plugins
        np.testing.assert_array_equal(data[()], [noise(i) for i in range(3)])
        np.testing.assert_array_equal(file[MASK_DATASET], _mask())
        assert file["entry/instrument/detector/count_time"][()] == 0.25


def test_every_staging_has_a_file_of_its_own(eiger, tmp_path):
    for _ in range(2):
        eiger.stage()
        eiger.unstage()
    assert len(list(tmp_path.glob("*.h5"))) == 2


def test_another_process_reads_while_the_file_is_open(eiger, tmp_path):
    eiger.stage()
    eiger.trigger().wait(timeout=10)
    eiger.trigger().wait(timeout=10)
    code = (
        "import sys, h5py, hdf5plugin\n"
        "with h5py.File(sys.argv[1], 'r', swmr=True) as file:\n"
        f"    print(*file['{DATA_DATASET}'][()].sum(axis=(1, 2)), file['{MASK_DATASET}'][()].sum())\n"
    )
    reader = subprocess.run(
        [sys.executable, "-c", code, str(the_file(tmp_path))],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert [int(word) for word in reader.stdout.split()] == [noise(0).sum(), noise(1).sum(), _mask().sum()]


def test_trigger_returns_before_the_exposure_is_over(tmp_path):
    release = threading.Event()

    def expose(exposure_s):
        assert release.wait(timeout=10)
        return noise(0)

    eiger = SimulatedEiger(expose, Model(), tmp_path, name="eiger")
    eiger.stage()
    status = eiger.trigger()
    assert not status.done
    assert documents(eiger) == []
    release.set()
    status.wait(timeout=10)
    assert [name for name, _ in documents(eiger)] == ["stream_resource", "stream_datum"]
    eiger.unstage()


def test_unstage_cuts_a_long_exposure_short(tmp_path):
    eiger = SimulatedEiger(Frames(), Model(), tmp_path, name="eiger", clock=Clock(1.0))
    eiger.exposure_time.put(3600.0)
    eiger.stage()
    status = eiger.trigger()
    eiger.unstage()
    with pytest.raises(RuntimeError, match="cut short"):
        status.wait(timeout=10)
    with h5py.File(the_file(tmp_path), "r+") as file:  # opens for writing only when nobody else has it open
        assert len(file[DATA_DATASET]) == 0


def test_untaken_documents_are_handed_over_again(eiger):
    """The RunEngine drops what it collected when it pauses before the event is saved."""
    eiger.stage()
    eiger.trigger().wait(timeout=10)
    (_, resource), (_, dropped) = documents(eiger)
    eiger.trigger().wait(timeout=10)
    (name, same), (_, again), (_, second) = documents(eiger)
    assert (name, same["uid"]) == ("stream_resource", resource["uid"])
    assert again == dropped
    assert second["indices"] == {"start": 1, "stop": 2}
    same["run_start"] = "a run"
    again["descriptor"] = second["descriptor"] = "a descriptor"
    assert documents(eiger) == []


def test_failing_exposure_reaches_the_status(tmp_path):
    def expose(exposure_s):
        raise ArithmeticError("no beam")

    eiger = SimulatedEiger(expose, Model(), tmp_path, name="eiger")
    eiger.stage()
    with pytest.raises(ArithmeticError, match="no beam"):
        eiger.trigger().wait(timeout=10)
    eiger.unstage()


def test_trigger_needs_staging(eiger):
    with pytest.raises(RuntimeError, match="stage it before"):
        eiger.trigger()


def test_missing_directory_is_refused(tmp_path):
    eiger = SimulatedEiger(Frames(), Model(), tmp_path / "nowhere", name="eiger")
    with pytest.raises(FileNotFoundError, match="nowhere: no such directory"):
        eiger.stage()
    (tmp_path / "nowhere").mkdir()
    eiger.stage()
    eiger.unstage()


def test_nearly_full_disk_is_refused(eiger, tmp_path):
    eiger.min_free_bytes = 2**62
    with pytest.raises(OSError, match="left on the disk"):
        eiger.stage()
    assert list(tmp_path.iterdir()) == []


FULL_DISK = """
import resource, signal, sys
sys.path.insert(0, sys.argv[1])
from test_eiger import Frames, Model, SimulatedEiger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes beyond the limit now fail as on a full disk
eiger = SimulatedEiger(Frames(), Model(), sys.argv[2], name="eiger")
eiger.stage()
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
written = 0
try:
    while written < 1000:
        eiger.trigger().wait(timeout=10)
        written += 1
except OSError as error:
    print("failed:", written, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    eiger.trigger().wait(timeout=10)
    print("goes on")
except OSError as error:
    print("refused:", error)
if sys.argv[3] == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
try:
    eiger.unstage()
except OSError as error:
    print("close:", error)
"""


@pytest.mark.parametrize("afterwards", ["full", "free"])
def test_disk_that_fills_up_fails_the_exposure_and_keeps_the_frames(tmp_path, afterwards):
    """The file takes nothing more, also when there is space again: HDF5 would write half a chunk."""
    process = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(Path(__file__).parent), str(tmp_path), afterwards],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,  # HDF5 itself may crash while it exits with a file that it could not close
    )
    assert ("could not be closed" in process.stdout) == (afterwards == "full")
    assert "refused:" in process.stdout
    assert "go on in another file" in process.stdout
    assert "goes on" not in process.stdout
    written = int(process.stdout.split("failed:")[1].split()[0])
    assert written >= 3
    assert f"frame {written} could not be written to {the_file(tmp_path)}" in process.stdout
    with h5py.File(the_file(tmp_path), "r", swmr=True) as file:
        np.testing.assert_array_equal(file[DATA_DATASET][:written], [noise(i) for i in range(written)])
