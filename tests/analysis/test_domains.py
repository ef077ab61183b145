"""Chords of known textures, and what is resolved."""

import numpy as np
import pytest

from ptychrome.analysis.domains import chords, resolved
from ptychrome.analysis.scan import DataError

PIXEL_M = 10e-9


def discs(radius, rng, size=1200, tries=400):
    """Discs of one radius, apart from each other, in a ground of another label; radius in pixels."""
    label, centres = np.zeros((size, size), int), []
    rows, columns = np.mgrid[:size, :size]
    for centre in rng.uniform(0, size, (tries, 2)):
        if all(np.hypot(*(centre - other)) > 2 * radius + 4 for other in centres):
            centres.append(centre)
            low = np.maximum((centre - radius - 2).astype(int), 0)
            part = tuple(slice(a, a + int(2 * radius + 5)) for a in low)
            label[part][np.hypot(rows[part] - centre[0], columns[part] - centre[1]) < radius] = 1
    return label


def test_mean_chord_of_discs_is_half_pi_radius_also_where_the_field_cuts_them():
    label = discs(30.0, np.random.default_rng(0))
    found = chords(label, PIXEL_M)
    # discs cut by the field bring 2 % of scatter; pixels round chords by half a pixel of 47
    assert found.mean_m(2)[1] == pytest.approx(np.pi / 2 * 30 * PIXEL_M, rel=0.03)
    whole = found.whole(1)
    assert whole[-1] == pytest.approx(60 * PIXEL_M, abs=2 * PIXEL_M)
    # P(chord > l) = √(1 − (l/2r)²): the median is √3 r
    assert np.median(whole) == pytest.approx(np.sqrt(3) * 30 * PIXEL_M, rel=0.03)
    assert np.all(np.diff(whole) >= 0)


def test_stripes_are_as_wide_as_they_are_and_have_no_end_along():
    label = (np.arange(60) + np.arange(14)[:, None]) // 7 % 2  # cut at every place once
    found = chords(label, PIXEL_M)
    # 59 places between pixels where 60 pixels could end
    np.testing.assert_allclose(found.mean_m(2, along_x=True), 60 / 59 * 7 * PIXEL_M, rtol=1e-9)
    found = chords(label[:1].repeat(20, axis=0), PIXEL_M)
    assert np.isnan(found.mean_m(2, along_x=False)).all()
    assert set(np.round(found.whole(0) / PIXEL_M)) == {7}
    assert found.length_m.sum() == pytest.approx(2 * 20 * 60 * PIXEL_M)


def test_the_particle_s_outline_is_no_border_of_domains():
    rows, columns = np.mgrid[:200, :200]
    stripes = columns // 20 % 2
    label = np.where(np.hypot(rows - 99.5, columns - 99.5) < 90, stripes, -1)
    # rows near the top hold one cut stripe or two: length and ends shrink alike
    np.testing.assert_allclose(
        chords(label, PIXEL_M).mean_m(2, along_x=True), 20 * PIXEL_M, rtol=0.1
    )  # 9 stripes and no whole number of them
    cut = chords(np.where(label >= 0, 0, -1), PIXEL_M)
    assert np.isnan(cut.mean_m(2)).all()
    assert not cut.ends.any()


def test_rows_do_not_run_into_each_other():
    found = chords(np.array([[0, 1, 1], [1, 0, -1]]), 1.0)
    rows = found.along_x
    assert sorted(zip(found.label[rows], found.length_m[rows], found.ends[rows], strict=True)) == [
        (0, 1.0, 1), (0, 1.0, 1), (1, 1.0, 1), (1, 2.0, 1),
    ]  # fmt: skip


def test_resolved_takes_away_seams_and_specks_and_nothing_else():
    label = np.zeros((40, 40), int)
    label[:, 20:] = 2
    label[:, 19:21] = 1  # a seam
    label[5, 5] = 3  # a speck
    label[30:34, 4:12] = 1  # a domain as wide as the resolution
    label[:, :1] = -1
    clean = resolved(label, PIXEL_M, 40e-9)
    expected = np.where(np.arange(40) < 20, 0, 2)[None].repeat(40, axis=0)
    expected[30:34, 4:12] = 1
    expected[:, :1] = -1
    np.testing.assert_array_equal(clean, expected)
    np.testing.assert_array_equal(resolved(label, PIXEL_M, 0.0), label)


def test_domains_cut_by_the_outline_stay():
    label = np.full((30, 30), -1)
    label[10:20, 10:20] = 0
    label[10:20, 18:20] = 1  # half of the square: it may go on outside
    np.testing.assert_array_equal(resolved(label, PIXEL_M, 40e-9), label)
    label[10:20, 18] = 0
    assert not (resolved(label, PIXEL_M, 40e-9) == 1).any()


def test_where_nothing_is_wide_all_stays():
    label = np.indices((9, 9)).sum(axis=0) % 2
    np.testing.assert_array_equal(resolved(label, PIXEL_M, 30e-9), label)


def test_errors_name_what_is_wrong():
    with pytest.raises(DataError, match="pixel size"):
        chords(np.zeros((3, 3), int), 0.0)
    with pytest.raises(DataError, match="map"):
        chords(np.zeros(3, int), 1.0)
