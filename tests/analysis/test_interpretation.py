"""From a stack to chemistry, as far as the energies so far allow."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import erf

from ptychrome.analysis import interpretation
from ptychrome.analysis.grid import CommonGrid
from ptychrome.analysis.interpretation import interpret
from ptychrome.analysis.options import EpieOptions
from ptychrome.analysis.recipe import ChemistryOptions, Recipe
from ptychrome.analysis.scan import DataError
from ptychrome.analysis.stack import EnergyStack
from ptychrome.analysis.xanes import XanesOptions, fit_xanes
from ptychrome.schema import MAPS, Flag

ENERGIES = np.r_[
    5420.0, 5432.0, 5444.0, 5456.0, np.arange(5463.0, 5472.0, 1.0), np.arange(5473.0, 5485.0, 1.0), 5490.0,
    5500.0, 5520.0, 5540.0,
]  # fmt: skip
SHAPE = (30, 34)
ROWS, COLUMNS = np.indices(SHAPE)
THICKNESS = np.clip(1 - ((ROWS - 15) / 11) ** 2 - ((COLUMNS - 16) / 13) ** 2, 0, None) ** 0.8
STATE = (COLUMNS > 16).astype(int)
EDGE_EV = np.where(STATE == 0, 5477.0, 5479.5)
RECIPE = Recipe(name="test", reconstruct=(EpieOptions(sweeps=1),), n_clusters=2)


def full_stack(edge_eV=EDGE_EV, energies=ENERGIES, shift_eV=0.0):
    """Two chemical states side by side, noise of 1e-3, vacuum around."""
    rng = np.random.default_rng(0)
    energy = (energies - shift_eV)[:, None, None]
    peak = (0.4 + 0.6 * STATE) / (1 + ((energy - 5468.5) / 1.2) ** 2)
    absorbance = 0.25 * THICKNESS * (0.1 + 0.5 * (1 + erf((energy - edge_eV) / 2.5)) + 0.5 * peak)
    phase = -1.0 * THICKNESS * (1 + 0.1 * STATE) * np.ones_like(energy)
    noise = rng.standard_normal((2, *absorbance.shape)) * 1e-3
    wave = np.exp(-absorbance / 2 + 1j * phase) * (1 + noise[0] + 1j * noise[1])
    stack = EnergyStack.empty(energies, CommonGrid(30e-9, SHAPE, (0.0, 0.0)))
    return replace(
        stack,
        object=wave.astype(np.complex64),
        shift_m=np.zeros((len(energies), 2)),
        vacuum=THICKNESS == 0,
        found_vacuum=True,
    )


def only(stack, places):
    """The stack with only some energies measured."""
    keep = np.isin(np.arange(len(stack.energy_eV)), places)
    return replace(
        stack,
        object=np.where(keep[:, None, None], stack.object, np.nan).astype(np.complex64),
        shift_m=np.where(keep[:, None], 0.0, np.nan),
    )


@pytest.mark.parametrize("places", [[], [3], [0, 8, 14, 20]])
def test_too_few_energies_give_nothing_yet(places):
    assert interpret(only(full_stack(), places), RECIPE, "V", "K") is None


def test_a_single_energy_is_never_interpreted():
    stack = full_stack()
    one = replace(stack, energy_eV=ENERGIES[:1], object=stack.object[:1], shift_m=stack.shift_m[:1])
    assert interpret(one, RECIPE, "V", "K") is None


def test_energies_that_miss_the_edge_are_not_interpreted():
    assert interpret(full_stack(), RECIPE, "Fe", "K") is None


def test_maps_come_as_soon_as_the_edge_is_passed_and_then_stay():
    """Energies in the order of a scan: None, then maps of Re[N_eff] alone, then everything."""
    stack, known, previous = full_stack(), [], None
    for count in range(1, len(ENERGIES) + 1):
        previous = interpret(only(stack, range(count)), RECIPE, "V", "K", previous)
        known.append(
            0 if previous is None else 1 + int(np.isfinite(previous.arrays()["maps/edge_energy"]).sum() > 200)
        )
    assert known == sorted(known)
    assert known[3] == 0
    assert known[4] == 1
    assert known[-1] == 2


def test_a_scan_from_the_top_down_has_no_n_eff_before_the_edge_is_passed():
    stack, previous = full_stack(), None
    below = np.count_nonzero(ENERGIES < 5462.0)
    for first in reversed(range(len(ENERGIES))):
        previous = interpret(only(stack, range(first, len(ENERGIES))), RECIPE, "V", "K", previous)
        if previous is not None:
            assert np.isfinite(previous.arrays()["maps/n_eff"]).any() == (first < below), first
    assert np.isfinite(previous.arrays()["maps/n_eff_ratio"]).sum() > 200


def test_the_finished_stack_gives_both_states():
    arrays = interpret(full_stack(), RECIPE, "V", "K").arrays()
    assert {f"maps/{name}{suffix}" for name in MAPS for suffix in ("", "_sigma")} | {"maps/fitted"} <= set(
        arrays
    )
    fitted = arrays["maps/fitted"] == 1
    assert not fitted[THICKNESS == 0].any()
    assert fitted[THICKNESS > 0.3].mean() > 0.99
    thick = THICKNESS > 0.5
    for state, expected in enumerate((5477.0, 5479.5)):
        # noise of 2e-3 in μt against jumps over 0.12: σ(b2) below 0.05 eV, the model adds
        # as much again at most
        found = np.median(arrays["maps/edge_energy"][thick & (state == STATE)])
        assert found == pytest.approx(expected, abs=0.15)
    label = arrays["clusters/label"]
    assert (label[THICKNESS == 0] == -1).all()
    left, right = (label[thick & (state == STATE)] for state in (0, 1))
    assert len({int(np.median(left)), int(np.median(right))}) == 2
    assert np.mean(left == np.median(left)) > 0.97
    assert np.mean(right == np.median(right)) > 0.97
    assert arrays["clusters/spectra"].shape == (2, len(ENERGIES))
    assert arrays["clusters/fractions"].sum() == pytest.approx(1.0)


def test_only_the_areal_density_and_what_rests_on_it_follow_the_choice_of_jump():
    """The stack is eq. (1)'s: the physical step finds 1 to 4 % more, the fall-off that is not there."""
    recipe = RECIPE.model_copy(update={"chemistry": ChemistryOptions(jump="eq1", average_n_eff=False)})
    default = RECIPE.model_copy(update={"chemistry": ChemistryOptions(average_n_eff=False)})
    eq1, physical = (interpret(full_stack(), r, "V", "K").maps for r in (recipe, default))
    for name in MAPS:
        change = np.nanmedian(physical[name] / eq1[name])
        expected = {"n_v": 1.025, "n_eff_ratio": 1 / 1.025}.get(name, 1.0)
        assert change == pytest.approx(expected, abs=0.015 if expected != 1.0 else 1e-7), name
    assert np.nanmedian(physical["n_v_sigma"] / eq1["n_v_sigma"]) > 1.01


