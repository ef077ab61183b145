"""Messages of a detector's stream to files: the messages come from the simulator's encoder, and frames are
compared with what DECTRIS' own decoder and the encoder's input say."""

import json
import threading
from types import SimpleNamespace

import h5py
import hdf5plugin  # noqa: F401  registers the frames' compression
import lz4.block
import numpy as np
import pytest
from dectris.compression import decompress

from ptychrome.callbacks.sources import simplon, simplon_file
from ptychrome.callbacks.sources.simplon import Begun, Ended, Spooled, Spooler, Stalled
from ptychrome.callbacks.sources.simplon_messages import Image, MessageError, SeriesStart, parse
from ptychrome.devices import simplon_encoding as messages
from ptychrome.devices.simplon_simulator import SimplonSimulator

SHAPE = (37, 52)  # neither square nor a multiple of the 8 pixels of bitshuffle
TIMES_NS = (3_000_000_000, 3_500_000_000, 500_000_000)
MASK = np.zeros(SHAPE, np.uint32)
MASK[10:12] = 1
CONFIG = {"count_time": 0.5, "description": "Dectris EIGER2 X 1M"}


def frames(count, dtype="u4", seed=0):
    rng = np.random.default_rng(seed)
    stack = rng.poisson(3.0, (count, *SHAPE)).astype(dtype)
    stack[:, 10:12] = np.iinfo(dtype).max
    return stack


