"""What plans and callbacks share: the start document's schema and the names of all results.

Imports no sibling package, so that a plan can be written without the analysis and the analysis
can be fed by anybody's plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

RESULT_SPEC = "PtychromeResult"
RESULT_ROOT = "ptychrome"
RAW_ROOT = "raw"
START_KEY = "ptychrome"
PREPARATION_KEY = "preparation"  # optional, in the start document: by it reports group particles

# mimetype of a stream_resource whose frames come through a detector's stream; its parameters name the series
STREAM_MIMETYPE = "application/x-dectris-stream"

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
Vector = tuple[FiniteFloat, FiniteFloat, FiniteFloat]


class SchemaError(ValueError):
    """A start document that does not describe a spectro-ptychography scan; the message names the field."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DetectorGeometry(_Strict):
    """Where the detector stands and how its rows and columns run.

    ``row_step`` and ``column_step`` are the directions of one step per row and per column of a frame
    in the CXI frame (z along the beam, y up); by default rows run along -y, columns along -x.
    """

    shape: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]
    pixel_size_m: tuple[PositiveFloat, PositiveFloat]  # (per row, per column)
    distance_m: PositiveFloat
    row_step: Vector = (0.0, -1.0, 0.0)
    column_step: Vector = (-1.0, 0.0, 0.0)


class ProbeModel(_Strict):
    """The calculated start probe: KB focus of a rectangular aperture."""

    fwhm_m: PositiveFloat = 300e-9
    fwhm_energy_eV: PositiveFloat | None = (
        None  # the width scales with the wavelength; None: the lowest energy
    )
    defocus_m: FiniteFloat = 0.0


class SignalKeys(_Strict):
    """Names of the data keys in the events of the primary stream (positions: of the sample, CXI frame, m)."""

    image: str
    energy: str
    x: str
    y: str
    i0: str | None = None
    ring_current: str | None = None


class ScanMetadata(_Strict):
    """The block ``start["ptychrome"]``: all that the analysis must know before the first frame arrives."""

    schema_version: Literal[1] = 1
    element: str
    edge: str
    energies_eV: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
    energy_offset_eV: FiniteFloat = 0.0  # to be added to the monochromator's energies, as a foil says
    positions_per_energy: tuple[Annotated[int, Field(ge=2)], ...]
    extent_m: tuple[tuple[FiniteFloat, FiniteFloat], tuple[FiniteFloat, FiniteFloat]]  # planned (y, x) ranges
    travel_m: tuple[FiniteFloat, FiniteFloat] = (0.0, 0.0)  # (y, x) way of the sample during one exposure
    geometry: DetectorGeometry
    probe: ProbeModel = ProbeModel()
    keys: SignalKeys

    @model_validator(mode="after")
    def _consistent(self) -> ScanMetadata:
        if len(self.positions_per_energy) != len(self.energies_eV):
            raise ValueError(
                f"positions_per_energy has {len(self.positions_per_energy)} entries, "
                f"energies_eV has {len(self.energies_eV)}; expected one count per energy"
            )
        if len(set(self.energies_eV)) != len(self.energies_eV):
            raise ValueError("energies_eV holds an energy twice; expected distinct energies")
        return self


def scan_metadata(start: Mapping[str, Any]) -> ScanMetadata:
    """Read and validate the spectro-ptychography block of a start document.

    Parameters
    ----------
    start : mapping
        A Bluesky start document (or the metadata of a plan).

    Returns
    -------
    ScanMetadata

    Raises
    ------
    SchemaError
        If the block is missing or a field is missing, unknown or out of range; the message names the field.
    """
    if START_KEY not in start:
        raise SchemaError(
            f"start document has no {START_KEY!r} block; expected one written by spectro_ptycho"
        )
    try:
        return ScanMetadata.model_validate(start[START_KEY])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (START_KEY, *first["loc"]))
        raise SchemaError(f"start document, {where}: {first['msg']} (got {first['input']!r:.80})") from None


