"""Figures of the states: every axis named, the proposal marked, colours those of the maps."""

import io

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from ptychrome.analysis.cluster_count import StateCount
from ptychrome.callbacks.figures.densities import densities_figure, scatter_figure, state_count_figure
from ptychrome.callbacks.figures.style import cluster_colours

KS = np.arange(1, 7)


@pytest.fixture(scope="module")
def count():
    falling, nothing = 2.0 / KS**2, np.full(KS.size, 0.01)
    silhouette = np.array([np.nan, 0.4, 0.5, 0.7, 0.6, 0.5])
    return StateCount(KS, falling, silhouette, falling - 1, 1 - falling, nothing, 1 - 0.02 * KS, 4)


def drawn(figure):
    """Render, and check that no text overlaps another or leaves the page."""
    figure.savefig(io.BytesIO(), format="png", dpi=60)
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert 0 <= box.x0 < box.x1 <= width
    assert 0 <= box.y0 < box.y1 <= height
    names = [
        text for ax in figure.axes for text in (ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label)
    ]
    boxes = [text.get_window_extent() for text in [*names, *figure.texts] if text.get_text()]
    for i, one in enumerate(boxes):
        assert not any(one.overlaps(other) for other in boxes[i + 1 :])
    return figure


def test_five_criteria_side_by_side_with_the_proposal(count):
    figure = drawn(state_count_figure(count))
    assert len(figure.axes) == 5
    shown = [count.inertia, count.silhouette, count.bic, count.gap, count.stability]
    for ax, values in zip(figure.axes, shown, strict=True):
        assert ax.get_xlabel() == "number of states k"
        assert ax.get_ylabel()
        np.testing.assert_array_equal(ax.containers[0].lines[0].get_ydata(), values)
        assert next(line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 2) == 4
    assert "k = 4" in figure.texts[0].get_text()


def test_densities_integrate_to_one_in_the_colours_of_the_maps(revision):
    figure = drawn(densities_figure([revision(sample_name="P1"), revision(sample_name="D1", seed=1)]))
    assert len(figure.axes) == 6
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in figure.axes)
    for ax in figure.axes[:3]:
        x, y = ax.lines[0].get_data()
        assert np.sum(y) * (x[1] - x[0]) == pytest.approx(1.0, abs=0.03)  # limits hold 98 % or more
        colours = [to_rgb(patch.get_facecolor()[0]) for patch in ax.collections]
        assert colours == [to_rgb(colour) for colour in cluster_colours(4)]
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [f"state {k}" for k in range(4)]


def test_scatter_shows_pixels_by_their_three_features(revision):
    figure = drawn(scatter_figure([revision()]))
    (ax,) = figure.axes
    assert "edge energy" in ax.get_xlabel()
    assert "PE" in ax.get_ylabel()
    assert "eff" in ax.get_zlabel()
    labels = revision().arrays["clusters/label"]
    shown = sum(len(points._offsets3d[0]) for points in ax.collections)
    assert 0.8 * (labels >= 0).sum() < shown <= (labels >= 0).sum()


@pytest.mark.parametrize("draw", [densities_figure, scatter_figure])
def test_results_without_clusters_are_left_out(draw, revision):
    draw([revision(maps=False), revision()])
    with pytest.raises(ValueError, match="no clusters"):
        draw([revision(maps=False)])


def test_a_state_without_pixels_leaves_no_trace(revision):
    result = revision()
    label = result.arrays["clusters/label"]
    label[label == 2] = -1
    figure = densities_figure([result])
    assert len(figure.axes[0].collections) == 3