def test_flags_say_why_pixels_are_missing():
    stack = full_stack()
    arrays = interpret(stack, RECIPE, "V", "K").arrays()
    flag = arrays["maps/flag"]
    np.testing.assert_array_equal(flag == Flag.FITTED, arrays["maps/fitted"] == 1)
    assert (flag[THICKNESS == 0] == Flag.NO_MATTER).all()
    assert set(np.unique(flag[THICKNESS > 0])) <= {Flag.FITTED, Flag.NOISY, Flag.NOT_CONVERGED}
    assert np.isfinite(arrays["maps/chi2"][THICKNESS > 0]).all()
    early = interpret(only(stack, range(8)), RECIPE, "V", "K").arrays()["maps/flag"]
    assert (early[THICKNESS > 0] == Flag.UNDETERMINED).all()


def test_the_fit_before_is_where_the_next_one_starts(monkeypatch):
    """Pixel by pixel, also when the vacuum has moved; a fit that failed is forgotten."""
    starts, whole = [], full_stack()

    def spy(*args, start=None, **options):
        starts.append(start)
        return fit_xanes(*args, start=start, **options)

    monkeypatch.setattr(interpretation, "fit_xanes", spy)
    first = interpret(only(whole, range(len(ENERGIES) - 1)), RECIPE, "V", "K")
    moved = THICKNESS < 0.2
    second = interpret(replace(whole, vacuum=moved), RECIPE, "V", "K", first)
    assert starts[0] is None
    before = np.full((*SHAPE, 10), np.nan)
    before[first.pixels] = np.where(first.fit.converged[:, None], first.fit.parameters, np.nan)
    np.testing.assert_array_equal(starts[1], before[~moved])
    fresh = interpret(replace(whole, vacuum=moved), RECIPE, "V", "K")
    # without a white line in these spectra many have several minima: a warm start finds as good ones
    assert np.mean(second.fit.chi2) < 1.01 * np.mean(fresh.fit.chi2)


