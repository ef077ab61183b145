"""Figures: everything named, nothing cut off, nothing flipped, whatever is there so far."""

from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from ptychrome.analysis.resolution import RingCorrelation, TransferFunction
from ptychrome.callbacks.figures.clusters import normalised_spectra
from ptychrome.callbacks.figures.images import View, round_length
from ptychrome.callbacks.figures.layout import DPI, save_figure
from ptychrome.callbacks.figures.live import FigureSink, quality_figure, results_figure, summary_figure
from ptychrome.callbacks.figures.style import MISSING, cluster_colours
from ptychrome.callbacks.files import WriteError
from ptychrome.callbacks.quality import QualityCheck
from ptychrome.schema import MAPS


def texts_of(ax):
    return [text.get_text() for text in ax.texts]


def panel(figure, title):
    """The map whose title begins so."""
    (found,) = [ax for ax in figure.axes if ax.get_title(loc="left").startswith(title)]
    return found


def assert_named_and_on_the_page(figure):
    for ax in figure.axes:
        named = ax.get_title(loc="left") or ax.get_ylabel() or ax.get_xlabel()
        assert ax.images or named, f"axes at {ax.get_position()} say not what they show"
        if ax.lines and ax.axison and not ax.images:
            assert ax.get_xlabel()
            assert ax.get_ylabel()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= width
    assert box.y1 <= height
    titles = [ax.title for ax in figure.axes] + [ax._left_title for ax in figure.axes] + figure.texts
    boxes = [text.get_window_extent() for text in titles if text.get_text()]
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[i + 1 :])


@pytest.fixture(scope="module")
def page(revision):
    return results_figure(revision())


def test_a_page_is_complete(page, revision):
    assert_named_and_on_the_page(page)
    (heading,) = [text.get_text() for text in page.texts]
    for word in ("P1", "recipe live", "40 of 40 energies"):
        assert word in heading
    assert "absorbance at 5540.0 eV" in [ax.get_title(loc="left") for ax in page.axes]
    assert "phase at 5420.0 eV" in [ax.get_title(loc="left") for ax in page.axes]
    legend = panel(page, "clusters").get_legend()
    fractions = revision().arrays["clusters/fractions"]
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == [f"{k}:  {100 * share:.0f} %" for k, share in enumerate(fractions)]


@pytest.mark.parametrize("energies_done", [0, 1, 12, 40])
def test_what_is_not_there_yet_leaves_its_place_empty(revision, energies_done):
    figure = results_figure(revision(energies_done=energies_done, maps=False, final=False))
    assert_named_and_on_the_page(figure)
    empty = [ax for ax in figure.axes if "needs more\nenergies" in texts_of(ax)]
    stacks = 2 if energies_done == 0 else 0
    assert len(empty) == 6 + 3 + stacks  # maps, plots, and absorbance and phase
    assert "not finished" in figure.texts[0].get_text()


def test_maps_have_the_scales_of_the_schema(page):
    for name in ("edge_energy", "pre_edge_ratio"):
        assert panel(page, MAPS[name].label.split()[0]).images[0].get_clim() == MAPS[name].limits


def test_paper_scales(revision):
    image = panel(results_figure(revision(), paper_scales=True), "Re[").images[0]
    assert image.get_clim() == MAPS["n_eff_ratio"].limits


def test_another_edge_is_not_drawn_in_one_colour(revision):
    one = revision()
    iron = {**one.arrays, "maps/edge_energy": one.arrays["maps/edge_energy"] + 1640}
    low, high = panel(results_figure(replace(one, arrays=iron)), "edge").images[0].get_clim()
    assert 7110 < low < high < 7130


def test_maps_are_cropped_but_neither_flipped_nor_scaled(page, revision):
    one = revision()
    view = View.of(one)
    shown = panel(page, "edge energy").images[0].get_array()
    np.testing.assert_array_equal(shown.filled(np.nan), view.crop(one.arrays["maps/edge_energy"]))
    assert np.isfinite(shown.filled(np.nan)).sum() == np.isfinite(one.arrays["maps/edge_energy"]).sum()
    density = panel(page, "areal density").images[0].get_array().filled(np.nan)
    np.testing.assert_allclose(density, view.crop(one.arrays["maps/n_v"]) / 1e22, rtol=1e-6)  # float32


