"""README and docs: commands exist, examples run, links lead somewhere. Takes 15 s, most of it Tiled."""

import argparse
import ast
import importlib
import inspect
import json
import queue
import re
import shlex
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptychrome import plans
from ptychrome.analysis.recipe import Recipe
from ptychrome.callbacks.raw import RawWriter
from ptychrome.callbacks.results import Revision
from ptychrome.callbacks.sinks.nexus import write_nexus
from ptychrome.callbacks.sinks.tiled import TiledSink
from ptychrome.cli import _parser
from ptychrome.profiles.settings import TwinSessionSettings, recipe_names
from ptychrome.profiles.tiled_server import TiledServer, raw_container, results_container
from ptychrome.schema import MAPS, SPECTRA

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
RAW_UID = "7e5a0c1e"
LINK = re.compile(r"\]\(([^)#\s]+)\)")


def blocks(language: str, *pages: Path) -> list[str]:
    found = [
        text for page in pages or PAGES for kind, text in FENCE.findall(page.read_text()) if kind == language
    ]
    assert found
    return found


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


def test_every_command_exists():
    seen = set()
    for command, *arguments in commands():
        name = Path(command).name
        seen.add(name)
        if name == "ptychrome":
            options = _parser().parse_args([word for word in arguments if word != "--help"])
            assert getattr(options, "recipe", "live") in recipe_names()
        elif name == "make":
            target, *variables = arguments
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
            for variable in variables:
                assert _parser().parse_args([target, *shlex.split(variable.removeprefix("ARGS="))])
        elif name == "ipython":
            (profile,) = (argument.removeprefix("--profile-dir=") for argument in arguments)
            assert list((ROOT / profile / "startup").glob("[0-9][0-9]-*.py"))
        elif name == "python":
            script, *options = arguments
            source = (ROOT / script).read_text()
            named = [option for option in options if option.startswith("--")]
            assert all(f'"{option}"' in source for option in named), (script, named)
        elif name in ("start-re-manager", "qserver-list-plans-devices"):
            (startup,) = (a.removeprefix("--startup-dir=") for a in arguments if "startup-dir" in a)
            assert (ROOT / startup / "user_group_permissions.yaml").is_file()
            assert Path(sys.executable).with_name(name).exists()
        elif name == "qserver":
            assert Path(sys.executable).with_name(name).exists()
            for item in (json.loads(word) for word in arguments if word.startswith("{")):
                inspect.signature(getattr(plans, item["name"])).bind(*item["args"], **item["kwargs"])
        elif name != "redis-server":
            pytest.fail(f"{command}: not known to this test")
    known = {"make", "ptychrome", "ipython", "python", "redis-server", "start-re-manager", "qserver"}
    assert seen == {*known, "qserver-list-plans-devices"}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "```python" in page.read_text()], ids=lambda p: p.name
)
def test_every_python_example_compiles_and_its_imports_exist(page):
    for code in blocks("python", page):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)


@pytest.mark.parametrize("page", ["chemistry.md", "quickstart.md", "simulation.md"])
def test_examples_that_import_what_they_use_run(page):
    own = [code for code in blocks("python", ROOT / "docs" / page) if "import" in code]
    assert own
    for code in own:
        exec(code, {})


def test_the_examples_of_results_run_against_a_server(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)
    examples = blocks("python", ROOT / "docs" / "results.md")
    assert examples[0].startswith("address, key = ")
    revision = small_result()
    write_nexus(tmp_path / "P1.nxs", revision)
    said: queue.SimpleQueue[tuple] = queue.SimpleQueue()
    with TiledServer.start(tmp_path / "tiled") as server:
        client = server.client()
        TiledSink(results_container(client)).write(revision)
        write_raw_run(RawWriter(raw_container(client)))
        namespace = {"address": server.uri, "key": server.api_key, "print": lambda *words: said.put(words)}
        for code in examples[1:]:
            exec(code, namespace)
            if "subscribe" in code:
                while (words := said.get(timeout=30))[0] != "median edge energy":
                    pass
                assert words == ("median edge energy", 5478.0, "eV")
    np.testing.assert_array_equal(namespace["edge"], revision.arrays["maps/edge_energy"])
    assert namespace["spectra"].shape == (3, 10, 10)
    assert list(namespace["quality"]) == ["energy_eV"]
    assert list(namespace["table"]["stage_x"]) == [1.0]
    assert namespace["result"].attributes["recipe"] == "live"


