"""From the stack of energies to chemistry: fit, maps and clusters, as far as the energies so far allow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychrome.analysis.areal_density import f1_of_sum, jump_correction
from ptychrome.analysis.chemistry import (
    EdgeConstants,
    areal_density,
    chemical_maps,
    noise_level,
    noise_per_pixel,
)
from ptychrome.analysis.clustering import Clusters, cluster, cluster_spectra
from ptychrome.analysis.mask import fitted_mask
from ptychrome.analysis.membership import assigned, membership, shares
from ptychrome.analysis.recipe import Recipe
from ptychrome.analysis.scan import DataError
from ptychrome.analysis.stack import EnergyStack
from ptychrome.analysis.xanes import XanesFit, XanesModel, fit_xanes
from ptychrome.schema import FEATURES, Flag

FEWEST_ENERGIES = 5
BELOW_EDGE_EV = 3.0  # energies this far below the tabulated edge carry no pre-edge structure


@dataclass(frozen=True)
class Interpretation:
    """Chemistry of the sample as known so far.

    Attributes
    ----------
    pixels : (ny, nx) bool
        Pixels that hold matter; the arrays below run over them.
    fit : XanesFit
    maps : dict of str to (n_pixels,) float32
        Chemical maps and their standard deviations, ``chi2``, and the uint8 ``fitted`` and ``flag``.
    clusters : Clusters or None
        None until enough pixels have all three features.
    probability : (n_pixels,) float32
        Of the cluster that a pixel was given.
    fractions, fractions_sigma : (k,) float64
        Share of the edge's atoms in each cluster and its standard deviation.
    spectra : (k, n_energy) float64
        Mean absorbance of each cluster.
    """

    pixels: NDArray[np.bool_]
    fit: XanesFit
    maps: dict[str, NDArray]
    clusters: Clusters | None
    probability: NDArray[np.float32]
    fractions: NDArray[np.float64]
    fractions_sigma: NDArray[np.float64]
    spectra: NDArray[np.float64]

    def arrays(self) -> dict[str, NDArray]:
        """Maps and clusters as images under the names of the result vocabulary."""
        images = {f"maps/{name}": on_field(values, self.pixels) for name, values in self.maps.items()}
        images["maps/flag"][~self.pixels] = Flag.NO_MATTER
        if self.clusters is not None:
            images["clusters/label"] = on_field(self.clusters.labels, self.pixels)
            images["clusters/probability"] = on_field(self.probability, self.pixels)
            images["clusters/centers"] = self.clusters.centers
            images["clusters/fractions"] = self.fractions
            images["clusters/fractions_sigma"] = self.fractions_sigma
            images["clusters/spectra"] = self.spectra
        return images


def interpret(
    stack: EnergyStack, recipe: Recipe, element: str, edge: str, previous: Interpretation | None = None
) -> Interpretation | None:
    """Fit every pixel of the sample and derive maps and clusters.

    Parameters
    ----------
    stack : EnergyStack
        May be incomplete.
    recipe : Recipe
    element, edge : str
        Absorption edge of the scan, such as "V" and "K".
    previous : Interpretation, optional
        The revision before: keeps cluster labels steady, and its fit is where this one starts.

    Returns
    -------
    Interpretation or None
        None with too few energies so far, none on one side of the edge, or no matter in the field.

    Raises
    ------
    DataError
        If xraydb knows no such edge, or the constants lack the element.
    """
    pixels = stack.field & ~stack.vacuum
    if stack.done.sum() < FEWEST_ENERGIES or not pixels.any():
        return None
    model = XanesModel.for_edge(element, edge, recipe.xanes)
    if not stack.energy_eV.min() < model.edge_energy_eV < stack.energy_eV.max():
        return None
    absorbance = stack.absorbance[:, pixels].astype(float)
    below = stack.energy_eV < model.edge_energy_eV - BELOW_EDGE_EV
    sigma = _noise(absorbance, stack, below, recipe)
    fit = _fit(stack, pixels, absorbance, model, sigma, recipe, previous)
    noise = _residual_noise(fit, absorbance, _measured(stack)) if sigma is None else sigma
    constants = _constants(recipe, element, edge, float(stack.energy_eV[0]))
    maps = _maps(fit, stack, pixels, absorbance, below, noise, constants, edge, recipe)
    k = recipe.n_clusters
    clusters, chance = _clusters(maps, recipe, previous)
    labels = np.full(pixels.sum(), -1) if clusters is None else clusters.labels
    of_cluster, label, n_v = (on_field(each, pixels) for each in (chance, labels, maps["n_v"]))
    return Interpretation(
        pixels,
        fit,
        maps,
        clusters,
        assigned(chance, labels),
        *shares(of_cluster, label, n_v, stack.grid.pixel_m, recipe.clusters.narrowest_m),
        cluster_spectra(labels, absorbance, maps["n_v"], k),
    )


def on_field(values: NDArray, pixels: NDArray[np.bool_]) -> NDArray:
    """Values of some pixels, (n_pixels, ...), as an image (ny, nx, ...): NaN, 0 or −1 elsewhere."""
    missing = {"f": np.nan, "u": 0, "i": -1}[values.dtype.kind]
    image = np.full((*pixels.shape, *values.shape[1:]), missing, values.dtype)
    image[pixels] = values
    return image


def _measured(stack: EnergyStack) -> NDArray[np.float64]:
    """Energies, NaN where not yet measured."""
    return np.where(stack.done, stack.energy_eV, np.nan)


def _fit(
    stack: EnergyStack,
    pixels: NDArray[np.bool_],
    absorbance: NDArray,
    model: XanesModel,
    sigma: float | NDArray[np.float64] | None,
    recipe: Recipe,
    previous: Interpretation | None,
) -> XanesFit:
    """Fit of all pixels, with the phase where the recipe wants it and the vacuum tells its noise."""
    phase_noise = _phase_noise(stack) if recipe.xanes.with_phase else 0.0
    return fit_xanes(
        _measured(stack),
        absorbance.T,
        model=model,
        sigma=sigma,
        start=None if previous is None else _start(previous, pixels, model),
        phase=stack.phase[:, pixels].T if phase_noise > 0 else None,
        sigma_phase=phase_noise,
        options=recipe.xanes,
    )


def _start(
    previous: Interpretation, pixels: NDArray[np.bool_], model: XanesModel
) -> NDArray[np.float64] | None:
    """Parameters that the fit before found in the same pixels, NaN where it failed or had none."""
    if previous.fit.model != model or previous.pixels.shape != pixels.shape:
        return None
    before = np.full((*pixels.shape, len(model.names)), np.nan)
    before[previous.pixels] = np.where(previous.fit.converged[:, None], previous.fit.parameters, np.nan)
    return before[pixels]


def _maps(
    fit: XanesFit,
    stack: EnergyStack,
    pixels: NDArray[np.bool_],
    absorbance: NDArray,
    below: NDArray[np.bool_],
    sigma: float | NDArray[np.float64],
    constants: EdgeConstants,
    edge: str,
    recipe: Recipe,
) -> dict[str, NDArray]:
    """Chemical maps, as the recipe wants them."""
    energy, chemistry = _measured(stack), recipe.chemistry
    fitted, correction, f1 = fitted_mask(fit, sigma, chemistry.mask), (1.0, 0.0), None
    if chemistry.jump == "physical":
        correction = jump_correction(
            fit, absorbance, energy, constants, edge=edge, sigma=sigma, fitted=fitted
        )
    if chemistry.average_n_eff:
        n_v = np.where(fitted, areal_density(fit, constants, correction)[0], np.nan)
        f1 = f1_of_sum(absorbance, energy, n_v, constants.element, below)
    return chemical_maps(
        fit,
        stack.phase[:, pixels].astype(float),
        stack.energy_eV,
        constants,
        sigma=sigma,
        sigma_phase=_phase_noise(stack),
        n_eff_energies=below if chemistry.average_n_eff else None,
        mask=chemistry.mask,
        correction=correction,
        f1=f1,
    )


def _constants(recipe: Recipe, element: str, edge: str, lowest_eV: float) -> EdgeConstants:
    if recipe.chemistry.constants == "chantler":
        return EdgeConstants.chantler(element, edge, lowest_eV)
    constants = EdgeConstants.paper()
    if (element, edge) != (constants.element, "K"):
        raise DataError(
            f"the paper's constants are for the V K-edge, but the scan is over the {element} {edge}-edge; "
            'choose chemistry.constants = "chantler"'
        )
    return constants


def _noise(
    absorbance: NDArray, stack: EnergyStack, below: NDArray[np.bool_], recipe: Recipe
) -> float | NDArray[np.float64] | None:
    """Noise of μt from the energies below the edge; None while there are too few of them."""
    if np.count_nonzero(below & stack.done) < 3:
        return None
    if recipe.chemistry.noise == "per_pixel":
        return noise_per_pixel(absorbance, below)
    return noise_level(absorbance, stack.energy_eV, below)


def _residual_noise(fit: XanesFit, absorbance: NDArray, energy_eV: NDArray) -> float:
    """Noise of μt from the scatter between neighbouring energies, for scans without a pre-edge."""
    measured = absorbance[np.isfinite(energy_eV)]
    second = measured[2:] - 2 * measured[1:-1] + measured[:-2]
    return float(1.4826 * np.nanmedian(np.abs(second)) / np.sqrt(6.0))


def _phase_noise(stack: EnergyStack) -> float:
    """Noise of the phase of one energy, rad: the robust scatter in vacuum, which carries no signal."""
    vacuum = stack.phase[:, stack.vacuum][stack.done]
    return float(1.4826 * np.median(np.abs(vacuum))) if vacuum.size else 0.0


def _clusters(
    maps: dict[str, NDArray], recipe: Recipe, previous: Interpretation | None
) -> tuple[Clusters | None, NDArray[np.float64]]:
    """Clusters and each pixel's probability to belong to each of them, (n_pixels, k)."""
    features = np.stack([maps[name] for name in FEATURES], axis=1).astype(float)
    weights, scaling = recipe.clusters.pixel_weights(maps["n_v"]), recipe.clusters.scaling
    before, k = previous.clusters.centers if previous and previous.clusters else None, recipe.n_clusters
    try:
        clusters = cluster(features, weights, k, previous=before, scaling=scaling)
    except DataError:  # too few pixels yet
        return None, np.full((len(features), k), np.nan)
    return clusters, membership(features, weights, clusters.labels, k, scaling)
