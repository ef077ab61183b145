"""Standards and components of a finished result: arrays in the file, a figure, and clear refusals."""

import re

import numpy as np
import pytest
from scipy.special import erf

from ptychrome.analysis.kramers_kronig import f1_from_f2
from ptychrome.analysis.optics import CLASSICAL_ELECTRON_RADIUS_M, HC_EV_M
from ptychrome.callbacks.results import Revision
from ptychrome.callbacks.sinks.nexus import load_result, write_nexus
from ptychrome.cli import main
from ptychrome.plans import k_edge
from ptychrome.schema import SPECTRA

SHAPE, NOISE = (30, 32), 0.003
FINE = np.concatenate([np.arange(7000.0, 7090, 5), np.arange(7090, 7200, 0.25), np.arange(7200, 7500, 4)])
STANDARDS = {"FeO": (7121.0, 0.1), "Fe2O3": (7125.0, 0.4), "Fe3P": (7118.0, 0.0)}
OFF_EV = 0.6  # the standards' monochromator reads so much too high


def shape(energy, edge_eV, pre_edge):
    peak = pre_edge / (1 + ((energy - edge_eV + 10) / 1.2) ** 2)
    return 0.5 * (1 + erf((energy - edge_eV) / 2.5)) + peak


def phase_of(energy, absorbance):
    """Phase that belongs to μt (n_energy, ny, nx) of iron by Kramers–Kronig, with 15 electrons more."""
    per_atom = CLASSICAL_ELECTRON_RADIUS_M * HC_EV_M / energy
    atoms = 3e22 * (absorbance[-1] > 0.01)
    f2 = absorbance.reshape(energy.size, -1).T / (2 * per_atom * 3e22)
    f1 = f1_from_f2(energy, f2, "Fe").T.reshape(absorbance.shape)
    return -(per_atom[:, None, None]) * atoms * (41 + f1)


def write_table(path, energy, mu):
    np.savetxt(path, np.column_stack([energy, mu]), header="energy  xmu")
    return path


@pytest.fixture
def scan(tmp_path):
    """A result whose pixels are FeO at the left and Fe2O3 at the right, and standards with a foil."""
    energy = np.array(k_edge("Fe"))
    rows, columns = np.indices(SHAPE)
    inside = np.hypot(rows - 15, columns - 16) < 12
    share = np.clip((columns - 6) / 20, 0, 1)  # of Fe2O3
    jump = 0.2 * inside
    first, second = (shape(energy, *STANDARDS[name])[:, None, None] for name in ("FeO", "Fe2O3"))
    rng = np.random.default_rng(0)
    absorbance = 0.03 * inside + jump * ((1 - share) * first + share * second)
    phase = phase_of(energy, absorbance) + NOISE / 2 * rng.standard_normal(absorbance.shape)
    absorbance = absorbance + NOISE * rng.standard_normal(absorbance.shape)
    absorbance[7] = phase[7] = np.nan  # an energy that was lost
    label = np.where(inside, (share > 0.5).astype(int), -1)
    arrays = {
        "energy": energy,
        "y": np.linspace(5e-7, -5e-7, SHAPE[0]),
        "x": np.linspace(5e-7, -5e-7, SHAPE[1]),
        "absorbance": absorbance.astype(np.float32),
        "phase": phase.astype(np.float32),
        "maps/fitted": inside.astype(np.uint8),
        "maps/edge_jump": np.where(inside, jump, np.nan).astype(np.float32),
        "maps/n_v": np.where(inside, 4e22, np.nan).astype(np.float32),
        "clusters/label": label.astype(np.int32),
        "clusters/spectra": np.array([absorbance[:, label == k].mean(axis=1) for k in (0, 1)]),
        "clusters/fractions": np.array([0.5, 0.5]),
    }
    attributes = {"recipe": "live", "element": "Fe", "edge": "K", "energies_done": 39}
    write_nexus(tmp_path / "P.nxs", Revision("uid", "P", attributes, arrays, {}, (), True))
    for name, state in STANDARDS.items():
        write_table(tmp_path / f"{name}.dat", FINE + OFF_EV, 0.4 + 1.7 * shape(FINE, *state))
    write_table(tmp_path / "foil.dat", FINE + OFF_EV, 0.5 * (1 + erf((FINE - 7112.0) / 1.0)))
    return tmp_path, inside, share


def run(folder, *options):
    return main(["spectra", str(folder / "P.nxs"), *map(str, options)])


