"""What a recipe does without an i0 monitor."""

import pytest

from ptychrome.analysis.recipe import UNMONITORED_ERROR, Recipe

LIVE = {
    "name": "live",
    "reconstruct": [
        {"engine": "epie", "sweeps": 5},
        {"engine": "ml", "sweeps": 20},
        {"engine": "ml", "sweeps": 9},
    ],
    "warm": [{"engine": "ml", "sweeps": 4, "position_error_m": 5e-9}],
    "joint": {"refine": [{"engine": "ml", "sweeps": 8, "intensity_error": 1e-3}]},
}


def outline(stages):
    return [(stage.engine, stage.sweeps, stage.intensity_error) for stage in stages]


def test_without_a_monitor_the_object_comes_first_and_then_intensities_with_it():
    recipe = Recipe.model_validate(LIVE).without_monitor()
    free = UNMONITORED_ERROR
    assert outline(recipe.reconstruct) == [("epie", 5, 0), ("ml", 20, 0), ("ml", 20, free), ("ml", 9, free)]
    assert outline(recipe.warm) == [("ml", 4, 0), ("ml", 4, free)]
    assert {stage.position_error_m for stage in recipe.warm} == {5e-9}
    assert outline(recipe.joint.refine) == [("ml", 8, free)]


@pytest.mark.parametrize("engine", ["epie", "rpie", "raar"])
def test_a_recipe_of_other_engines_stays_as_it_is(engine):
    recipe = Recipe.model_validate({"name": "plain", "reconstruct": [{"engine": engine, "sweeps": 800}]})
    assert recipe.without_monitor() == recipe


def test_an_error_larger_than_that_of_beams_is_kept():
    stages = [{"engine": "ml", "sweeps": 4, "intensity_error": 0.1}]
    recipe = Recipe.model_validate({"name": "wild", "reconstruct": stages}).without_monitor()
    assert outline(recipe.reconstruct) == [("ml", 4, 0.1)] * 2
