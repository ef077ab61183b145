"""Recipes and settings from TOML: what is read, and what is refused with which words."""

import pytest

from ptychrome.profiles.errors import UserError
from ptychrome.profiles.settings import (
    TwinSessionSettings,
    default_workers,
    load_recipe,
    read_settings,
    recipe_names,
)

STAGE = '[[reconstruct]]\nengine = "epie"\nsweeps = 3\n'


def test_every_recipe_that_comes_along_is_valid():
    assert {"live", "paper", "best"} <= set(recipe_names())
    for name in recipe_names():
        assert load_recipe(name).name == name


def test_the_paper_recipe_is_the_paper_s():
    paper = load_recipe("paper")
    (stage,) = paper.reconstruct
    (more,) = paper.joint.refine
    assert stage.engine == more.engine == "epie"
    # 800 cycles, a Kramers–Kronig constraint every 50 after the 500th
    assert (stage.sweeps, more.sweeps, paper.joint.rounds) == (500, 50, 6)
    assert paper.joint.apply == "replace"
    assert paper.joint.spectral.kramers_kronig
    assert not paper.joint.spectral.low_rank
    assert paper.chemistry.jump == "eq1"
    assert paper.warm == ()
    assert paper.n_clusters == 6
    assert paper.chemistry.constants == "paper"
    assert paper.chemistry.mask.min_snr == 1.0


def test_changes_replace_fields_and_none_leaves_them():
    assert load_recipe("live", n_clusters=7).n_clusters == 7
    assert load_recipe("live", n_clusters=None) == load_recipe("live")


def test_a_file_of_the_user_s_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(f'name = "mine"\n{STAGE}')
    assert load_recipe(str(path)).reconstruct[0].sweeps == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'name = "x"\nstates = 3\n{STAGE}', ["states", "Extra inputs"]),
        (f'name = "x"\n{STAGE}inertia = 1\n', ["reconstruct.0.epie.inertia", "Extra inputs"]),
        (f'name = "x"\nn_clusters = 0\n{STAGE}', ["n_clusters", "greater than or equal to 1", "0"]),
        ('name = "x"\n[[reconstruct]]\nengine = "dm"\n', ["reconstruct.0", "epie", "ml", "dm"]),
        (STAGE, ["name", "required"]),
        ('name = "x"\nreconstruct = []\n', ["reconstruct", "at least 1"]),
        ("name = ", ["not valid TOML"]),
    ],
)
def test_wrong_recipes_name_file_and_option(tmp_path, text, words):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        load_recipe(str(path))
    message = str(refused.value)
    assert "\n" not in message
    for word in ["wrong.toml", *words]:
        assert word in message


@pytest.mark.parametrize("name", ["best9", "", "live.tom", "../live"])
def test_an_unknown_recipe_lists_the_known(name):
    with pytest.raises(UserError, match=r"expected one of best, live, paper.* or a \.toml file"):
        load_recipe(name)


def test_a_recipe_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"none\.toml: No such file"):
        load_recipe(str(tmp_path / "none.toml"))


def test_a_recipe_file_that_is_not_text(tmp_path):
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"binary\.toml is not valid TOML"):
        load_recipe(str(path))


def test_session_settings(tmp_path):
    path = tmp_path / "twin.toml"
    path.write_text('sample = "D2"\nclock = 0.5\n')
    settings = read_settings(path, TwinSessionSettings)
    assert (settings.sample, settings.clock, settings.frame_pixels) == ("D2", 0.5, 128)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speed = 1\n", "speed"),
        ("clock = -1\n", "clock"),
        ("tiled_port = 99999\n", "tiled_port"),
        ("=", "TOML"),
    ],
)
def test_wrong_session_settings_name_file_and_key(tmp_path, text, words):
    path = tmp_path / "twin.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"twin\.toml.*{words}"):
        read_settings(path, TwinSessionSettings)


def test_missing_session_settings(tmp_path):
    with pytest.raises(UserError, match="no settings file"):
        read_settings(tmp_path / "none.toml", TwinSessionSettings)


def test_there_is_always_a_worker():
    assert default_workers() >= 1