def test_standards_and_components(scan, capsys):
    folder, inside, share = scan
    before = load_result(folder / "P.nxs")
    files = [folder / "FeO.dat", folder / "Fe2O3.dat"]
    assert run(folder, "--standards", *files, "--foil", folder / "foil.dat") == 0
    result = load_result(folder / "P.nxs")
    arrays, attributes = result.arrays, result.attributes
    assert set(SPECTRA) | set(before.arrays) == set(arrays)
    assert attributes["lcf_standards"] == ["FeO", "Fe2O3"]
    assert attributes["lcf_foil_offset_eV"] == pytest.approx(-OFF_EV, abs=0.05)  # a cubic for an erf
    assert attributes["components_above_noise"] == 2
    fractions, sigma = arrays["lcf/fractions"][:, inside], arrays["lcf/fractions_sigma"][:, inside]
    assert np.isnan(arrays["lcf/fractions"][:, ~inside]).all()
    pull = (fractions[1] - share[inside]) / sigma[1]
    # 450 pixels; the foil's 0.05 eV moves shares by 0.01, a third of their σ; those at 0 and 1 scatter half
    assert abs(np.median(pull)) < 0.5
    assert 0.6 < pull.std() < 1.2
    # the tail of the pre-edge peak raises the noise told from four energies by a tenth
    assert 0.7 < np.nanmedian(arrays["lcf/chi2"]) < 1.1
    assert np.nanmedian(arrays["lcf/jump"]) == pytest.approx(0.2, rel=0.01)
    assert arrays["components/spectra"].shape == (2, 40)
    assert np.isnan(arrays["components/spectra"][:, 7]).all()
    assert arrays["components/principal_maps"].shape == (2, *SHAPE)
    assert (folder / "P_spectra.png").stat().st_size > 20_000
    told = capsys.readouterr().err
    assert "2 components" in told
    assert "of the atoms" in told


def test_a_second_call_replaces_what_the_first_found(scan):
    folder, inside, _ = scan
    files = [folder / f"{name}.dat" for name in STANDARDS]
    assert run(folder, "--standards", *files, "--shift-eV", "1", "--keep-jump") == 0
    first = load_result(folder / "P.nxs")
    assert first.arrays["lcf/fractions"].shape[0] == 3
    assert first.attributes["lcf_shift_eV"] == pytest.approx(-OFF_EV, abs=0.05)
    assert np.allclose(first.arrays["lcf/fractions"][:, inside].sum(axis=0), 1.0, atol=1e-5)
    assert run(folder, "--components", "3") == 0
    second = load_result(folder / "P.nxs")
    assert not [name for name in second.arrays if name.startswith("lcf/")]
    assert not [name for name in second.attributes if name.startswith("lcf_")]
    assert second.arrays["components/maps"].shape == (3, *SHAPE)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--standards", "none.dat"), "none.dat: cannot be read"),
        (("--standards", "FeO.dat", "FeO.dat"), "alike"),
        (("--standards", "short.dat"), "short covers"),
        (("--foil", "FeO.dat", "--standards", "vanadium.dat"), "vanadium.dat: vanadium: .*before the edge"),
        (("--components", "99"), "99 components"),
    ],
)
def test_refusals_leave_the_file_as_it_was(scan, options, message, capsys):
    folder, _, _ = scan
    short = FINE[FINE < 7170]
    write_table(folder / "short.dat", short, shape(short, 7121.0, 0.0))
    write_table(folder / "vanadium.dat", FINE - 1647, shape(FINE, 7121.0, 0.0))
    before = (folder / "P.nxs").read_bytes()
    words = [folder / word if word.endswith(".dat") else word for word in options]
    assert run(folder, *words) == 2
    error = capsys.readouterr().err
    assert error.startswith("ptychrome: ")
    assert re.search(message, error)
    assert (folder / "P.nxs").read_bytes() == before


def test_results_without_maps_are_refused(scan, capsys):
    folder, _, _ = scan
    revision = load_result(folder / "P.nxs")
    arrays = {name: array for name, array in revision.arrays.items() if not name.startswith("maps/")}
    write_nexus(folder / "P.nxs", Revision("uid", "P", revision.attributes, arrays, {}, (), True))
    assert run(folder) == 2
    assert "no chemical maps" in capsys.readouterr().err
    assert main(["spectra", str(folder / "FeO.dat")]) == 2
    assert "not a result" in capsys.readouterr().err


def test_reference_values(capsys):
    assert main(["reference", "V", "LiVO2", "LiVO3"]) == 0
    table = capsys.readouterr().out
    for number in ("35.01", "37.55", "43.09", "45.64"):
        assert number in table
    assert main(["reference", "Fe", "LiVO2"]) == 2
    assert "holds no Fe" in capsys.readouterr().err
