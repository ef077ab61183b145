"""Runs as files of JSON lines: complete, one file a run, readable again."""

import json

import numpy as np
import pytest
from event_model import compose_run

from ptychrome.callbacks.raw import JsonLines, replay


def run_documents(events=3):
    """A run with numpy values in its events, as devices emit them."""
    run = compose_run(metadata={"plan_name": "test"})
    documents = [("start", run.start_doc)]
    keys = {
        "i0": {"dtype": "number", "shape": [], "source": "test"},
        "spectrum": {"dtype": "array", "shape": [2], "source": "test"},
    }
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    documents.append(("descriptor", stream.descriptor_doc))
    for number in range(events):
        data = {"i0": np.float32(number), "spectrum": np.array([number, 0.5])}
        documents.append(("event", stream.compose_event(data=data, timestamps=dict.fromkeys(data, 0.0))))
    documents.append(("stop", run.compose_stop()))
    return documents


def plain(documents):
    """With numpy values as lists and numbers."""
    return json.loads(json.dumps(documents, default=lambda value: value.tolist()))


def file_of(directory, documents):
    return directory / f"{documents[0][1]['uid']}.jsonl"


def test_a_replay_gives_every_document_in_order(tmp_path):
    documents = run_documents()
    write = JsonLines(tmp_path / "new")
    for number, (name, doc) in enumerate(documents, 1):
        write(name, doc)
        # whoever kills us now loses nothing
        assert len(list(replay(file_of(tmp_path / "new", documents)))) == number
    write.close()
    assert [list(pair) for pair in replay(file_of(tmp_path / "new", documents))] == plain(documents)


def test_runs_at_the_same_time_go_to_their_own_files(tmp_path):
    first, second = run_documents(), run_documents()
    write = JsonLines(tmp_path)
    for pair in zip(first, second, strict=True):
        for name, doc in pair:
            write(name, doc)
    for documents in (first, second):
        assert [list(pair) for pair in replay(file_of(tmp_path, documents))] == plain(documents)


def test_stream_documents_find_their_run(tmp_path):
    run = compose_run()
    bundle = run.compose_stream_resource(
        mimetype="application/x-hdf5", uri="file://localhost/x.h5", data_key="frames", parameters={}
    )
    keys = {"frames": {"dtype": "array", "shape": [4, 4], "source": "test", "external": "STREAM:"}}
    stream = run.compose_descriptor(name="primary", data_keys=keys)
    datum = bundle.compose_stream_datum(
        indices={"start": 0, "stop": 1},
        seq_nums={"start": 1, "stop": 2},
        descriptor=stream.descriptor_doc,
    )
    documents = [
        ("start", run.start_doc),
        ("descriptor", stream.descriptor_doc),
        ("stream_resource", bundle.stream_resource_doc),
        ("stream_datum", datum),
        ("stop", run.compose_stop()),
    ]
    write = JsonLines(tmp_path)
    for name, doc in documents:
        write(name, doc)
    assert [name for name, _ in replay(file_of(tmp_path, documents))] == [name for name, _ in documents]


def test_a_file_is_never_overwritten_and_the_failure_is_told_once(tmp_path):
    documents = run_documents()
    file_of(tmp_path, documents).write_text("precious\n")
    write = JsonLines(tmp_path)
    with pytest.raises(FileExistsError):
        write(*documents[0])
    for name, doc in documents[1:]:
        write(name, doc)
    assert file_of(tmp_path, documents).read_text() == "precious\n"

    other = run_documents()
    for name, doc in other:
        write(name, doc)
    assert len(list(replay(file_of(tmp_path, other)))) == len(other)


def test_an_unfinished_last_line_is_left_out(tmp_path):
    path = tmp_path / "cut.jsonl"
    path.write_text('{"name": "start", "doc": {"uid": "a"}}\n{"name": "descr')
    assert list(replay(path)) == [("start", {"uid": "a"})]


def test_a_line_that_is_no_document_is_named(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"name": "start", "doc": {"uid": "a"}}\n[1, 2]\n')
    with pytest.raises(ValueError, match=r"bad.jsonl, line 2 is no document"):
        list(replay(path))
