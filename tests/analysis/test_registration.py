"""Registration finds sub-pixel shifts in noise, with the right sign."""

import numpy as np
import pytest

from ptychrome.analysis.registration import register

SHAPE = (80, 90)


def phase(shift=(0.0, 0.0), noise=0.0, scale=1.0, seed=0):
    """A particle with domains; its content is moved by `shift` rows and columns."""
    rows, columns = np.indices(SHAPE, dtype=float)
    y, x = rows - 38.0 - shift[0], columns - 47.0 - shift[1]
    body = np.clip(1 - (y / 20) ** 2 - (x / 24) ** 2, 0, None) ** 0.8
    domains = 1 + 0.1 * np.sin(y / 3 + 1) * np.sin(x / 4)
    return -scale * body * domains + noise * np.random.default_rng(seed).standard_normal(SHAPE)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.37, -0.82), (-2.46, 1.1), (3.3, 3.05)])
def test_a_known_shift_is_found_in_noise(shift):
    """Content moved by `shift` must move back. 0.02 px = 0.6 nm at 30 nm pixels, for noise of 5 mrad."""
    found = register(phase(noise=5e-3, seed=1), phase(shift, noise=5e-3, seed=2))
    assert found == pytest.approx(np.negative(shift), abs=0.02)


def test_contrast_may_change_between_energies():
    """Across the V K-edge the phase changes by a tenth."""
    found = register(phase(noise=5e-3, seed=1), phase((0.6, -0.3), noise=5e-3, scale=0.9, seed=2))
    assert found == pytest.approx((-0.6, 0.3), abs=0.02)


def test_finer_steps_than_the_noise_are_resolved():
    shifts = [register(phase(), phase((0.01 * i, 0.0)))[0] for i in range(4)]
    assert np.diff(shifts) == pytest.approx(-0.01, abs=0.006)  # the search's step is 0.005
