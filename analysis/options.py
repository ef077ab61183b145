"""Options of every step of the analysis; a recipe is a named set of them. Unknown keys are refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Options(BaseModel):
    """Base of all options: immutable and strict."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EpieOptions(Options):
    """Extended PIE."""

    engine: Literal["epie"] = "epie"
    sweeps: Annotated[int, Field(ge=1)] = 30
    object_step: Annotated[float, Field(gt=0, le=2)] = 1.0
    probe_step: Annotated[float, Field(ge=0, le=2)] = 1.0
    probe_start: Annotated[int, Field(ge=0)] = 2
    seed: int = 0


class MlOptions(Options):
    """Accelerated maximum likelihood with the integration of detector pixels in the model."""

    engine: Literal["ml"] = "ml"
    sweeps: Annotated[int, Field(ge=1)] = 30
    pixel_modes: Annotated[int, Field(ge=1, le=9)] = 3
    step: Annotated[float, Field(gt=0, le=1)] = 0.5
    damping: Annotated[float, Field(gt=0, le=1)] = 1e-3
    batch: Annotated[int, Field(ge=1)] = 8


Stage = Annotated[EpieOptions | MlOptions, Field(discriminator="engine")]


class StackOptions(Options):
    """Common grid, normalisation and registration."""

    lit_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    margin_m: Annotated[float, Field(ge=0)] = 0.3e-6
    registration_passes: Annotated[int, Field(ge=1, le=5)] = 2
