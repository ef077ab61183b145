"""Bulk spectra from files: XDI, Athena's columns and projects, measured ones and ones written here."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from ptychrome.callbacks.sources.xas import XasError, read_bulk, read_spectra

DATA = Path("/work/shared/data")
ENERGY = np.arange(5300.0, 5600.0, 5.0)
MU = np.where(ENERGY > 5465, 1.5, 0.2)
I0 = np.full(ENERGY.size, 1e5)


def write(path, header, *columns):
    lines = [*header, *(" ".join(f"{value:.8g}" for value in row) for row in zip(*columns, strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def xdi(*names):
    columns = [f"# Column.{i}: {name}" for i, name in enumerate(names, 1)]
    fields = ["# Element.symbol: V", "# Element.edge: K", "# Sample.name: mine"]
    return ["# XDI/1.0 test/1", *columns, *fields, "# ///", "# a comment: with a colon", "#----"]


def perl_list(values):
    return "(" + ",".join(f"'{value}'" for value in values) + ")"


PERL = (
    "# Athena project file -- Demeter version 0.9.26\n# This file created at 2026-01-01\n\n"
    "$old_group = 'abcde';\n"
    r"@args = ('label','V \'two\' O3','bkg_z','v','bkg_eshift','0.5','titles',['one',('two')],'fft_edge','k',"
    "'is_xmu','1','is_chi',undef,'bkg_e0',5465.2);\n"
    f"@x = {perl_list(ENERGY)};\n@y = {perl_list(MU)};\n@i0 = {perl_list(I0)};\n[record]   # set arrays\n\n"
    "$old_group = 'fghij';\n@args = ('label','chi','is_chi','1');\n@x = ('1','2');\n@y = ('0','0');\n"
    "[record]\n\n1;\n"
)
JSON = json.dumps(
    {
        "_____header1": "# Athena project file -- Demeter version 0.9.26",
        "_____order": ["two", "one"],
        "one": {"args": {"label": "first"}, "x": [str(e) for e in ENERGY], "y": [str(v) for v in MU]},
        "two": {"args": {"datatype": "xanes", "is_nor": "1"}, "x": list(ENERGY), "y": list(MU)},
    },
    indent=1,
)


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("energy eV", "mutrans"), (ENERGY, MU)),
        (("energy keV || PV", "i0", "itrans", "murefer"), (ENERGY / 1e3, I0, I0 * np.exp(-MU), MU)),
        (("energy eV", "i0", "ifluor"), (ENERGY, I0, I0 * MU)),
        (("i0 counts", "energy eV", "itrans counts"), (I0, ENERGY, I0 * np.exp(-MU))),
    ],
)
def test_xdi(tmp_path, names, columns):
    (found,) = read_spectra(write(tmp_path / "a.xdi", xdi(*names), *columns))
    assert (found.name, found.element, found.edge, found.is_normalised) == ("mine", "V", "K", False)
    np.testing.assert_allclose(found.energy_eV, ENERGY)
    np.testing.assert_allclose(found.mu, MU, rtol=1e-6)


def test_columns_of_athena(tmp_path):
    labels = "#  energy  norm  nbkg  flat  fbkg  nder  nsec"
    (nor,) = read_spectra(write(tmp_path / "a.nor", ["# XDI/1.0 Demeter", labels], ENERGY, MU, *[I0] * 5))
    assert (nor.name, nor.is_normalised) == ("a", True)
    (xmu,) = read_spectra(write(tmp_path / "b.xmu", ["#  e  xmu  bkg  pre_edge"], ENERGY, MU, I0, I0))
    assert not xmu.is_normalised
    np.testing.assert_allclose(xmu.mu, MU)


def test_plain_tables(tmp_path):
    (two,) = read_spectra(write(tmp_path / "two.dat", [], ENERGY, MU))
    assert two.name == "two"
    several = read_spectra(write(tmp_path / "three.txt", ["Energy  LiVO2  LiVO3"], ENERGY, MU, 2 * MU))
    assert [spectrum.name for spectrum in several] == ["LiVO2", "LiVO3"]
    np.testing.assert_allclose(several[1].mu, 2 * MU)


@pytest.mark.parametrize("compress", [False, True])
def test_a_project_of_perl(tmp_path, compress):
    path = tmp_path / "a.prj"
    path.write_bytes(gzip.compress(PERL.encode()) if compress else PERL.encode())
    (found,) = read_spectra(path)
    assert (found.name, found.element, found.edge) == ("V 'two' O3", "V", "K")
    np.testing.assert_allclose(found.energy_eV, ENERGY + 0.5)  # Athena's own shift
    np.testing.assert_allclose(found.mu, MU)


def test_a_project_of_json(tmp_path):
    path = tmp_path / "a.prj"
    path.write_text(JSON)
    two, one = read_spectra(path)
    assert (two.name, two.is_normalised, one.name, one.is_normalised) == ("two", True, "first", False)
    np.testing.assert_allclose(one.energy_eV, ENERGY)


def test_normalised(tmp_path):
    (bulk,) = read_bulk(write(tmp_path / "a.xdi", xdi("energy eV", "mutrans"), ENERGY, MU), 5465.0)
    assert bulk.edge_step == pytest.approx(1.3)
    assert bulk.at([5400.0, 5500.0]) == pytest.approx([0.0, 1.0], abs=1e-9)
    with pytest.raises(XasError, match=r"a\.xdi: mine: .*before the edge at 7112"):
        read_bulk(tmp_path / "a.xdi", 7112.0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("# XDI/1.0\n# nothing\n", "no table of numbers"),
        ("1 2\n3\n", "line 2: 1 numbers; expected 2"),
        ("1 2\nthree 4\n", "line 2: 'three 4'"),
        ("# energy i0 time\n1 2 3\n4 5 6\n", "i0 with itrans"),
        ("# Column.1: angle degrees\n1 2\n3 4\n", "is an angle"),
        ("# energy xmu\n1 nan\n2 nan\n", "at two energies"),
        ("# Athena project file -- x\n$old_group = 'a';\n", "no group"),
        ("# Athena project file -- x\n@x = ('1','2');\n@y = ('a','2');\n[record]\n", "not understood"),
        ('{"_____header1": "Athena project file", "_____order": ["b"]}', "not understood"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path, content, message):
    path = tmp_path / "bad.dat"
    path.write_text(content)
    with pytest.raises(XasError, match=rf"bad\.dat.*{message}"):
        read_spectra(path)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(XasError, match="cannot be read"):
        read_spectra(tmp_path / "none.xdi")
    (tmp_path / "cut.prj").write_bytes(gzip.compress(PERL.encode())[:-20])
    with pytest.raises(XasError, match="cannot be read"):
        read_spectra(tmp_path / "cut.prj")


@pytest.mark.skipif(not DATA.is_dir(), reason="no measured spectra beside the repository")
def test_measured_files():
    for name, sample in (("V_foil", "V foil"), ("V2O3", "V2O3"), ("V2O5", "V2O5")):
        (found,) = read_spectra(DATA / f"{name}.xdi")
        assert (found.name, found.element, found.edge) == (sample, "V", "K")
        energy, _, i0, transmitted = np.loadtxt(DATA / f"{name}.xdi").T
        np.testing.assert_allclose(found.mu, np.log(i0 / transmitted))
        np.testing.assert_array_equal(found.energy_eV, energy)
    references = read_bulk(DATA / "hxn_fe_k_references.nor", 7112.0)
    assert len(references) == 9
    assert references[1].name.startswith("Pyrite")
    # 25 eV behind the edge: 1, or a white line that ends
    assert all(0.9 < reference.normalised[-5:].mean() < 1.4 for reference in references)
