"""``ptychrome demo`` as users type it: IOC, Channel Access, flights and the stream. Takes a minute or two."""

import json
import subprocess
import sys

ENERGIES, POSITIONS = 21, 7 * 13  # of the size tiny, flown
# Twice what seven runs gave, alone or not: 0.19-0.21, 0.14-0.15, 0.013-0.015, 1.08-1.12; ARI 0.91.
LARGEST_ERRORS = {"edge_energy_eV": 0.4, "pre_edge_ratio_eV": 0.3, "n_v_rel": 0.03, "n_eff_ratio": 2.2}


def test_a_demo_over_channel_access_flies_streams_maps_and_scores(tmp_path):
    options = ["--size", "tiny", "--control", "epics", "--fly", "--frames", "stream"]
    done = subprocess.run(
        [sys.executable, "-m", "ptychrome.cli", "demo", *options, "--no-serve", "--json", "scores.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,  # some minutes on a machine that does much else
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())["particles"]["P1"]
    assert scores["energies_done"] == ENERGIES
    assert scores["frames_written"] == scores["frames_reconstructed"] == ENERGIES * POSITIONS
    assert scores["frames_lost"] == 0
    errors = scores["errors"]
    assert errors.keys() == LARGEST_ERRORS.keys() | {"cluster_ari"}
    missed = {key for key, largest in LARGEST_ERRORS.items() if errors[key] is None or errors[key] > largest}
    assert not missed, errors
    assert errors["cluster_ari"] > 0.7, errors
