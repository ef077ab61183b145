"""Settings of a session and recipes of the analysis, read from TOML and validated."""

from __future__ import annotations

import os
import tomllib
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ptychrome.analysis.recipe import Recipe
from ptychrome.profiles.errors import UserError

Model = TypeVar("Model", bound=BaseModel)
STREAM_ADDRESS = r"^tcp://.+:\d+$"


class SessionSettings(BaseModel):
    """Settings that every session has; every key has a default.

    Attributes
    ----------
    directory : Path
        Where frames, documents and results go.
    recipe : str
        Recipe of the live analysis.
    workers : int or None
        Reconstruction processes; None: one per processor.
    tiled_port : int
        Port of the Tiled server; 0: any free one.
    tiled_uri : str or None
        A Tiled server that others run, instead; its key comes from the variable TILED_API_KEY.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    directory: Path = Path("ptychrome-results")
    recipe: str = "live"
    workers: Annotated[int, Field(ge=1)] | None = None
    tiled_port: Annotated[int, Field(ge=0, le=65535)] = 0
    tiled_uri: Annotated[str, Field(pattern=r"^https?://")] | None = None

    @property
    def frames(self) -> Path | None:
        """Folder of the detector's files; None: in the session's."""
        return None


class TwinSessionSettings(SessionSettings):
    """Settings of ``profile_twin``, beside those of `SessionSettings`; every key has a default.

    Attributes
    ----------
    sample : str
        Particle on the stage: P1–P3, D1–D3, LiVO2, LiVO3, or V (a flake of the metal).
    seed : int
        Of everything random.
    clock : float
        Wall seconds per physical second of motion and exposure; 0 does not wait, 1 is real time.
    frame_pixels : int
        Rows and columns of a frame.
    stream : str or None
        Address where the detector streams its frames, ``tcp://host:port``; None: it writes files.
    """

    sample: str = "P1"
    seed: int = 0
    clock: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    frame_pixels: Annotated[int, Field(ge=32, le=1024)] = 128
    stream: Annotated[str, Field(pattern=STREAM_ADDRESS)] | None = None


def read_settings(path: Path, model: type[Model]) -> Model:
    """Read a TOML file of settings.

    Raises
    ------
    UserError
        If the file is missing, is not TOML, or a key is unknown or out of range; names file and key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no settings file {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None
    return _validated(model, content, str(path))


def recipe_names() -> list[str]:
    """Names of the recipes that come with ptychrome."""
    folder = files("ptychrome.profiles") / "recipes"
    return sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )


def load_recipe(name: str, **changes: Any) -> Recipe:
    """A recipe by its name, or from a TOML file of the user's own.

    Parameters
    ----------
    name : str
        ``live``, ``paper``, or the path of a ``.toml`` file.
    changes
        Fields that replace those of the file; None leaves a field as it is.

    Raises
    ------
    UserError
        If there is no such recipe, or it holds an unknown or impossible option; names the option.
    """
    file: Path | Traversable
    if name.endswith(".toml"):
        source, file = name, Path(name)
    elif name in recipe_names():
        source = f"recipe {name}"
        file = files("ptychrome.profiles") / "recipes" / f"{name}.toml"
    else:
        raise UserError(
            f"unknown recipe {name!r}; expected one of {', '.join(recipe_names())} or a .toml file"
        )
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"recipe {name}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{source} is not valid TOML: {error}") from None
    content |= {key: value for key, value in changes.items() if value is not None}
    return _validated(Recipe, content, source)


def default_workers() -> int:
    """One reconstruction process per processor that this process may use."""
    return len(os.sched_getaffinity(0))


def _validated(model: type[Model], content: dict[str, Any], source: str) -> Model:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{source}, {where}: {first['msg']} (got {first['input']!r:.60})") from None
