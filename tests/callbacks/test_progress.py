"""The status of a run, and its line in a terminal."""

import io
from dataclasses import replace

from rich.console import Console

from ptychrome.callbacks.progress import ProgressDisplay, Status

HALF = Status("4f1c22aa", "P1", 20, 40, 3000, 2880, 0, 4.2, 9.9, 120.0)


def shown(*statuses, messages=()):
    """What stays of it in a log of 160 columns."""
    console = Console(file=io.StringIO(), width=160)
    with ProgressDisplay(console) as display:
        for status in statuses:
            display.show(status)
        for tell, text in messages:
            getattr(display, tell)(text)
    return console.file.getvalue()


def test_frames_behind_are_neither_done_nor_lost():
    assert HALF.frames_behind == 120
    assert replace(HALF, frames_lost=50).frames_behind == 70


def test_the_pace_is_that_of_the_results():
    assert HALF.frames_per_s == 24.0
    assert replace(HALF, elapsed_s=0.0).frames_per_s == 0.0


def test_the_line_tells_energies_pace_and_lag():
    text = shown(HALF)
    assert "20/40 energies" in text
    assert "24.0 frames/s, lag 4.2 s, 120 frames behind" in text
    assert "LOST" not in text


def test_lost_frames_stand_out():
    assert "49 LOST" in shown(replace(HALF, frames_lost=49))


def test_every_run_has_its_own_line_and_a_run_without_a_name_its_uid():
    nameless = replace(HALF, raw_uid="77aa01bc-0000", sample_name="", energies_done=1)
    last = shown(HALF, nameless, replace(HALF, energies_done=21)).rstrip().splitlines()[-2:]
    assert last[0].split()[0] == "P1"
    assert "21/40" in last[0]
    assert last[1].split()[0] == "77aa01bc"
    assert "1/40" in last[1]


def test_messages_are_not_taken_for_markup():
    text = shown(HALF, messages=[("message", "see [/tmp/a]"), ("warn", "disk [full]")])
    assert "see [/tmp/a]" in text
    assert "disk [full]" in text
