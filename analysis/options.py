"""Options of every step of the analysis; a recipe is a named set of them. Unknown keys are refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Options(BaseModel):
    """Base of all options: immutable and strict."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EngineOptions(Options):
    """What all engines have in common.

    Attributes
    ----------
    sweeps : int
        Times that every position is used, at most.
    likelihood : str
        ``gaussian``: of the amplitudes, whose variance under Poisson noise is 1/4 where bright; ``poisson``:
        of the counts, for frames with few photons, after a stage of another kind: far from the solution its
        first steps overshoot, and take some hundred sweeps to come back from.
    probe_modes : int
        Mutually incoherent modes of the probe.
    position_error_m : float
        Expected rms error of a position, m; 0: positions are taken as they are.
    intensity_error : float
        Expected relative rms error of each frame's incident intensity; 0: taken as measured.
    fixed_power : bool
        Keep the power of the probe at the photons of the unattenuated beam.
    tolerance : float
        Stop when the error fell by less than this share over the last five sweeps; 0: never.
    backend : str
        ``auto``, ``numba``, ``numpy``, ``torch``, ``torch-cuda`` or ``cupy``.
    """

    sweeps: Annotated[int, Field(ge=1)] = 30
    likelihood: Literal["gaussian", "poisson"] = "gaussian"
    probe_modes: Annotated[int, Field(ge=1, le=16)] = 1
    position_error_m: Annotated[float, Field(ge=0)] = 0.0
    intensity_error: Annotated[float, Field(ge=0, lt=1)] = 0.0
    fixed_power: bool = False
    tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.0
    backend: str = "auto"


class EpieOptions(EngineOptions):
    """Extended PIE; with a damping below 1, regularised PIE, with momentum on top if wanted.

    Attributes
    ----------
    object_step, probe_step : float
        Length of an update.
    object_damping, probe_damping : float
        1 is ePIE; 0.05 to 0.2 is usual for rPIE.
    probe_start : int
        Sweeps before the probe is updated.
    momentum : float
        Friction η of mPIE's momentum, applied once in so many positions; 0: none.
    seed : int
        Of the random order of positions.
    """

    engine: Literal["epie"] = "epie"
    object_step: Annotated[float, Field(gt=0, le=2)] = 1.0
    probe_step: Annotated[float, Field(ge=0, le=2)] = 1.0
    object_damping: Annotated[float, Field(gt=0, le=1)] = 1.0
    probe_damping: Annotated[float, Field(gt=0, le=1)] = 1.0
    probe_start: Annotated[int, Field(ge=0)] = 2
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    seed: int = 0


class RpieOptions(EpieOptions):
    """Regularised PIE, which momentum makes mPIE.

    On the scans of the tests momentum 0.5 saves sweeps only while there are fewer than ten, and leaves more
    noise after that; 0.9 was worse throughout. So there is none unless asked for.
    """

    engine: Literal["rpie"] = "rpie"  # type: ignore[assignment]
    object_damping: Annotated[float, Field(gt=0, le=1)] = 0.1
    probe_damping: Annotated[float, Field(gt=0, le=1)] = 1.0


class RaarOptions(EngineOptions):
    """Relaxed averaged alternating reflections, on the measured amplitudes (no Poisson likelihood).

    Attributes
    ----------
    relaxation : float
        β; 1 is the difference map (Fienup's hybrid input–output), which searches widest and never rests on
        noisy data; 0.5 is the mean of both projections' results, which rests soonest and is caught soonest.
    probe_start : int
        Sweeps before the probe is updated.
    """

    engine: Literal["raar"] = "raar"
    relaxation: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    probe_start: Annotated[int, Field(ge=0)] = 2

    @model_validator(mode="after")
    def _amplitudes_only(self) -> RaarOptions:
        if self.likelihood != "gaussian":
            raise ValueError(
                f"raar projects onto the measured amplitudes and cannot use likelihood={self.likelihood!r}; "
                "expected 'gaussian', or take engine 'ml' or 'rpie' for frames with few photons"
            )
        return self


class MlOptions(EngineOptions):
    """Accelerated maximum likelihood.

    Attributes
    ----------
    pixel_points : int
        Points per axis at which a detector pixel is sampled, to integrate over its area; 1: ideal points.
    motion_points : int
        Points along the way of the stage during an exposure of a fly scan; 1: as if it rested, in a half to a
        third of the time. With a focus of 300 nm that costs up to 7 % more error at 75 nm of way and 30 to
        80 % at 150 nm; with two points neither costs any.
    step : float
        Length of an update of object and probe together, in units of the one that is safe for either alone.
    damping : float
        Keeps pixels of little light slow, as a share of the largest Σ|P|².
    groups : int
        Parts that the positions are updated in, one after the other; 1: all together. With 20 positions or
        more in a part, 2 to 4 parts need a half to a third of the sweeps; many small parts start faster
        still, but stay noisier (8 parts of ten: 8 % more error), so end with a stage of 1.
    seed : int
        Of the random order of positions in groups.
    """

    engine: Literal["ml"] = "ml"
    pixel_points: Annotated[int, Field(ge=1, le=4)] = 2
    motion_points: Annotated[int, Field(ge=1, le=4)] = 2
    step: Annotated[float, Field(gt=0, le=1)] = 0.5
    damping: Annotated[float, Field(gt=0, le=1)] = 1e-3
    groups: Annotated[int, Field(ge=1)] = 1
    seed: int = 0


Stage = Annotated[EpieOptions | RpieOptions | RaarOptions | MlOptions, Field(discriminator="engine")]


class StackOptions(Options):
    """Common grid, normalisation and registration.

    Attributes
    ----------
    lit_fraction : float
        Of the largest Σ|P|²: pixels with less light are outside of the field.
    margin_m : float
        Field around the scanned area, m.
    registration_passes : int
    pixel_average : bool
        Average the transmission over the area of each pixel; otherwise it is sampled at the pixel's centre.
    energy_offset_eV : float or None
        Added to the monochromator's energies, see `bulk.foil_offset`; None: what the start document says.
    """

    lit_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.05
    margin_m: Annotated[float, Field(ge=0)] = 0.3e-6
    registration_passes: Annotated[int, Field(ge=1, le=5)] = 2
    pixel_average: bool = True
    energy_offset_eV: Annotated[float, Field(gt=-100, lt=100)] | None = None
