"""The distribution holds every package and data file, and the layout of the repository is the agreed one."""

import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from setuptools.dist import Distribution

import ptychrome

ROOT = Path(__file__).parents[1]
FOLDERS = ("plans", "devices", "callbacks", "analysis", "profiles")


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_layout_is_the_architecture():
    for name in (*FOLDERS, "tests", "src/ptychrome"):
        assert (ROOT / name).is_dir()
    assert (ROOT / "pyproject.toml").is_file()


def test_every_folder_with_an_init_is_a_listed_package_and_the_other_way_round(project):
    found = {"ptychrome"} | {
        ".".join(("ptychrome", *init.parent.relative_to(ROOT).parts))
        for folder in FOLDERS
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert set(project["tool"]["setuptools"]["packages"]) == found


def test_every_package_comes_from_its_folder(project):
    mapped = project["tool"]["setuptools"]["package-dir"]
    assert mapped.pop("ptychrome") == "src/ptychrome"
    packages = set(project["tool"]["setuptools"]["packages"]) - {"ptychrome"}
    assert mapped == {name: name.removeprefix("ptychrome.").replace(".", "/") for name in packages}


def test_every_folder_with_modules_is_a_package():
    """A folder without ``__init__.py`` would be importable from here and missing from the wheel."""
    for folder in FOLDERS:
        for module in (ROOT / folder).rglob("*.py"):
            startup = any(part.startswith("profile_") for part in module.parts)
            assert startup or (module.parent / "__init__.py").is_file(), module


def test_data_files_are_part_of_the_distribution(project):
    """What setuptools itself would copy, by its own patterns: recipes, profiles and the typing marker."""
    options = project["tool"]["setuptools"]
    distribution = Distribution({"name": "ptychrome", "src_root": str(ROOT)})
    distribution.packages = options["packages"]
    distribution.package_dir = {name: str(ROOT / path) for name, path in options["package-dir"].items()}
    # what pyproject.toml calls "*" is "" inside setuptools
    distribution.package_data = {name.replace("*", ""): v for name, v in options["package-data"].items()}
    distribution.include_package_data = options["include-package-data"]
    build = distribution.get_command_obj("build_py")
    build.ensure_finalized()
    packed = {
        Path(source, name).relative_to(ROOT).as_posix()
        for _, source, _, names in build.data_files
        for name in names
    }
    profiles = ROOT / "profiles"
    needed = {
        path.relative_to(ROOT).as_posix()
        for pattern in (
            "recipes/*.toml",
            "*.yml",
            "profile_*/*.toml",
            "profile_*/startup/*.py",
            "py.typed",
            "report/*.j2",
        )
        for path in profiles.glob(pattern)
    }
    assert {"profiles/recipes/live.toml", "profiles/report/page.html.j2"} <= needed
    assert needed <= packed


def test_what_is_installed_holds_its_recipes():
    recipes = {entry.name for entry in (files("ptychrome.profiles") / "recipes").iterdir()}
    assert {"live.toml", "paper.toml"} <= recipes


def test_there_is_one_version(project):
    assert project["project"]["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", ptychrome.__version__)


def test_importing_the_root_package_is_light(project):
    """``ptychrome/__init__.py`` holds the version and nothing heavy."""
    lines = (ROOT / "src/ptychrome/__init__.py").read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if line.startswith(("import", "from"))]


def test_optional_tools_are_not_runtime_dependencies(project):
    names = {re.split(r"[\[<>=~ ;]", entry)[0] for entry in project["project"]["dependencies"]}
    assert not names & {"pytest", "ruff", "mypy", "torch", "cupy", "kkcalc", "ipython", "build"}
