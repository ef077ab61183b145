"""Documents wait for files that appear whole, in order, and go on without those that do not come."""

import time

import h5py
import pytest

from ptychrome.callbacks.sources.awaited import AwaitedFiles

PATIENCE_S = 0.3


class Collector:
    def __init__(self):
        self.all, self.closed = [], False

    def __call__(self, name, doc):
        self.all.append((name, doc.get("uid", "")))

    def close(self):
        self.closed = True

    @property
    def names(self):
        return [uid for name, uid in self.all if name == "stream_datum"]


@pytest.fixture
def taken():
    return Collector()


@pytest.fixture
def reports():
    return []


@pytest.fixture
def awaited(taken, reports):
    return AwaitedFiles(taken, reports.append, PATIENCE_S)


def resource(path, **parameters):
    return {"uid": path.name, "uri": f"file://localhost{path}", "parameters": {"swmr": False, **parameters}}


def datum(path, index):
    return {"uid": f"{path.name}/{index}", "stream_resource": path.name}


def write(path):
    with h5py.File(path, "w") as file:
        file["x"] = list(range(1000))


def announce(awaited, path, frames=2, **parameters):
    awaited("stream_resource", resource(path, **parameters))
    for index in range(frames):
        awaited("stream_datum", datum(path, index))
        awaited("event", {"uid": f"event {path.name} {index}"})


def test_nothing_overtakes_frames_of_a_file_that_is_not_there(tmp_path, awaited, taken):
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    announce(awaited, first)
    assert [name for name, _ in taken.all] == ["stream_resource"]
    write(first)
    announce(awaited, second)
    assert taken.all[-1] == ("stream_resource", "second.h5")
    assert taken.names == ["first.h5/0", "first.h5/1"]
    write(second)
    awaited("stop", {})
    assert taken.names == ["first.h5/0", "first.h5/1", "second.h5/0", "second.h5/1"]
    assert taken.all[-1] == ("stop", "")


def test_half_a_file_is_not_there(tmp_path, awaited, taken):
    path = tmp_path / "data.h5"
    write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    announce(awaited, path)
    assert taken.names == []
    path.write_bytes(whole)
    awaited("event", {})
    assert len(taken.names) == 2


def test_frames_wait_for_the_master_file_too(tmp_path, awaited, taken):
    path, master = tmp_path / "data.h5", tmp_path / "master.h5"
    write(path)
    announce(awaited, path, master=f"file://localhost{master}")
    assert taken.names == []
    write(master)
    awaited("event", {})
    assert len(taken.names) == 2


def test_file_that_a_later_one_has_overtaken_is_lost_after_a_while(tmp_path, awaited, taken, reports):
    lost, later = tmp_path / "lost.h5", tmp_path / "later.h5"
    announce(awaited, lost)
    write(later)
    announce(awaited, later)
    assert taken.names == []  # it may only be seen late
    time.sleep(PATIENCE_S)
    awaited("event", {})
    assert taken.names == ["later.h5/0", "later.h5/1"]
    (report,) = reports
    assert f"{lost} was announced and did not come" in report


def test_after_the_run_patience_ends(tmp_path, awaited, taken, reports):
    announce(awaited, tmp_path / "never.h5")
    awaited("stop", {})
    assert taken.names == []
    assert taken.all[-1] == ("stop", "")
    assert len(reports) == 1
    awaited.close()
    assert taken.closed


def test_consumer_that_fails_at_one_document_gets_the_others(tmp_path, taken, reports):
    path = tmp_path / "data.h5"

    class Stumbles(Collector):
        def __call__(self, name, doc):
            if name == "stream_datum" and doc["uid"].endswith("/0"):
                raise ValueError("the first frame")
            taken(name, doc)

    awaited = AwaitedFiles(Stumbles(), reports.append, PATIENCE_S)
    announce(awaited, path)
    write(path)
    awaited("stop", {})
    assert taken.names == ["data.h5/1"]
    assert taken.all[-1] == ("stop", "")
    assert reports == ["Stumbles: ValueError: the first frame"]


def test_a_file_that_grows_is_not_waited_for(tmp_path, awaited, taken):
    announce(awaited, tmp_path / "grows.h5", swmr=True)
    assert len(taken.names) == 2