def test_lone_pixels_do_not_widen_the_view(revision):
    one = revision()
    spotted = one.arrays["maps/fitted"].copy()
    spotted[1, 1] = spotted[-2, -2] = 1
    spotted_view = View.of(replace(one, arrays={**one.arrays, "maps/fitted": spotted}))
    assert spotted_view == View.of(one)


@pytest.mark.parametrize(("y_sign", "x_sign"), [(-1, -1), (1, 1), (-1, 1), (1, -1)])
def test_arrows_follow_the_coordinates(revision, y_sign, x_sign):
    one = revision(maps=False)
    axes = {"y": -y_sign * one.arrays["y"], "x": -x_sign * one.arrays["x"]}  # they descend as made
    figure = results_figure(replace(one, arrays={**one.arrays, **axes}))
    arrows = {text.get_text(): text for text in panel(figure, "absorbance").texts if hasattr(text, "xyann")}
    assert np.sign(arrows["x"].xyann[0] - arrows["x"].xy[0]) == x_sign
    assert np.sign(arrows["y"].xyann[1] - arrows["y"].xy[1]) == -y_sign  # y along rows points down the page


def test_scale_bar_is_as_long_as_it_says(page, revision):
    ax = panel(page, "edge energy")
    fractions = ax.lines[0].get_xdata()
    length_m = np.ptp(fractions) * ax.images[0].get_array().shape[1] * View.of(revision()).pixel_m
    assert "500 nm" in texts_of(ax)
    assert length_m == pytest.approx(500e-9)


def test_missing_pixels_are_light_grey_in_the_picture(page, tmp_path):
    save_figure(page, tmp_path / "page.png")
    picture = matplotlib.image.imread(tmp_path / "page.png")
    width, height = page.get_size_inches()
    assert picture.shape[:2] == (round(height * DPI), round(width * DPI))
    x, y = panel(page, "edge energy").transAxes.transform((0.05, 0.95)).astype(int)
    np.testing.assert_allclose(picture[-y, x, :3], to_rgb(MISSING), atol=1 / 255)  # 8 bit


def test_spectra_are_normalised(revision):
    spectra = normalised_spectra(revision())
    assert spectra[:, :4] == pytest.approx(0.0, abs=0.01)  # noise of 0.003 in μt, averaged over 400 pixels
    assert spectra[:, -4:] == pytest.approx(1.0, abs=0.05)


def test_a_single_energy(single_energy):
    figure = results_figure(single_energy)
    assert_named_and_on_the_page(figure)
    (curve,) = panel(figure, "convergence").lines
    np.testing.assert_array_equal(curve.get_ydata(), single_energy.arrays["quality/error"][0])
    probe = panel(figure, "probe").images[0].get_array()
    assert probe.shape == (32, 32, 3)
    brightest = np.argmax(np.abs(single_energy.arrays["probe"][0, 0]))
    assert np.argmax(probe.max(axis=-1)) == brightest


@pytest.fixture(scope="module")
def check():
    """Correlation and transfer that fall off at periods of about 90 nm, a residual with a bright middle."""
    frequency = np.linspace(5e5, 16e6, 24)
    correlation = 1 / (1 + (frequency / 11e6) ** 8)
    frc = RingCorrelation(frequency, correlation, np.linspace(6, 90, 24), 16.6e6)
    residual = np.ones((48, 48), np.float32)
    residual[20:28, 20:28], residual[3, 4] = 300.0, np.nan
    return QualityCheck(5540.0, residual, frc, TransferFunction(frequency, correlation, 16.6e6), 8)


def with_check(one, check):
    return replace(
        one,
        arrays={**one.arrays, **check.arrays()},
        tables={**one.tables, **check.tables()},
        attributes={**one.attributes, **check.attributes()},
    )


def assert_shows(figure, check):
    legend = [text.get_text() for text in panel(figure, "Fourier").get_legend().get_texts()]
    found = [1e9 * check.attributes()[f"resolution_{name}_m"] for name in ("half_bit", "one_bit", "prtf")]
    named = zip(("½ bit", "1 bit", "PRTF"), found, strict=True)
    assert legend == ["two halves", *(f"{name}: {value:.0f} nm" for name, value in named)]
    marks = [line.get_xdata() for line in panel(figure, "Fourier").lines if line.get_linestyle() == ":"]
    marks = sorted(x[0] for x in marks if x[0] == x[1])
    np.testing.assert_allclose(marks, sorted(1e3 / np.array(found)))  # 1/µm
    image = panel(figure, "detector residual").images[0]
    low, high = image.get_clim()
    assert low * high == pytest.approx(1)  # photon noise is white
    assert image.get_array().mask.sum() == 1