class Spool:
    """A spooler, what it told and what it reported."""

    def __init__(self, directory, **options):
        self.directory, self.events, self.reports = directory, [], []
        self.spooler = Spooler(directory, self.events.append, self.reports.append, **options)

    def __call__(self, *sent):
        for parts in sent:
            self.spooler.take(parts)
        self.spooler.flush()

    @property
    def files(self):
        return sorted(self.directory.glob("series_*.h5"))

    @property
    def spooled(self):
        """(series, number) of the frames told, in their order."""
        return [
            (event.series, n) for event in self.events if isinstance(event, Spooled) for n in event.numbers
        ]

    def read(self, place=0, dataset=simplon_file.DATA_DATASET):
        with h5py.File(self.files[place], swmr=True) as file:
            return file[dataset][()]


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("encoding", ["bslz4", "lz4", "none"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4"])
def test_every_encoding_is_stored_bit_for_bit(spool, version, encoding, dtype):
    header, image, end = (getattr(messages, f"{name}_v{version}") for name in ("header", "image", "end"))
    stack = frames(3, dtype)
    spool(header(7, CONFIG, MASK))
    spool(*(image(7, n, frame, TIMES_NS, encoding) for n, frame in enumerate(stack)))
    growing = spool.read()  # while the series goes on
    spool(end(7))
    for read in (growing, spool.read()):
        assert read.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(read, stack)
    np.testing.assert_array_equal(spool.read(dataset=simplon_file.MASK_DATASET), MASK)
    # nanoseconds of V1 become seconds in double precision
    np.testing.assert_allclose(spool.read(dataset=simplon_file.TIMES_DATASET), [[3.0, 3.5, 0.5]] * 3)
    assert spool.events == [Begun(7), Spooled(7, str(spool.files[0]), (0, 1, 2)), Ended(7)]
    assert spool.reports == []


@pytest.mark.parametrize("encoding", ["bslz4", "lz4"])
def test_the_compressed_bytes_reach_the_file_untouched(spool, encoding):
    frame = frames(1, "u2")[0]
    spool(messages.header_v1(1, CONFIG, MASK), sent := messages.image_v1(1, 0, frame, TIMES_NS, encoding))
    spool(messages.end_v1(1))
    with h5py.File(spool.files[0]) as file:
        _, chunk = file[simplon_file.DATA_DATASET].id.read_direct_chunk((0, 0, 0))
    assert bytes(chunk).endswith(sent[2])


@pytest.mark.parametrize(("version", "encoding"), [(1, "bslz4"), (2, "bslz4"), (2, "lz4")])
def test_the_simulator_compresses_as_the_detector_does(version, encoding):
    """Read with the decoder that DECTRIS publishes."""
    frame = frames(1, "u2")[0]
    image = messages.image_v1 if version == 1 else messages.image_v2
    (chunk,) = parse(image(1, 0, frame, TIMES_NS, encoding)).channels.values()
    decoded = decompress(bytes(chunk.data), encoding, elem_size=2)
    np.testing.assert_array_equal(np.frombuffer(decoded, "<u2").reshape(SHAPE), frame)


def test_lz4_of_v1_is_a_bare_block():
    frame = frames(1, "u4")[0]
    block = messages.image_v1(1, 0, frame, TIMES_NS, "lz4")[2]
    assert lz4.block.decompress(block, uncompressed_size=frame.nbytes) == frame.tobytes()


def test_an_lz4_block_as_long_as_its_frame_is_not_taken_for_an_uncompressed_one(spool):
    """Noise with a repetition just long enough to save what the block's own header costs."""
    rng = np.random.default_rng(0)
    for repeated in range(4, 64):
        content = rng.integers(0, 256, 256, np.uint8)
        content[128 : 128 + repeated] = content[:repeated]
        block = lz4.block.compress(content.tobytes(), store_size=False)
        if len(block) == content.size:
            break
    assert len(block) == content.size
    image = messages.image_v1(1, 0, content.reshape(16, 16), TIMES_NS, "lz4")
    image[2] = block
    image[1] = json.dumps({**json.loads(image[1]), "size": len(block)}).encode()
    spool(image)
    np.testing.assert_array_equal(spool.read()[0], content.reshape(16, 16))


def test_big_endian_frames(spool):
    frame = frames(1, "u2")[0]
    image = messages.image_v1(1, 0, frame.byteswap(), TIMES_NS, "bslz4")
    image[1] = image[1].replace(b"bs16-lz4<", b"bs16-lz4>")
    spool(image)
    np.testing.assert_array_equal(spool.read()[0], frame)


@pytest.mark.parametrize("detail", ["none", "basic", "all"])
@pytest.mark.parametrize("appendix", [[], [b"any text"]])
def test_headers_of_every_detail(detail, appendix):
    start = parse(messages.header_v1(3, CONFIG, MASK, detail) + appendix)
    assert isinstance(start, SeriesStart)
    assert start.series == 3
    assert start.config == ({} if detail == "none" else CONFIG)
    assert set(start.arrays) == ({"pixel_mask", "flatfield", "countrate"} if detail == "all" else set())


@pytest.mark.parametrize("detail", ["none", "basic"])
def test_without_a_mask_in_the_header_no_pixel_is_masked(spool, detail):
    spool(messages.header_v1(3, CONFIG, MASK, detail), messages.image_v1(3, 0, frames(1)[0], TIMES_NS))
    assert not spool.read(dataset=simplon_file.MASK_DATASET).any()


def test_two_series_in_a_row(spool):
    for series in (1, 2):
        spool(messages.header_v1(series, CONFIG, MASK))
        spool(*(messages.image_v1(series, n, f, TIMES_NS) for n, f in enumerate(frames(2, seed=series))))
        spool(messages.end_v1(series))
    for place, series in enumerate((1, 2)):
        np.testing.assert_array_equal(spool.read(place), frames(2, seed=series))
    assert spool.reports == []


def test_a_missing_end_message(spool):
    for series in (1, 2):
        spool(messages.header_v1(series, CONFIG, MASK), messages.image_v1(series, 0, frames(1)[0], TIMES_NS))
    assert Ended(1) in spool.events
    assert len(spool.reports) == 1
    assert "series 1" in spool.reports[0]
    assert "without its end message" in spool.reports[0]
    with h5py.File(spool.files[0]) as file:  # closed: opens without swmr
        assert len(file[simplon_file.DATA_DATASET]) == 1


def test_a_missing_header_loses_no_frame(spool):
    spool(messages.image_v1(4, 0, frames(1)[0], TIMES_NS), messages.image_v1(5, 0, frames(1)[0], TIMES_NS))
    assert spool.spooled == [(4, 0), (5, 0)]
    assert len([text for text in spool.reports if "no header came" in text]) == 2


def test_a_dropped_frame_reads_as_nothing_measured_and_is_reported(spool):
    stack = frames(4)
    spool(messages.header_v1(1, CONFIG, MASK))
    spool(*(messages.image_v1(1, n, stack[n], TIMES_NS) for n in (0, 1, 3)), messages.end_v1(1))
    read = spool.read()
    np.testing.assert_array_equal(read[[0, 1, 3]], stack[[0, 1, 3]])
    assert (read[2] == 2**32 - 1).all()
    assert np.isnan(spool.read(dataset=simplon_file.TIMES_DATASET)[2]).all()
    assert spool.reports == ["series 1 of the detector: 1 frames never came, the first one is 2"]


def test_frames_out_of_order_go_to_their_places(spool):
    stack = frames(4)
    spool(messages.header_v1(1, CONFIG, MASK))
    spool(*(messages.image_v1(1, n, stack[n], TIMES_NS) for n in (2, 0, 3, 1)), messages.end_v1(1))
    np.testing.assert_array_equal(spool.read(), stack)
    assert spool.reports == []


def test_a_frame_that_comes_twice_stays_as_it_was_and_the_second_is_kept(spool):
    first, second = frames(2)
    again = messages.image_v1(1, 0, second, TIMES_NS)
    spool(messages.header_v1(1, CONFIG, MASK), messages.image_v1(1, 0, first, TIMES_NS), again)
    np.testing.assert_array_equal(spool.read(), [first])
    (kept,) = spool.directory.glob("unreadable_*.bin")
    assert kept.read_bytes().endswith(again[-1])
    assert "came twice" in spool.reports[0]


def test_a_series_without_frames_leaves_no_file(spool):
    spool(messages.header_v1(1, CONFIG, MASK), messages.end_v1(1))
    assert list(spool.directory.iterdir()) == []
    assert spool.events == [Begun(1), Ended(1)]


def replaced(parts, part, **fields):
    parts = list(parts)
    parts[part] = json.dumps({**json.loads(parts[part]), **fields}).encode()
    return parts


def image(**options):
    return messages.image_v1(1, 0, frames(1, "u2")[0], TIMES_NS, **options)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "empty message"),
        ([b"nonsense"], "cannot be read"),
        ([b"[1]"], "list"),
        ([b'{"series": 1}'], "htype"),
        ([b'{"htype": "dother-1.0"}'], "dother-1.0"),
        ([b"\xa1ab"], "not CBOR"),
        (image()[:3], "3 parts"),
        (replaced(image(), 1, encoding="bs16-zstd<"), "bs16-zstd<"),
        (replaced(image(), 1, encoding="bs16<"), "bs16<"),
        (replaced(image(), 1, encoding="bs32-lz4<"), "same number of bits"),
        (replaced(image(), 1, type="float32"), "float32"),
        (replaced(image(), 1, shape=[52, 37, 2]), r"\[52, 37, 2\]"),
        (replaced(image(), 1, size=5), "announces 5"),
        (replaced(image(), 0, frame=-1), "frame -1"),
        (replaced(image(), 0, frame=2**40), "2000000000"),
        (replaced(image(encoding="none"), 1, shape=[52, 38]), "expected 3952"),
        (replaced(messages.header_v1(1, CONFIG, MASK, "basic"), 0, header_detail="some"), "some"),
        (messages.header_v1(1, CONFIG, MASK)[:5], "5 parts"),
        (messages.header_v2(1, {"type": "other"}, MASK), "other"),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_told_and_kept_as_it_came(spool, parts, words):
    with pytest.raises(MessageError, match=words):
        parse(parts)
    spool(parts)
    (kept,) = spool.directory.iterdir()
    assert kept.read_bytes() == b"".join(len(part).to_bytes(8, "big") + part for part in parts)
    assert len(spool.reports) == 1
    assert kept.name in spool.reports[0]


def test_another_kind_of_frame_in_the_middle_of_a_series_is_kept_aside(spool):
    stack = frames(3, "u2")
    spool(messages.header_v1(1, CONFIG, MASK), messages.image_v1(1, 0, stack[0], TIMES_NS))
    spool(messages.image_v1(1, 1, stack[1].astype("u4"), TIMES_NS))
    spool(messages.image_v1(1, 2, stack[2], TIMES_NS, "none"), messages.end_v1(1))
    np.testing.assert_array_equal(spool.read(), stack[:1])
    assert len(list(spool.directory.glob("unreadable_*.bin"))) == 2
    assert "frame 1 is" in spool.reports[0]
    assert "2 messages could not be read" in spool.reports[-1]


def test_two_thresholds_are_two_datasets(spool):
    import cbor2

    low, high = frames(2, "u2")
    message = cbor2.loads(messages.image_v2(1, 0, low, TIMES_NS)[0])
    message["data"]["threshold_2"] = cbor2.loads(messages.image_v2(1, 0, high, TIMES_NS)[0])["data"][
        "threshold_1"
    ]
    assert isinstance(parse([cbor2.dumps(message)]), Image)
    spool([cbor2.dumps(message)])
    np.testing.assert_array_equal(spool.read(), [low])
    np.testing.assert_array_equal(spool.read(dataset=f"{simplon_file.DATA_DATASET}_threshold_2"), [high])


def series_messages(stack):
    yield messages.header_v1(1, CONFIG, MASK)
    yield from (messages.image_v1(1, n, frame, TIMES_NS) for n, frame in enumerate(stack))
    yield messages.end_v1(1)


def check_that_the_disk_was_waited_for(spool, stack):
    np.testing.assert_array_equal(spool.read(), stack)
    assert spool.spooled == [(1, n) for n in range(len(stack))]
    assert "make room" in spool.reports[0]
    assert spool.reports[1:] == ["the disk takes frames again"]
    assert [event for event in spool.events if isinstance(event, Stalled)] == [Stalled(True), Stalled(False)]


@pytest.mark.parametrize("written_before", [0, 3])
def test_a_disk_that_is_nearly_full_holds_frames_up_and_loses_none(tmp_path, monkeypatch, written_before):
    spool = Spool(tmp_path, retry_s=0.01)
    stack = frames(6, "u2")
    free = iter([2**40] * written_before + [99_000_000] * 5)
    monkeypatch.setattr(simplon, "disk_usage", lambda _: SimpleNamespace(free=next(free, 2**40)))
    spool(*series_messages(stack))
    check_that_the_disk_was_waited_for(spool, stack)


@pytest.mark.parametrize("written_before", [0, 3])
def test_a_disk_that_refuses_data_holds_frames_up_and_loses_none(tmp_path, full_disk, written_before):
    """A limit of 4 kB per file stands for a quota, which the disk's free space does not tell.

    HDF5 would take the refused frame a second time and not store it.
    """
    spool, told = Spool(tmp_path, retry_s=0.02), threading.Event()
    stack = frames(6, "u2")
    sent = list(series_messages(stack))
    spool(*sent[:written_before])
    spool.spooler._report = lambda text: (spool.reports.append(text), told.set())
    thread = threading.Thread(target=spool, args=sent[written_before:])
    with full_disk():
        thread.start()
        assert told.wait(30)
        assert len(spool.files) == (written_before > 0)
    thread.join(30)
    check_that_the_disk_was_waited_for(spool, stack)


def test_over_a_socket_from_the_simulator(tmp_path):
    """The detector sends before anybody listens, and the receiver takes what is on its way when stopped."""
    spool = Spool(tmp_path)
    stack = frames(300, "u2")  # more than both queues hold
    with SimplonSimulator() as simulator:
        thread = threading.Thread(target=spool.spooler.receive, args=(simulator.address,))
        thread.start()
        series = simulator.arm(MASK, CONFIG)
        assert [series.append(frame) for frame in stack] == list(range(300))
        series.close()
        simulator.close()
        spool.spooler.stop()
        thread.join(30)
    assert not thread.is_alive()
    np.testing.assert_array_equal(spool.read(), stack)
    assert spool.spooled == [(1, n) for n in range(300)]
    assert spool.reports == []


def test_a_stream_that_nobody_receives_ends_in_an_error():
    with SimplonSimulator(patience_s=0.1) as simulator, pytest.raises(OSError, match="nobody receives"):
        simulator.arm(MASK, CONFIG)