def test_phase_can_be_fitted_too():
    """The phase of this stack has no edge: the fit must notice, and without a vacuum it must not try."""
    joint = RECIPE.model_copy(update={"xanes": XanesOptions(with_phase=True)})
    chi2 = [np.nanmedian(interpret(full_stack(), r, "V", "K").arrays()["maps/chi2"]) for r in (RECIPE, joint)]
    assert chi2[1] > 2 * chi2[0]
    filled = replace(full_stack(), vacuum=np.zeros(SHAPE, bool), found_vacuum=False)
    assert interpret(filled, joint, "V", "K") is not None


def test_labels_stay_while_energies_arrive():
    stack = full_stack()
    before = interpret(only(stack, range(len(ENERGIES) - 2)), RECIPE, "V", "K")
    after = interpret(stack, RECIPE, "V", "K", before)
    labels = [result.arrays()["clusters/label"] for result in (before, after)]
    both = (labels[0] >= 0) & (labels[1] >= 0)
    assert np.mean(labels[0][both] == labels[1][both]) > 0.97


def test_an_object_that_fills_the_field():
    """Without vacuum every pixel is matter; nothing is known of the noise of the phase."""
    stack = replace(full_stack(), vacuum=np.zeros(SHAPE, bool), found_vacuum=False)
    arrays = interpret(stack, RECIPE, "V", "K").arrays()
    assert (arrays["maps/fitted"] == 1).sum() > 200
    assert not arrays["maps/fitted"][THICKNESS == 0].any()


def test_nothing_but_vacuum():
    assert interpret(replace(full_stack(), vacuum=np.ones(SHAPE, bool)), RECIPE, "V", "K") is None


def test_another_edge():
    """The same spectrum 1647 eV higher is one at the Fe K edge (7112 eV)."""
    shift = 7112.0 - 5465.0
    stack = full_stack(energies=ENERGIES + shift, shift_eV=shift)
    arrays = interpret(stack, RECIPE, "Fe", "K").arrays()
    left = (THICKNESS > 0.5) & (STATE == 0)
    assert np.median(arrays["maps/edge_energy"][left]) == pytest.approx(5477.0 + shift, abs=0.15)


def test_the_paper_s_constants_are_for_vanadium_only():
    recipe = RECIPE.model_copy(update={"chemistry": ChemistryOptions(constants="paper")})
    assert interpret(full_stack(), recipe, "V", "K") is not None
    shift = 7112.0 - 5465.0
    with pytest.raises(DataError, match="V K-edge, but the scan is over the Fe K-edge"):
        interpret(full_stack(energies=ENERGIES + shift, shift_eV=shift), recipe, "Fe", "K")


def test_an_unknown_edge_is_an_error():
    with pytest.raises(DataError, match="no absorption edge"):
        interpret(full_stack(), RECIPE, "Xx", "K")
