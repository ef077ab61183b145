"""The twin's detector."""

import numpy as np
import pytest

from ptychrome.devices.twin.detector import DEAD, GAP, eiger


def test_mask_has_the_gap_and_the_dead_pixels():
    mask = eiger(256, dead_pixels=7).mask
    assert mask.dtype == np.uint32
    gap_rows = np.flatnonzero((mask & GAP).all(axis=1))
    assert np.array_equal(gap_rows, np.arange(128 + 48, 128 + 48 + 37))
    assert np.count_nonzero(mask & GAP) == 37 * 256
    assert np.count_nonzero(mask & DEAD) == 7


def test_gap_cuts_the_border_of_a_small_frame():
    assert np.array_equal(np.flatnonzero(eiger(128, dead_pixels=0).mask.any(axis=1)), np.arange(112, 128))


def test_saturated_and_masked_pixels_are_flagged():
    detector = eiger(128, ceiling_hz=1000.0, dead_pixels=0)
    expected = np.full(detector.shape, 50.0, dtype=np.float32)
    expected[3, 4] = 100.0
    counts = detector.read(expected, 0.1, None)
    assert counts.dtype == np.uint32
    assert counts[3, 4] == counts[120, 5] == 2**32 - 1
    assert np.count_nonzero(counts == 50) == 112 * 128 - 1


def test_sixteen_bits_hold_no_more():
    detector = eiger(64, bit_depth=16, dead_pixels=0, ceiling_hz=np.inf)
    counts = detector.read(np.full((64, 64), 70000.0, dtype=np.float32), 1.0, None)
    assert np.all(counts == 2**16 - 1)


def test_photons_are_poissonian():
    """Mean and variance of 16384 pixels: 5 standard errors, √(λ/n) and λ√(2/n)."""
    detector = eiger(128, gap=False, dead_pixels=0)
    counts = detector.read(np.full((128, 128), 30.0, dtype=np.float32), 1.0, np.random.default_rng(0))
    assert counts.mean() == pytest.approx(30.0, abs=5 * np.sqrt(30 / 16384))
    assert counts.var() == pytest.approx(30.0, abs=5 * 30 * np.sqrt(2.1 / 16384))


def test_bit_depth_is_checked():
    with pytest.raises(ValueError, match="bit_depth is 12; expected 16 or 32"):
        eiger(bit_depth=12)
