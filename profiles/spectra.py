"""``ptychrome spectra`` and ``ptychrome reference``: what the spectra of a result are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ptychrome.analysis.chemistry import noise_level
from ptychrome.analysis.components import components as spectral_components
from ptychrome.analysis.components import number_of_components
from ptychrome.analysis.interpretation import BELOW_EDGE_EV
from ptychrome.analysis.linear_combination import best_shift, linear_combination, standards_at
from ptychrome.analysis.references import reference_ratios
from ptychrome.analysis.scan import DataError
from ptychrome.analysis.spectral import SpectralOptions, spectral_model
from ptychrome.callbacks.figures.layout import save_figure
from ptychrome.callbacks.figures.standards import spectra_figure
from ptychrome.callbacks.files import WriteError
from ptychrome.callbacks.results import Revision
from ptychrome.callbacks.sinks.nexus import load_result, write_nexus
from ptychrome.edges import tabulated_edge_eV
from ptychrome.profiles.errors import UserError
from ptychrome.profiles.standards import Standards, read_standards

OURS = ("lcf/", "components/"), ("lcf_", "components_")  # of arrays and of attributes


def reference(element: str, formulas: Sequence[str], *, edge: str, energy_eV: float | None) -> int:
    """Print reference ratios as a table.

    Returns
    -------
    int
        Exit status 0.

    Raises
    ------
    UserError
        See `reference_ratios`.
    """
    try:
        ratios = reference_ratios(element, formulas, edge=edge, energy_eV=energy_eV)
    except DataError as error:
        raise UserError(str(error)) from None
    names = sorted({name for row in ratios.values() for name in row})
    table = Table("compound", *names, title=f"Re[N_eff]/N_{element}", title_justify="left", box=None)
    for formula, row in ratios.items():
        table.add_row(formula, *(f"{row[name]:.2f}" if name in row else "–" for name in names))
    Console().print(table)
    return 0


def spectra(
    result: Path,
    *,
    standards: Sequence[Path] = (),
    foil: Path | None = None,
    largest_shift_eV: float = 0.0,
    keep_jump: bool = False,
    components: int | None = None,
) -> int:
    """Add components and the fit by standards to a result and draw them.

    Parameters
    ----------
    result : Path
        ``.nxs``; replaced as a whole once everything is done. A figure ``…_spectra.png`` is drawn beside it.
    standards : sequence of Path
        Their spectra; all spectra of a file are standards.
    foil : Path, optional
        Metal foil on the energy scale of the standards.
    largest_shift_eV : float
        Largest common shift of the standards that is tried.
    keep_jump : bool
        Whether the shares must add up to the edge jump of the maps.
    components : int, optional
        Number of components; default: those above the noise.

    Returns
    -------
    int
        Exit status 0.

    Raises
    ------
    UserError
        If a file cannot be used; then the result is as it was.
    """
    try:
        revision = load_result(result)
        particle = _Particle.of(revision, result)
        measured = read_standards(standards, foil, particle.edge_eV)
        arrays, attributes = _components(particle, components)
        if measured.spectra:
            more = _combination(particle, measured, largest_shift_eV, keep_jump)
            arrays, attributes = arrays | more[0], attributes | more[1]
        revision = _with(revision, arrays, attributes)
        shift_eV = attributes.get("lcf_shift_eV", 0.0)
        figure = spectra_figure(revision, [each.shifted(shift_eV) for each in measured.spectra])
        write_nexus(result, revision)
        picture = result.with_name(f"{result.stem}_spectra.png")
        save_figure(figure, picture)
    except (ValueError, WriteError) as error:  # DataError and XasError are ValueErrors
        raise UserError(str(error)) from None
    Console(stderr=True).print(_summary(revision, picture))
    return 0


@dataclass(frozen=True)
class _Particle:
    """Spectra of the fitted pixels of a result at its measured energies.

    Attributes
    ----------
    energy_eV : (n,) float64
    measured : (n_energy,) bool
        Which of the planned energies these are.
    pixels : (ny, nx) bool
    absorbance : (n, n_pixels) float64
    phase : (n, n_pixels) float64
    jump : (n_pixels,) float64
    sigma : float
        Noise of `absorbance`.
    element : str
    edge_eV : float
        Tabulated edge.
    """

    energy_eV: NDArray[np.float64]
    measured: NDArray[np.bool_]
    pixels: NDArray[np.bool_]
    absorbance: NDArray[np.float64]
    phase: NDArray[np.float64]
    jump: NDArray[np.float64]
    sigma: float
    element: str
    edge_eV: float

    @classmethod
    def of(cls, revision: Revision, path: Path) -> _Particle:
        arrays, attributes = revision.arrays, revision.attributes
        if "maps/fitted" not in arrays or not arrays["maps/fitted"].any():
            raise UserError(f"{path} has no chemical maps; expected a result of a scan over an edge")
        if "element" not in attributes:
            raise UserError(f"{path} does not name the element of its edge; process the scan again")
        edge_eV = tabulated_edge_eV(attributes["element"], attributes["edge"])
        stack = arrays["absorbance"]
        measured = np.isfinite(stack).any(axis=(1, 2))
        pixels = (arrays["maps/fitted"] == 1) & np.isfinite(stack[measured]).all(axis=0)
        absorbance, energy = stack[measured][:, pixels].astype(float), arrays["energy"][measured]
        phase = arrays["phase"][measured][:, pixels].astype(float)
        sigma = noise_level(absorbance, energy, energy < edge_eV - BELOW_EDGE_EV)
        jump, element = arrays["maps/edge_jump"][pixels].astype(float), str(attributes["element"])
        return cls(energy, measured, pixels, absorbance, phase, jump, sigma, element, edge_eV)

    def allowed_components(self) -> int:
        """Components that stand out of what Kramers–Kronig forbids, see `spectral_model`."""
        images = np.ones((self.energy_eV.size, *self.pixels.shape), complex)
        images[:, self.pixels] = np.exp(-self.absorbance / 2 + 1j * self.phase)
        model = spectral_model(self.energy_eV, images, self.pixels, self.element, SpectralOptions())
        return model.rank

    def image(self, values: NDArray) -> NDArray[np.float32]:
        """(…, n_pixels) as maps (…, ny, nx), NaN elsewhere."""
        image = np.full((*values.shape[:-1], *self.pixels.shape), np.nan, np.float32)
        image[..., self.pixels] = values
        return image

    def spectrum(self, values: NDArray) -> NDArray[np.float64]:
        """(k, n) on all planned energies, NaN where not measured."""
        spectrum = np.full((len(values), self.measured.size), np.nan)
        spectrum[:, self.measured] = values
        return spectrum


def _components(particle: _Particle, count: int | None) -> tuple[dict[str, NDArray], dict[str, Any]]:
    white, _ = number_of_components(particle.absorbance, particle.sigma)
    # errors of single energies are no white noise, but they break Kramers–Kronig; that sees phases, too
    rank = min(white, particle.allowed_components())
    found = spectral_components(particle.absorbance, particle.sigma, count=count or rank)
    arrays: dict[str, NDArray] = {
        "components/spectra": particle.spectrum(found.spectra),
        "components/maps": particle.image(found.amounts),
        "components/principal_spectra": particle.spectrum(found.principal_spectra),
        "components/principal_maps": particle.image(found.principal_amounts),
        "components/variance": found.variance,
    }
    return arrays, {
        "components_above_noise": rank,
        "components_above_white_noise": white,
        "components_noise": particle.sigma,
    }


def _combination(
    particle: _Particle, standards: Standards, largest_shift_eV: float, keep_jump: bool
) -> tuple[dict[str, NDArray], dict[str, Any]]:
    spectra, energy, shift_eV = standards.spectra, particle.energy_eV, 0.0
    if largest_shift_eV > 0:
        shift_eV = best_shift(particle.absorbance, spectra, energy, largest_shift_eV)
    references = standards_at(spectra, energy, shift_eV=shift_eV)
    jump = particle.jump if keep_jump else None
    fit = linear_combination(particle.absorbance, references, sigma=particle.sigma, jump=jump)
    arrays: dict[str, NDArray] = {
        "lcf/fractions": particle.image(fit.fractions),
        "lcf/fractions_sigma": particle.image(fit.sigma),
        "lcf/residual": particle.image(fit.residual),
        "lcf/chi2": particle.image(fit.chi2),
        "lcf/r_factor": particle.image(fit.r_factor),
        "lcf/jump": particle.image(fit.jump),
        "lcf/standards": particle.spectrum(references),
    }
    names = [spectrum.name for spectrum in spectra]
    attributes: dict[str, Any] = {
        "lcf_standards": names,
        "lcf_shift_eV": shift_eV,
        "lcf_keep_jump": keep_jump,
    }
    if standards.offset_eV is not None:
        attributes |= {
            "lcf_foil_offset_eV": standards.offset_eV,
            "lcf_foil_offset_sigma_eV": standards.sigma_eV,
        }
    return arrays, attributes


def _with(revision: Revision, arrays: Mapping[str, NDArray], attributes: Mapping[str, Any]) -> Revision:
    """The revision with these in place of what an earlier call found."""
    kept = {name: array for name, array in revision.arrays.items() if not name.startswith(OURS[0])}
    said = {name: value for name, value in revision.attributes.items() if not name.startswith(OURS[1])}
    return replace(revision, arrays={**kept, **arrays}, attributes={**said, **attributes})


def _summary(revision: Revision, picture: Path) -> str:
    attributes = revision.attributes
    lines = [f"{attributes['components_above_noise']} components above the noise; see {picture}"]
    if "lcf_foil_offset_eV" in attributes:
        offset, sigma = attributes["lcf_foil_offset_eV"], attributes["lcf_foil_offset_sigma_eV"]
        lines.append(f"standards shifted by {offset:+.2f} ± {sigma:.2f} eV, so that the foil is at its edge")
    for name, share in zip(
        attributes.get("lcf_standards", []), revision.arrays.get("lcf/fractions", []), strict=True
    ):
        amount = np.nansum(share * revision.arrays["lcf/jump"]) / np.nansum(revision.arrays["lcf/jump"])
        lines.append(f"{name}: {100 * amount:.1f} % of the atoms")
    return "\n".join(lines)
