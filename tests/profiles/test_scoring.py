"""Scores: a perfect result has no error, wherever it lies; a wrong one has the error it was given."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from ptychrome.devices.twin import TwinBeamline
from ptychrome.plans import v_k_edge
from ptychrome.profiles.scoring import FEATURES, score

PIXEL_M = 30e-9


@pytest.fixture(scope="module")
def truth():
    return TwinBeamline("P1").truth(PIXEL_M, v_k_edge())


def result_from(truth, shift_px=(0, 0), margin=6):
    """Maps that hold the truth, drawn as if the sample stood elsewhere by whole pixels."""
    pad = ((margin + shift_px[0], margin - shift_px[0]), (margin + shift_px[1], margin - shift_px[1]))

    def padded(image, outside):
        return np.pad(np.where(truth.label >= 0, image, outside), pad, constant_values=outside)

    arrays = {f"maps/{name}": padded(getattr(truth, name), np.nan) for name in FEATURES.values()}
    ny, nx = arrays["maps/n_v"].shape
    step = np.mean(np.diff(truth.y_m))
    arrays["y"] = truth.y_m[0] + step * (np.arange(ny) - margin)
    arrays["x"] = truth.x_m[0] + step * (np.arange(nx) - margin)
    arrays["clusters/label"] = padded(truth.label, -1)
    arrays["absorbance"] = np.repeat(padded(truth.n_v, 0.0)[None] / 2e23, 6, axis=0)
    return arrays


@pytest.mark.parametrize("shift_px", [(0, 0), (2, -1), (-3, 4)])
def test_a_perfect_result_has_no_error_wherever_it_lies(truth, shift_px):
    """What the registration's step of 1/100 pixel leaves: far below any limit of the demo."""
    result = score(result_from(truth, shift_px), truth)
    assert result.pixels > 100
    limits = {"edge_energy_eV": 0.01, "pre_edge_ratio_eV": 0.01, "n_v_rel": 1e-3, "n_eff_ratio": 0.05}
    for name, limit in limits.items():
        assert result.errors[name] < limit
        assert abs(result.bias[name]) < limit
    assert result.errors["cluster_ari"] == 1.0
    assert result.bias["cluster_ari_with_borders"] > 0.95


def test_known_errors_are_measured(truth):
    arrays = result_from(truth)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(arrays["maps/edge_energy"].shape)
    arrays["maps/edge_energy"] = arrays["maps/edge_energy"] + 0.5 + 0.2 * noise
    arrays["maps/n_v"] = arrays["maps/n_v"] * 0.9
    result = score(arrays, truth)
    # scatter of an estimate of σ from n pixels: 1.17 / √(2n) of it, n about 300
    assert result.errors["edge_energy_eV"] == pytest.approx(0.2, rel=0.15)
    assert result.bias["edge_energy_eV"] == pytest.approx(0.5, abs=0.05)
    assert result.bias["n_v_rel"] == pytest.approx(-0.1, abs=1e-3)
    assert result.errors["n_v_rel"] < 1e-3


def test_names_of_clusters_do_not_matter_but_missing_pixels_do(truth):
    arrays = result_from(truth)
    label = arrays["clusters/label"]
    renamed = dict(arrays, **{"clusters/label": np.where(label >= 0, (label + 2) % 4, -1)})
    assert score(renamed, truth).errors["cluster_ari"] == 1.0
    holes = np.random.default_rng(0).random(label.shape) < 0.3
    pierced = dict(arrays, **{"clusters/label": np.where(holes, -1, label)})
    assert score(pierced, truth).errors["cluster_ari"] < 0.9


def test_pixels_without_a_value_are_left_out_of_the_errors(truth):
    arrays = result_from(truth)
    holes = np.random.default_rng(0).random(arrays["maps/n_v"].shape) < 0.3
    arrays["maps/edge_energy"] = np.where(holes, np.nan, arrays["maps/edge_energy"])
    assert score(arrays, truth).errors["edge_energy_eV"] < 0.01
    arrays["maps/edge_energy"] = np.full_like(arrays["maps/edge_energy"], np.nan)
    assert np.isnan(score(arrays, truth).errors["edge_energy_eV"])


def test_another_pixel_size_is_compared_at_the_same_places(truth):
    """A grid of 20 nm, values taken from the truth by the nearest pixel: the label is still right inside."""
    arrays = result_from(truth)
    fine = {}
    ny, nx = arrays["maps/n_v"].shape
    rows, columns = np.meshgrid(np.arange(0, ny - 1, 2 / 3), np.arange(0, nx - 1, 2 / 3), indexing="ij")
    for name, image in arrays.items():
        if image.ndim == 2:
            fine[name] = map_coordinates(image, [rows, columns], order=0)
    fine["absorbance"] = np.repeat(
        map_coordinates(arrays["absorbance"][0], [rows, columns], order=1)[None], 5, 0
    )
    fine["y"] = np.interp(rows[:, 0], np.arange(ny), arrays["y"])
    fine["x"] = np.interp(columns[0], np.arange(nx), arrays["x"])
    assert score(fine, truth).errors["cluster_ari"] > 0.97


def test_a_result_without_maps_scores_nan(truth):
    result = score({"y": truth.y_m, "x": truth.x_m, "absorbance": np.ones((5, 3, 3))}, truth)
    assert np.isnan(list(result.errors.values())).all()
    assert result.pixels == 0
