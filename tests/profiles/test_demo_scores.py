"""A demo that cannot be compared with the truth says what is missing, and of which particle."""

from types import SimpleNamespace

import numpy as np
import pytest

from ptychrome.callbacks.results import Revision
from ptychrome.callbacks.sinks.nexus import write_nexus
from ptychrome.profiles.demo_scores import compare
from ptychrome.profiles.settings import load_recipe

SHAPE = (4, 5)
MAPS = ("edge_energy", "pre_edge_ratio", "n_eff_ratio", "n_v")


def result(**maps):
    arrays = {"energy": np.linspace(5420.0, 5514.0, 10), "y": np.arange(4.0), "x": np.arange(5.0)}
    arrays |= {f"maps/{name}": np.full(SHAPE, value, np.float32) for name, value in maps.items()}
    return Revision("uid", "P1", {"recipe": "live"}, arrays, {}, (), True)


@pytest.mark.parametrize(
    ("maps", "lacks"),
    [
        (dict.fromkeys(MAPS, 1.0) | {"n_eff_ratio": np.nan}, "no pixel has n_eff_ratio"),
        ({}, "no pixel has edge_energy, pre_edge_ratio, n_eff_ratio"),
        (None, "P1.nxs"),
    ],
)
def test_a_particle_without_maps_is_named_with_what_it_lacks(tmp_path, maps, lacks):
    if maps is not None:
        write_nexus(tmp_path / "P1.nxs", result(**maps))
    reports = []
    twins = {"P1": None}  # not looked at
    assert compare(SimpleNamespace(directory=tmp_path), twins, load_recipe("live"), reports.append) == {}
    (report,) = reports
    assert report.startswith("P1 not compared with the truth: ")
    assert lacks in report
    if maps is not None:
        assert report.endswith("(10 energies from 5420 to 5514 eV)")