def validate_start(md: Mapping[str, Any]) -> None:
    """A ``RunEngine.md_validator``: refuse a spectro-ptychography plan whose metadata is not valid.

    Raises
    ------
    SchemaError
        See `scan_metadata`. Metadata of other plans passes untouched.
    """
    if START_KEY in md:
        scan_metadata(md)


# Detectors announce, in their configuration, where in the same file static arrays lie.
# The configuration keys are "<image key>_<suffix>"; each value is the path of a dataset.
MASK_SUFFIX = "mask_dataset"
DARK_SUFFIX = "dark_dataset"
PROBE_SUFFIX = "probe_dataset"


@dataclass(frozen=True)
class MapInfo:
    """How one chemical map is named for people: its unit, label and the paper's colour scale."""

    unit: str
    label: str
    limits: tuple[float, float] | None = None


MAPS: dict[str, MapInfo] = {
    "edge_energy": MapInfo("eV", "edge energy b2", (5476.0, 5481.0)),
    "edge_jump": MapInfo("1", "edge jump Δμt"),
    "pre_edge_area": MapInfo("eV", "pre-edge area PE"),
    "pre_edge_ratio": MapInfo("eV", "pre-edge ratio PE/Δμt", (0.0, 3.5)),
    "n_v": MapInfo("m⁻²", "areal density N_V"),
    "n_eff": MapInfo("m⁻²", "Re[N_eff]"),
    "n_eff_ratio": MapInfo("1", "Re[N_eff]/N_V", (0.0, 100.0)),
}


class Flag(IntEnum):
    """Why a pixel has no chemistry: the values of ``maps/flag``."""

    FITTED = 0
    NO_MATTER = 1  # vacuum, or outside of the field
    NOISY = 2  # too small an edge jump for the noise
    NOT_CONVERGED = 3
    UNDETERMINED = 4  # the energies so far do not tell jump and edge energy
    NO_SPECTRUM = 5  # no finite value, or no noise to weigh it by


MAP_LABELS: dict[str, str] = {name: info.label for name, info in MAPS.items()} | {
    "fitted": "1: passed the mask",
    "flag": ", ".join(f"{flag}: {flag.name.lower().replace('_', ' ')}" for flag in Flag),
    "chi2": "reduced χ² of the fit",
}


def map_label(name: str, element: str) -> str:
    """Label of a chemical map for the edge of an element; the names themselves keep the V of the paper."""
    return MAP_LABELS[name].replace("N_V", f"N_{element}")


FEATURES = ("edge_energy", "pre_edge_ratio", "n_eff_ratio")


@dataclass(frozen=True)
class ArrayInfo:
    """How one array is named for people: its axes, unit and label."""

    dimensions: tuple[str, ...]
    unit: str
    label: str


SPECTRA: dict[str, ArrayInfo] = {
    "lcf/fractions": ArrayInfo(("standard", "y", "x"), "1", "share of the atoms in each standard"),
    "lcf/fractions_sigma": ArrayInfo(("standard", "y", "x"), "1", "σ of the shares"),
    "lcf/residual": ArrayInfo(("y", "x"), "1", "rms misfit over edge jump"),
    "lcf/chi2": ArrayInfo(("y", "x"), "1", "reduced χ²"),
    "lcf/r_factor": ArrayInfo(("y", "x"), "1", "R-factor"),
    "lcf/jump": ArrayInfo(("y", "x"), "1", "edge jump of the sum of standards"),
    "lcf/standards": ArrayInfo(("standard", "energy"), "1", "normalised standards"),
    "components/spectra": ArrayInfo(("component", "energy"), "1", "spectra of the components"),
    "components/maps": ArrayInfo(("component", "y", "x"), "1", "amount of each component"),
    "components/principal_spectra": ArrayInfo(
        ("component", "energy"), "1", "spectra of the principal components"
    ),
    "components/principal_maps": ArrayInfo(
        ("component", "y", "x"), "1", "amount of each principal component"
    ),
    "components/variance": ArrayInfo(("principal_component",), "1", "share of the sum of squares"),
}
