"""``ptychrome demo`` as users type it: IOC, Channel Access, flights and the stream. Takes a minute or two."""

import json
import subprocess
import sys

RECIPE = """
name = "fast"
n_clusters = 2
[[reconstruct]]
engine = "epie"
sweeps = 10
[[reconstruct]]
engine = "ml"
sweeps = 3
[[warm]]
engine = "ml"
sweeps = 3
[chemistry.mask]
min_snr = 1.0
max_sigma_eV = 20.0
floor_snr = 1.0
"""
ENERGIES, POSITIONS = 21, 7 * 13  # of the size tiny, flown


def test_a_demo_over_channel_access_flies_streams_maps_and_scores(tmp_path):
    (tmp_path / "fast.toml").write_text(RECIPE)
    options = ["--size", "tiny", "--control", "epics", "--fly", "--frames", "stream", "--recipe", "fast.toml"]
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
    assert all(error is not None for error in scores["errors"].values()), scores["errors"]
