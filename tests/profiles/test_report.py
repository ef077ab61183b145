"""Reports: all figures there, named and legible, numbers those of the results, whatever the results hold."""

import base64
import csv
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.text import Text

from ptychrome.analysis.xanes import XanesModel, evaluate
from ptychrome.callbacks.results import Revision
from ptychrome.callbacks.sinks.nexus import write_nexus
from ptychrome.profiles.errors import UserError
from ptychrome.profiles.report import content, writing
from ptychrome.profiles.report.command import report
from ptychrome.profiles.report.content import Illustration, assemble
from ptychrome.profiles.report.options import ReportOptions
from ptychrome.profiles.report.particles import read_particles
from ptychrome.profiles.report.sections import sections

K = 3
EDGE_EV = {"V": 5465.0, "Fe": 7112.0}
OFFSETS_EV = np.r_[-45.0, -35, -25, -15, -5, 0, np.arange(1.0, 24), 28, 35, 45, 60, 75]
ENERGIES = len(OFFSETS_EV)
STATES = np.array([(12.0, 0.5, 38.0), (13.5, 1.2, 41.0), (15.0, 2.2, 45.0)])  # b2 − edge, PE/Δμt, ratio
A4_WIDTH_IN = (210 - 24) / 25.4  # less the margins of the print stylesheet
LEAST_PT = 7.0