def test_what_was_checked_has_a_row_of_its_own(page, revision, single_energy, check):
    for one, before in ((revision(), page), (single_energy, results_figure(single_energy))):
        figure = results_figure(with_check(one, check))
        assert_named_and_on_the_page(figure)
        assert_shows(figure, check)
        assert figure.get_figheight() > before.get_figheight() + 2
        assert len([ax for ax in figure.axes if ax.get_title(loc="left") == "convergence"]) == 1
    titles = [ax.get_title(loc="left") for ax in page.axes]
    assert not [title for title in titles if title.startswith(("Fourier", "detector", "convergence"))]


def test_quality_alone(revision, check):
    figure = quality_figure(with_check(revision(), check))
    assert_named_and_on_the_page(figure)
    assert_shows(figure, check)
    unchecked = quality_figure(revision())
    assert_named_and_on_the_page(unchecked)
    assert [ax.get_title(loc="left") for ax in unchecked.axes] == ["convergence"]


def test_a_resolution_that_the_pixels_limit_says_so(revision, check):
    fine = replace(check.correlation, correlation=np.ones(24))
    figure = quality_figure(with_check(revision(), replace(check, correlation=fine, transfer=None)))
    legend = [text.get_text() for text in panel(figure, "Fourier").get_legend().get_texts()]
    assert legend == ["two halves", "½ bit: ≤ 60 nm", "1 bit: ≤ 60 nm"]  # 1/16.6 µm


def test_the_transfer_function_alone(revision, check):
    figure = quality_figure(with_check(revision(), replace(check, correlation=None, starts=7)))
    legend = panel(figure, "transfer function at 5540.0 eV").get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["PRTF"]


def test_a_summary_has_a_row_for_each_particle_on_common_scales(revision):
    rows = [revision(), revision(seed=1, sample_name="D1"), revision(maps=False, sample_name="D2")]
    figure = summary_figure(rows)
    assert_named_and_on_the_page(figure)
    assert [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()] == ["P1", "D1", "D2"]
    maps = [ax for ax in figure.axes if ax.images]
    assert maps[0].images[0].get_clim() == maps[5].images[0].get_clim() == MAPS["edge_energy"].limits
    assert maps[3].images[0].get_clim() == maps[8].images[0].get_clim()


def test_a_summary_of_nothing():
    with pytest.raises(ValueError, match="expected at least one"):
        summary_figure([])


def test_a_live_picture_is_drawn_at_once_now_and_then_and_in_the_end(tmp_path, revision):
    path = tmp_path / "P1.png"
    sink = FigureSink(lambda revision: path)
    first, second, final = (revision(energies_done=n, maps=False, final=n == 4) for n in (2, 3, 4))
    pictures = []
    for step in (
        lambda: sink.write(first),
        lambda: sink.write(second),
        sink.close,
        lambda: sink.write(final),
    ):
        step()
        pictures.append(path.read_bytes())
    assert pictures[0] == pictures[1]  # a moment later: left out
    assert pictures[1] != pictures[2]  # but drawn on closing
    assert pictures[2] != pictures[3]
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_earlier_picture(page, tmp_path, full_disk):
    path = tmp_path / "P1.png"
    path.write_bytes(b"earlier")
    with full_disk(), pytest.raises(WriteError, match=r"P1\.png"):
        save_figure(page, path)
    assert path.read_bytes() == b"earlier"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("longest", "length"), [(1.0, 1.0), (1.99, 1.0), (2e-7, 2e-7), (7e-7, 5e-7), (0.09, 0.05)]
)
def test_round_length(longest, length):
    assert round_length(longest) == pytest.approx(length)


@pytest.mark.parametrize("count", [1, 6, 8, 12])
def test_cluster_colours_differ(count):
    assert len({to_rgb(colour) for colour in cluster_colours(count)}) == count
