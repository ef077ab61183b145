"""Calibration of σ from deviations with known σ."""

import numpy as np

from ptychrome.analysis.xanes_calibration import LEAST, Calibration

N = 1024
NOISE2 = np.geomspace(1e-4, 1e-2, N)


def learned(deviation: np.ndarray) -> Calibration:
    return Calibration.learned(np.array([1e-4, 1e-2, 1.0]), NOISE2, {"b2": (deviation, np.ones(N))})


def test_factor_is_what_σ_lacks():
    lacking = np.sqrt(1.0 + 50.0 * NOISE2)
    factor = learned(lacking * np.random.default_rng(0).standard_normal(N)).factor("b2")
    # k is known to √(2 N)/Σ(noise/jump)² = 20, so the largest factor, √1.5, to 8 %
    assert abs(factor[0] - 1.0025) < 0.003
    assert abs(factor[1] - np.sqrt(1.5)) < 0.2
    assert factor[2] == factor[1]  # no more than what was simulated


def test_what_is_not_known_keeps_its_σ():
    assert Calibration().factor("b1") == 1.0
    assert (learned(np.full(N, np.nan)).factor("b2") == 1.0).all()
    assert (learned(np.ones(N)).factor("c11") == 1.0).all()


def test_factors_have_limits():
    assert learned(np.zeros(N)).factor("b2")[1] >= LEAST
    far = np.zeros(N)
    far[0] = -1e6  # another minimum
    few = far.copy()
    few[0] = -5.0
    assert learned(far).excess == learned(few).excess