def test_the_examples_of_states_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "states.md"
    result, rng = small_result(), np.random.default_rng(0)
    label = (np.indices((50, 60))[1] // 20).astype(np.int32)
    features = {
        f"maps/{name}": (scale * (label + 0.1 * rng.standard_normal(label.shape))).astype(np.float32)
        for name, scale in (("edge_energy", 1.0), ("pre_edge_ratio", -1.0), ("n_eff_ratio", 5.0))
    }
    known = {"maps/n_v": np.ones((50, 60)), "clusters/label": label, "clusters/fractions": np.full(3, 1 / 3)}
    write_nexus(tmp_path / "P1.nxs", replace(result, arrays={**result.arrays, **features, **known}))
    namespace: dict = {}
    for code in blocks("python", page):
        exec(code, namespace)
    assert namespace["count"].proposed == 3
    assert (tmp_path / "states.png").exists()
    # along rows 20 pixels between two borders; along columns 50 pixels without any in each of 20 columns
    assert namespace["found"].mean_m(3)[1] == pytest.approx(40 * namespace["pixel_m"])
    (text,) = blocks("toml", page)
    assert Recipe.model_validate(tomllib.loads(text)).clusters == Recipe.model_fields["clusters"].default


def small_result() -> Revision:
    energy, y, x = (
        np.array([5420.0, 5480.0, 5540.0]),
        np.linspace(1e-6, -1e-6, 50),
        np.linspace(2e-6, -2e-6, 60),
    )
    maps = np.full((50, 60), 5478.0, np.float32)
    arrays = {
        "energy": energy,
        "y": y,
        "x": x,
        "absorbance": np.zeros((3, 50, 60), np.float32),
        "maps/edge_energy": maps,
        "maps/edge_energy_sigma": maps / 1e5,
    }
    attributes = {"recipe": "live", "energies_done": 3, "energies_planned": 3}
    return Revision(
        "one", "P1", attributes, arrays, {"quality/energies": {"energy_eV": energy}}, (0, 1, 2), True
    )


def write_raw_run(write: RawWriter) -> None:
    key = {"dtype": "number", "shape": [], "source": "test"}
    descriptor = {
        "uid": "d",
        "run_start": RAW_UID,
        "time": 1.0,
        "name": "primary",
        "data_keys": {"stage_x": key},
    }
    descriptor |= {"configuration": {}, "hints": {}, "object_keys": {}}
    event = {"uid": "e", "descriptor": "d", "time": 1.0, "seq_num": 1, "data": {"stage_x": 1.0}}
    stop = {
        "uid": "s",
        "run_start": RAW_UID,
        "time": 2.0,
        "exit_status": "success",
        "num_events": {"primary": 1},
    }
    write("start", {"uid": RAW_UID, "time": 1.0, "plan_name": "spectro_ptycho", "scan_id": 1})
    write("descriptor", descriptor)
    write("event", event | {"timestamps": {"stage_x": 1.0}, "filled": {}})
    write("stop", stop)


def test_the_recipe_shown_is_valid():
    (text,) = blocks("toml", ROOT / "docs" / "recipes.md")
    recipe = Recipe.model_validate(tomllib.loads(text))
    assert recipe.model_fields_set >= {"warm", "stack", "xanes", "chemistry"}


def test_the_settings_name_every_key_with_its_default():
    text = (ROOT / "profiles" / "profile_twin" / "settings.toml").read_text()
    shown = tomllib.loads(re.sub(r"^# (workers|tiled_uri|stream)", r"\1", text, flags=re.MULTILINE))
    assert set(shown) == set(TwinSessionSettings.model_fields)
    assert TwinSessionSettings(**tomllib.loads(text)) == TwinSessionSettings()


def test_every_recipe_and_every_map_is_explained():
    recipes, results = ((ROOT / "docs" / name).read_text() for name in ("recipes.md", "results.md"))
    assert [name for name in recipe_names() if f"| `{name}`" not in recipes] == []
    assert [name for name in MAPS if f"| `maps/{name}`" not in results] == []
    assert [name for name in SPECTRA if f"`{name}`" not in results] == []


def test_help_names_every_option_with_a_text():
    commands = next(action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    for name, parser in commands.choices.items():
        assert [action.dest for action in parser._actions if not action.help] == [], name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_images_are_small_enough_for_a_repository():
    images = list((ROOT / "docs" / "images").iterdir())
    assert images
    assert [image.name for image in images if image.stat().st_size > 300_000] == []


def test_decisions_are_numbered_without_gaps():
    names = sorted(path.name for path in (ROOT / "docs" / "decisions").iterdir())
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    for name in names:
        title = (ROOT / "docs" / "decisions" / name).read_text().splitlines()[0]
        assert title.startswith(f"# {int(name[:4])}. ")
