"""Frames that a detector counts through, over the files that it fills one after the other."""

from pathlib import Path

import pytest

from ptychrome.devices.assets import FrameAssets


@pytest.fixture
def assets():
    """Frames 0 to 4 in a.h5, 5 to 6 in b.h5, others in the series 9."""
    assets = FrameAssets("image", Path("/never"), "/data", (4, 4), swmr=False)
    assets.turn_to(0, Path("/a.h5"), master="m")  # the place before remains without a frame
    assets.turn_to(5, Path("/b.h5"))
    assets.turn_to(7, 9)
    return assets


def test_frames_are_announced_where_they_lie(assets):
    for first, count in ((3, 2), (5, 1), (0, 1), (7, 3)):  # in any order
        assets.add(first, count)
    resources, places = {}, []
    for name, doc in assets.collect():
        if name == "stream_resource":
            resources[doc["uid"]] = doc
        else:
            places.append((resources[doc["stream_resource"]]["uri"], *doc["indices"].values()))
    files = ["file://localhost/a.h5", "file://localhost/b.h5", "simplon://localhost/9"]
    assert places == [(files[0], 3, 5), (files[1], 0, 1), (files[0], 0, 1), (files[2], 0, 3)]
    assert [resource["uri"] for resource in resources.values()] == files
    parameters = [resource["parameters"] for resource in resources.values()]
    assert [p.get("master") for p in parameters] == ["m", None, None]
    assert [p.get("series") for p in parameters] == [None, None, 9]
    assert not any(p["swmr"] for p in parameters)


@pytest.mark.parametrize(
    ("first", "count", "together"), [(0, 9, 5), (3, 2, 2), (4, 3, 1), (5, 3, 2), (8, 50, 50)]
)
def test_frames_of_one_file_are_told_from_others(assets, first, count, together):
    assert assets.together(first, count) == together
