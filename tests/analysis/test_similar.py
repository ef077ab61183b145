"""What is shared among similar pixels: noise falls within a material, borders and small domains stay."""

import numpy as np
import pytest

from ptychrome.analysis.similar import shared_among_similar

SIDE, NOISE, REACH = 40, 0.01, 2.0
EVERYWHERE = np.ones((SIDE, SIDE), bool)


def coefficients(composition, seed=0):
    """(SIDE², 3): thickness, `composition` and a constant in units of it, true and with equal noise."""
    rng = np.random.default_rng(seed)
    thickness = np.linspace(0.5, 2.0, SIDE)[None, :] * np.ones((SIDE, 1))
    clean = np.stack([thickness, thickness * composition, 0.3 * thickness], axis=-1).reshape(-1, 3)
    return clean, clean + rng.normal(0, NOISE, clean.shape)


def rest(found, clean):
    return (found - clean).reshape(SIDE, SIDE, 3)


def test_noise_falls_where_all_is_one_material():
    clean, noisy = coefficients(np.full((SIDE, SIDE), 0.2))
    before, after = (
        rest(values, clean)[..., 1:] for values in (noisy, shared_among_similar(noisy, EVERYWHERE, REACH))
    )
    # 4π reach² = 50 neighbours would leave 0.14, but those that noise sets apart count less
    assert np.std(after) < 0.35 * np.std(before)
    assert np.abs(np.mean(after, axis=(0, 1))).max() < 3 * NOISE / SIDE


def test_the_thickness_stays():
    _, noisy = coefficients(np.full((SIDE, SIDE), 0.2))
    np.testing.assert_array_equal(shared_among_similar(noisy, EVERYWHERE, REACH)[:, 0], noisy[:, 0])


def test_a_border_stays():
    composition = np.full((SIDE, SIDE), 0.2)
    composition[SIDE // 2 :] = 0.3  # ten times the noise
    clean, noisy = coefficients(composition)
    after = rest(shared_among_similar(noisy, EVERYWHERE, REACH), clean)[SIDE // 2 - 1 : SIDE // 2 + 1, :, 1]
    assert np.abs(np.median(after, axis=1)).max() < NOISE


@pytest.mark.parametrize("side", [3, 7], ids=["9 pixels", "49 pixels"])
def test_a_small_domain_stays(side):
    composition = np.full((SIDE, SIDE), 0.2)
    domain = np.s_[20 : 20 + side, 20 : 20 + side]
    composition[domain] = 0.3
    clean, noisy = coefficients(composition)
    after = rest(shared_among_similar(noisy, EVERYWHERE, REACH), clean)[(*domain, 1)]
    assert np.abs(np.mean(after)) < NOISE


def test_pixels_apart_from_each_other_have_nothing_to_share():
    """Only neighbours along an axis tell the noise; here are none."""
    particle = np.zeros((SIDE, SIDE), bool)
    particle[::2, ::2] = True
    rng = np.random.default_rng(0)
    values = np.column_stack([np.ones(particle.sum()), rng.normal(size=particle.sum())])
    np.testing.assert_array_equal(shared_among_similar(values, particle, REACH), values)


def test_one_coefficient_is_left_alone():
    one = np.ones((SIDE**2, 1))
    assert shared_among_similar(one, EVERYWHERE, REACH) is one


def test_pixels_without_matter_give_no_nan():
    _, noisy = coefficients(np.full((SIDE, SIDE), 0.2))
    noisy[:5, 0] = [0, -0.01, 1e-9, 0, -1]
    assert np.isfinite(shared_among_similar(noisy, EVERYWHERE, REACH)).all()
    flipped = noisy * [-1, 1, 1]
    np.testing.assert_allclose(
        shared_among_similar(flipped, EVERYWHERE, REACH)[:, 1:],
        shared_among_similar(noisy, EVERYWHERE, REACH)[:, 1:],
    )