def particle(name="P1", *, shape=(44, 40), element="V", seed=0, done=ENERGIES, maps=True, checked=True):
    """A disc with stripes of three states; noise of 0.002 in μt."""
    rng = np.random.default_rng(seed)
    energy = EDGE_EV[element] + OFFSETS_EV
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    radius = np.hypot(rows - shape[0] / 2, columns - shape[1] / 2) / (0.4 * min(shape))
    inside, state = radius < 1, np.clip(((rows + 3 * seed) // 8) % K, 0, K - 1)
    n_v = np.where(inside, 4e22 * (1.1 - radius**2), np.nan)
    jump = 0.25 * np.nan_to_num(n_v) / 4e22
    edge, ratio, composition = (STATES[state, i] for i in range(3))
    model = XanesModel.for_edge(element)
    c13 = np.full(shape, 1.3)
    parameters = np.stack(
        [
            0.01 * (jump > 0),
            jump,
            EDGE_EV[element] + edge,
            np.full(shape, 2.5),
            ratio * jump / (np.pi * c13),
            np.full(shape, EDGE_EV[element] + 3.0),
            c13,
            0.3 * jump,
            np.full(shape, EDGE_EV[element] + 20.0),
            np.full(shape, 4.0),
        ],
        axis=-1,
    )
    absorbance = np.moveaxis(evaluate(model, parameters, energy), -1, 0) + 0.002 * rng.normal(
        size=(len(energy), *shape)
    )
    phase = -1.1 * jump / 0.25 + 0.003 * rng.normal(size=absorbance.shape)
    absorbance[done:], phase[done:] = np.nan, np.nan
    arrays = {
        "energy": energy,
        "y": 30e-9 * (shape[0] // 2 - np.arange(shape[0])),
        "x": 30e-9 * (shape[1] // 2 - np.arange(shape[1])),
        "object": np.exp(1j * phase - absorbance / 2).astype(np.complex64),
        "absorbance": absorbance.astype(np.float32),
        "phase": phase.astype(np.float32),
    }
    if maps:
        values = {
            "edge_energy": EDGE_EV[element] + edge + 0.05 * rng.normal(size=shape),
            "edge_jump": jump,
            "pre_edge_area": ratio * jump,
            "pre_edge_ratio": ratio + 0.05 * rng.normal(size=shape),
            "n_v": n_v,
            "n_eff": composition * n_v,
            "n_eff_ratio": composition + 0.4 * rng.normal(size=shape),
        }
        for key, image in values.items():
            arrays[f"maps/{key}"] = np.where(inside, image, np.nan).astype(np.float32)
            sigma = 0.02 * (n_v if key.startswith("n_v") else np.ones(shape))
            arrays[f"maps/{key}_sigma"] = np.where(inside, sigma, np.nan).astype(np.float32)
        arrays["maps/fitted"] = inside.astype(np.uint8)
    table = {"photons": 1e10, "dose_Gy": 2e6, "residual": 1.2, "r_factor": 0.05}
    tables = {"quality/energies": {column: np.full(done, value) for column, value in table.items()}}
    attributes = {
        "recipe": "live",
        "options": {"n_clusters": K},
        "software": "ptychrome 0",
        "element": element,
        "edge": "K",
        "dose_material": element,
    }
    if checked:
        frequency = np.linspace(5e5, 16e6, 24)
        curve = 1 / (1 + (frequency / 11e6) ** 8)
        thresholds = {"half_bit": np.full(24, 0.25), "one_bit": np.full(24, 0.5)}
        tables["quality/frc"] = {"frequency": frequency, "correlation": curve, **thresholds}
        tables["quality/prtf"] = {"frequency": frequency, "prtf": curve}
        attributes |= {
            "resolution_half_bit_m": 80e-9,
            "resolution_prtf_m": 85e-9,
            "quality_energy_eV": 5540.0,
        }
    return Revision(f"{name}-{seed}-uid", name, attributes, arrays, tables, (), done == len(energy))


def written(folder, *results):
    for result in results:
        write_nexus(folder / f"{result.raw_uid}.nxs", result)
    return [str(folder)]


def assembled(folder, *results, **options):
    chosen = ReportOptions.parse(**options)
    return assemble(read_particles(written(folder, *results), chosen.groups), chosen)


@pytest.fixture(scope="module", autouse=True)
def few_states():
    """Trying ten numbers of states takes most of the time of a small report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, "MOST_STATES", 3)
        yield


@pytest.fixture(scope="module")
def results():
    return [particle("P1"), particle("P2", seed=1), particle("D1", seed=2, shape=(40, 48))]


@pytest.fixture(scope="module")
def data(results, tmp_path_factory):
    return assembled(tmp_path_factory.mktemp("results"), *results)


@pytest.fixture(scope="module")
def parts(data):
    return list(sections(data))


@pytest.fixture(scope="module")
def folder(data, parts, tmp_path_factory):
    base = tmp_path_factory.mktemp("report")
    writing.write_report(base / "out", "Particles", parts, data.notes)
    assert [path.name for path in base.iterdir()] == ["out"]  # nothing else is left
    return base / "out"


def rows(folder, name):
    with (folder / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def figures(parts):
    return {item.name: item for part in parts for item in part.items if isinstance(item, Illustration)}


def first_figure(parts, name):
    """A figure by its name; sections after it are not drawn."""
    return next(found[name] for part in parts if name in (found := figures([part])))


def drawn_texts(figure, monkeypatch):
    """What is drawn of texts, with boxes in pixels: axes hold tick labels beyond their limits, too."""
    texts, draw = [], Text.draw
    figure.set_dpi(100)

    def recording(self, renderer):
        if self.get_visible() and self.get_text().strip():
            texts.append((self, Text.get_window_extent(self, renderer)))
        draw(self, renderer)

    with monkeypatch.context() as patch:
        patch.setattr(Text, "draw", recording)
        figure.canvas.draw()
    return texts


def assert_legible(figure, monkeypatch):
    """Every text large enough, on the page, and over no other; every axes named."""
    texts = drawn_texts(figure, monkeypatch)
    scale, (width, height) = min(1.0, A4_WIDTH_IN / figure.get_figwidth()), figure.bbox.size
    wrong = []
    for number, (text, box) in enumerate(texts):
        if text.get_fontsize() * scale < LEAST_PT:
            wrong.append(("small", text))
        if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height:
            wrong.append(("off the page", text))
        # boxes that just touch do not overlap
        others = [
            other for other, around in texts[number + 1 :] if box.padded(-1).overlaps(around.padded(-1))
        ]
        wrong += [("overlap", text, other) for other in others]
    wrong += [("unnamed", ax.get_position()) for ax in figure.axes if not is_named(figure, ax)]
    assert not wrong


def is_named(figure, ax):
    if hasattr(ax, "_colorbar"):
        return any((ax.get_xlabel(), ax.get_ylabel(), ax.get_title(loc="left")))
    if ax.images:  # without ticks, named by the row and column of its table
        return any(text.get_text().endswith("m") for text in ax.texts) or ax.images[0].get_array().size == 4
    return shares_an_axis_label(figure, ax)


def shares_an_axis_label(figure, ax):
    """Whether an axes of a grid leaves a label to the one in its row or column."""
    box = ax.get_position()
    x_named = ax.get_xlabel() or any(o.get_xlabel() and o.get_position().x0 == box.x0 for o in figure.axes)
    y_named = ax.get_ylabel() or any(o.get_ylabel() and o.get_position().y0 == box.y0 for o in figure.axes)
    return bool(x_named and y_named)


EXPECTED = ("images", "energy_series", "regions", "maps", "sigma_maps", "state_maps", "states", "histograms",
            "densities-1", "scatter-2", "state_count", "domains", "resolution")  # fmt: skip


def test_all_figures_are_there_legible_and_named(parts, monkeypatch):
    found = figures(parts)
    assert set(EXPECTED) <= set(found)
    for item in found.values():
        assert_legible(item.figure, monkeypatch)
        assert len(item.caption) > 40


def test_maps_have_the_scales_of_the_paper(parts):
    images = [ax.images[0] for ax in figures(parts)["maps"].figure.axes if ax.images]
    assert [image.get_clim() for image in images[:4]] == [(5476, 5481), (0, 3.5), (0, 100), (30, 50)]
    assert images[4].get_clim() == images[9].get_clim() == images[14].get_clim()  # N_V of all particles


def test_the_page_loads_nothing_from_elsewhere(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    tags = []

    class Collect(HTMLParser):
        def handle_starttag(self, tag, attributes):
            tags.append((tag, dict(attributes)))

    Collect().feed(text)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}
    pictures = [attributes["src"] for tag, attributes in tags if tag == "img"]
    assert len(pictures) >= len(EXPECTED)
    for picture in pictures:
        kind, _, content = picture.partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert not re.search(rb'href="(?!#|data:)', base64.b64decode(content))
    ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
    for target in (attributes["href"] for tag, attributes in tags if tag == "a"):
        assert target[1:] in ids if target.startswith("#") else (folder / target).is_file()
    assert "url(" not in text
    assert len(re.findall(rb"/Type /Page\b", (folder / "report.pdf").read_bytes())) == len(pictures)


def test_pixels_are_those_of_the_maps(folder, data):
    found = rows(folder, "pixels")
    for each in data.particles:
        arrays = each.result.arrays
        own = [row for row in found if row["particle"] == each.label]
        assert len(own) == np.isfinite(arrays["maps/n_v"]).sum()
        place = tuple(np.array([(int(row["row"]), int(row["column"])) for row in own]).T)
        for name in ("maps/edge_energy", "maps/n_v_sigma", "clusters/label"):
            column = name.split("/")[1].replace("label", "state")
            np.testing.assert_array_equal(arrays[name][place], [float(row[column]) for row in own])
        np.testing.assert_array_equal(arrays["x"][place[1]], [float(row["x_m"]) for row in own])


def test_states_and_shares_are_those_of_the_clusters(folder, data):
    centers = data.particles[0].result.arrays["clusters/centers"]
    table = rows(folder, "states")
    np.testing.assert_array_equal(centers[:, 0], [float(row["edge_energy_eV"]) for row in table])
    # the states are at least 20 standard deviations apart, so that means over hundreds of pixels agree
    np.testing.assert_allclose(centers[:, 0], EDGE_EV["V"] + STATES[:, 0], atol=0.01)
    np.testing.assert_allclose(sum(float(row["share_as_prepared"]) for row in table), 1.0)
    shares = [row for row in rows(folder, "shares") if row["particle"] == "D1"]
    expected = data.particles[2].result.arrays["clusters/fractions"]
    np.testing.assert_allclose([float(row["share"]) for row in shares], expected)


def test_the_summary_tells_what_was_measured(folder):
    first, *_, last = rows(folder, "summary")
    assert (first["particle"], first["preparation"], last["preparation"]) == (
        "P1",
        "as-prepared",
        "delithiated",
    )
    assert first["raw_uid"] == "P1-0-uid"
    assert float(first["photons_per_frame"]) == 1e10
    assert float(first["dose_Gy"]) == pytest.approx(2e6 * ENERGIES)
    assert float(first["resolution_prtf_m"]) == 85e-9
    assert first["resolution_one_bit_m"] == "nan"


def test_regions_are_pure_and_fitted(folder):
    found = rows(folder, "regions")
    assert {row["particle"] for row in found} == {"P1", "P2", "D1"}
    for row in found:
        truth = STATES[int(row["state"])]
        # 16 pixels of noise 0.002 on a jump of 0.2: 0.02 eV and 0.03 eV; five times that
        assert float(row["edge_energy_eV"]) == pytest.approx(EDGE_EV["V"] + truth[0], abs=0.1)
        assert float(row["pre_edge_ratio_eV"]) == pytest.approx(truth[1], abs=0.15)
    spectra = rows(folder, "region_spectra")
    assert len(spectra) == len(found) * ENERGIES


def test_reference_values_with_both_sets_of_constants(folder):
    table = {row["compound"]: row for row in rows(folder, "references")}
    paper = [float(table[name]["paper"]) for name in ("Li10/7V6/7O2", "LiVO2", "LiVO3")]
    np.testing.assert_allclose(paper, [39.7, 35.0, 43.1], atol=0.05)  # given to one decimal in the paper
    assert float(table["LiVO2"]["chantler"]) > float(table["LiVO2"]["paper"]) + 2


CASES = {
    "one particle": ([particle("P1")], {}),
    "not checked": ([particle("P1", checked=False), particle("D1", seed=1, checked=False)], {}),
    "no maps": ([particle("P1", maps=False, checked=False)], {}),
    "one without maps": ([particle("P1"), particle("P2", seed=1, maps=False)], {}),
    "unfinished": ([particle("P1"), particle("D1", seed=1, done=12, maps=False)], {}),
    "iron": ([particle("A", element="Fe"), particle("B", element="Fe", seed=1)], {}),
    "many states": ([particle("P1"), particle("D1", seed=1)], {"clusters": 9}),
    "seven": ([particle(f"P{n}", seed=n, shape=(26, 26), checked=False) for n in range(7)], {}),
}


@pytest.mark.parametrize("case", CASES)
def test_whatever_the_results_hold(case, tmp_path, monkeypatch):
    monkeypatch.setattr(content, "MOST_STATES", 1)  # no criteria
    results, options = CASES[case]
    parts = list(sections(assembled(tmp_path, *results, **options)))
    found = figures(parts)
    for item in found.values():
        assert_legible(item.figure, monkeypatch)
    mapped = any("maps/n_v" in each.arrays for each in results)
    assert bool({"maps", "maps-1"} & set(found)) == mapped
    checked = any("quality/frc" in each.tables for each in results)
    assert bool({"resolution", "resolution-1"} & set(found)) == checked


def test_another_edge_is_not_drawn_in_one_colour(tmp_path):
    maps = first_figure(sections(assembled(tmp_path, particle("A", element="Fe"))), "maps")
    low, high = maps.figure.axes[0].images[0].get_clim()
    assert EDGE_EV["Fe"] + 11 < low < high < EDGE_EV["Fe"] + 16


def test_what_is_missing_is_told(tmp_path):
    data = assembled(tmp_path, particle("P1"), particle("D1", seed=1, done=12, maps=False))
    assert data.notes == ("D1 has no chemical maps", "D1 is not finished: 12 of 34 energies")


def test_groups_as_the_results_say_and_as_chosen(tmp_path):
    one, two = particle("x"), particle("P2", seed=1)
    one = replace(one, attributes={**one.attributes, "preparation": "charged"})
    said = assembled(tmp_path, one, two)
    assert {each.label: each.group for each in said.particles} == {"P2": "as-prepared", "x": "charged"}
    chosen = assembled(tmp_path, one, two, groups=["fresh=x"])
    assert [(each.label, each.group) for each in chosen.particles] == [("x", "fresh"), ("P2", "others")]


def test_places_and_scales_of_the_user(tmp_path):
    data = assembled(
        tmp_path, particle("P1"), particle("D1", seed=1),
        places=["P1=0,1e-7", "-5e-8,0"], scales=["n_eff_ratio=20,60"], energy_eV=5479.0,
    )  # fmt: skip
    assert [len(data.spectra[name]) for name in ("P1", "D1")] == [2, 1]
    y_m, x_m = data.spectra["P1"][0].region.centre_m(data.particles[0].result)
    assert (y_m, x_m) == pytest.approx((1e-7, 0.0), abs=15.01e-9)  # half a pixel
    parts = sections(data)
    assert "5479.0 eV" in first_figure(parts, "images").caption
    images = [ax.images[0] for ax in first_figure(parts, "maps").figure.axes if ax.images]
    assert images[2].get_clim() == (20, 60)


def bulk_file(path, energy_eV, shift_eV=0.0):
    """A spectrum like that of the first state, μ on an energy scale that reads so much too high."""
    edge_eV, ratio, _ = STATES[0] + [EDGE_EV["V"], 0, 0]
    parameters = [0, 1, edge_eV, 2.5, ratio / (np.pi * 1.3), 5468, 1.3, 0.3, 5485, 4]
    mu = evaluate(XanesModel.for_edge("V"), parameters, energy_eV)
    np.savetxt(path, np.column_stack([energy_eV + shift_eV, 0.7 + 1.9 * mu]), header="energy  xmu")
    return path


def test_bulk_spectra_lie_on_those_of_regions_and_states(tmp_path):
    energy = np.arange(5330.0, 5760.0, 0.5)
    bulk = bulk_file(tmp_path / "bulk.dat", energy, shift_eV=0.6)
    foil = tmp_path / "foil.dat"
    mu = 1 / (1 + np.exp(-(energy - 5465.0) / 0.8))
    np.savetxt(foil, np.column_stack([energy + 0.6, mu]), header="energy  xmu")
    data = assembled(tmp_path, particle("P1"), bulk=[bulk], foil=foil)
    parts = list(sections(data))
    for name, label in (("states", "state 0"), ("regions", "A")):
        found = figures(parts)[name]
        assert "bulk, normalised, shifted by -0.6" in found.caption
        axes = next(ax for ax in found.figure.axes if "absorbance" in ax.get_ylabel())
        lines = axes.get_lines()
        ours = next(line for line in lines if line.get_label().startswith(label)).get_xydata()
        drawn = next(line for line in lines if line.get_label() == "bulk").get_xydata()
        there = np.interp(ours[:, 0], *drawn.T)
        # of the jump: noise of 9 pixels and more 0.3 %, its largest of 40 three times that, as much in the
        # baseline; the foil's 0.05 eV on a slope of 20 %/eV
        assert np.abs(there - ours[:, 1]).max() < 0.03 * np.ptp(ours[:, 1])
    writing.write_report(tmp_path / "out", "Particles", parts, data.notes)
    assert {row["spectrum"] for row in rows(tmp_path / "out", "bulk_spectra")} == {"bulk"}


def test_bulk_spectra_that_cannot_be_compared_are_told(tmp_path):
    short = bulk_file(tmp_path / "short.dat", np.arange(5460.0, 5500.0))
    for options, word in (
        ({"bulk": [tmp_path / "none.dat"]}, "none.dat"),
        ({"bulk": [short]}, "short.dat"),
        ({"foil": short}, "--bulk"),
    ):
        with pytest.raises(UserError, match=word):
            assembled(tmp_path, particle("P1"), **options)


MISTAKES = {
    "unknown sample of a group": ({"groups": ["fresh=Q1"]}, ["Q1", "P1"]),
    "unknown sample of a region": ({"places": ["Q1=0,0"]}, ["Q1", "P1"]),
    "region outside": ({"places": ["1,0"]}, ["--roi", "not in the field of P1"]),
    "unknown compound": ({"compounds": ["Xx2"]}, ["Xx2"]),
    "compound without the element": ({"compounds": ["Fe2O3"]}, ["Fe2O3", "V"]),
    "no group": ({"groups": ["P1"]}, ["NAME=SAMPLE"]),
    "no scale": ({"scales": ["b2=1,2"]}, ["edge_energy"]),
    "scale the wrong way": ({"scales": ["n_v=2,1"]}, ["LOW,HIGH"]),
    "no place": ({"places": ["a,b"]}, ["X_M,Y_M"]),
    "no number of clusters": ({"clusters": 0}, ["--clusters"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told(mistake, tmp_path):
    options, words = MISTAKES[mistake]
    with pytest.raises(UserError) as caught:
        next(sections(assembled(tmp_path, particle("P1"), **options)))
    for word in words:
        assert word in str(caught.value)


def test_results_that_cannot_be_used(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.nxs").write_text("no HDF5")
    for source, word in (
        ("empty", "no .nxs file"),
        ("none.nxs", "no such file"),
        ("text.nxs", "not a result"),
    ):
        with pytest.raises(UserError, match=word):
            read_particles([str(tmp_path / source)], {})
    two = written(tmp_path / "empty", particle("P1")) * 2
    with pytest.raises(UserError, match="twice"):
        read_particles(two, {})
    with pytest.raises(UserError, match="different edges"):
        assembled(tmp_path / "empty", particle("D1", element="Fe", seed=1))


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="holds other files"):
        report([str(tmp_path)], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_a_failed_report_leaves_nothing(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    sources = written(tmp_path, particle("P1", maps=False, checked=False))
    monkeypatch.setattr(writing, "_write_pdf", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match="No space left"):
        report(sources, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before
