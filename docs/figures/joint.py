"""Figures of docs/joint.md: the simulation's particle with a rare state (``python docs/figures/joint.py``).

Takes 20 s and writes ``docs/images/joint_*.png``.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from scipy import ndimage

from ptychrome.analysis.optics import wavelength_m
from ptychrome.analysis.spectral import (
    SpectralModel,
    SpectralOptions,
    kramers_kronig_projector,
    spectral_model,
)
from ptychrome.analysis.xanes import XanesModel, fit_xanes
from ptychrome.devices.twin.particle import make_particle
from ptychrome.devices.twin.states import OXIDE_STATES, ChemicalState, scattering_factors, transmission

IMAGES = Path(__file__).parents[1] / "images"
PIXEL_M, FINE, MARGIN = 30e-9, 3, 4
ENERGIES_EV = np.r_[
    np.linspace(5420, 5460, 5), np.arange(5463, 5472), np.arange(5473, 5486), np.linspace(5490, 5540, 13)
].astype(float)
N = len(ENERGIES_EV)
RARE = ChemicalState("V2+ octahedral", 5474.6, 0.2, 5466.5, 1.0, 1.0)
RARE_PIXELS = 50
SIGMA = 2e-3
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
B2_LIMITS_EV = (5474.0, 5481.0)


def particle_images() -> tuple[NDArray, NDArray, NDArray]:
    """Transmission (n, ny, nx) averaged over pixels, where there is matter, and where the rare state is."""
    particle = make_particle("P1", PIXEL_M / FINE)
    pad = [(MARGIN * FINE, MARGIN * FINE + -size % FINE) for size in particle.areal_density.shape[1:]]
    density = np.pad(particle.areal_density, ((0, 0), *pad))
    shape = tuple(size // FINE for size in density.shape[1:])
    rows, columns = np.indices(shape)
    distance = np.hypot(rows - 0.4 * shape[0], columns - 0.4 * shape[1])
    rare = distance <= np.sort(distance.ravel())[RARE_PIXELS - 1]
    share = np.kron(rare, np.ones((FINE, FINE)))
    density = np.concatenate([density * (1 - share), [density.sum(axis=0) * share]])

    def averaged(image: NDArray) -> NDArray:
        return image.reshape(shape[0], FINE, shape[1], FINE).mean(axis=(1, 3))

    states = (*particle.states, RARE)
    images = np.array([averaged(transmission(density, states, energy)) for energy in ENERGIES_EV])
    return images, averaged(density.sum(axis=0)) > 1e21, rare


def noisy(images: NDArray, sigma: float, clouds: float = 0.0, seed: int = 0) -> NDArray:
    """White noise on ln O, and clouds of a few hundred nm, other ones at each energy."""
    rng = np.random.default_rng(seed)
    noise = sigma * (rng.normal(size=images.shape) + 1j * rng.normal(size=images.shape))
    wide = ndimage.gaussian_filter(rng.normal(size=(*images.shape, 2)), (0, 5, 5, 0))
    wide *= clouds / wide.std()
    return images * np.exp(noise + wide[..., 0] + 1j * wide[..., 1])


def model_of(images: NDArray, particle: NDArray, rank: int | None = None) -> SpectralModel:
    return spectral_model(ENERGIES_EV, images, particle, "V", SpectralOptions(rank=rank))


def edge_energy_eV(log_object: NDArray) -> NDArray:
    """b2 of eq. (1) for (n, pixels) ln O."""
    return fit_xanes(ENERGIES_EV, -2 * log_object.real.T, model=XanesModel.for_edge("V"), sigma=SIGMA)["b2"]


def open_frame(ax: Axes, title: str) -> None:
    ax.set_title(title, loc="left", fontsize="medium")
    ax.spines[["top", "right"]].set_visible(False)


def draw_components(images: NDArray, particle: NDArray) -> None:
    """Singular values against the edge, and how much of what Kramers–Kronig lets pass."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.5), layout="constrained")
    cases = (
        ("noise 0.002", SIGMA, 0.0, BLUE, "o"),
        ("noise 0.0003", 3e-4, 0.0, GREEN, "s"),
        ("noise 0.0003, clouds 0.0015", 3e-4, 1.5e-3, RED, "^"),
    )
    for label, sigma, clouds, colour, marker in cases:
        model = model_of(noisy(images, sigma, clouds), particle)
        shown = model.strength[:14]
        left.semilogy(
            np.arange(1, 15), shown, marker, color=colour, markersize=5, label=f"{label}: {model.rank} used"
        )
    left.axhline(1, color="0.3", linewidth=0.8)
    left.annotate("edge", (14.5, 1.08), ha="right", va="bottom", color="0.3")
    left.set(xlabel="principal component", ylabel="singular value / edge", xlim=(0.3, 14.7))
    left.legend(frameon=False, fontsize="small")
    open_frame(left, "how many components stand out")

    projector = kramers_kronig_projector(ENERGIES_EV, "V")
    factors = scattering_factors((*OXIDE_STATES, RARE), ENERGIES_EV) * wavelength_m(ENERGIES_EV)
    one = np.eye(2 * N)
    random = np.random.default_rng(0).normal(size=(200, 2 * N))
    groups = (
        ("spectra of\nfive states", np.concatenate([factors.imag, factors.real], axis=1), BLUE),
        ("white\nnoise", random, "0.45"),
        ("error of one\nenergy, ln|O|", one[:N], ORANGE),
        ("error of one\nenergy, phase", one[N:], RED),
    )
    for place, (_, spectra, colour) in enumerate(groups):
        lost = np.linalg.norm(spectra - spectra @ projector, axis=1) / np.linalg.norm(spectra, axis=1)
        across = place + 0.5 * (np.linspace(0, 1, len(lost)) - 0.5)
        right.semilogy(across, lost, ".", color=colour, markersize=4)
    right.set_xticks(range(len(groups)), [name for name, *_ in groups], fontsize="small")
    right.set(ylabel="share that Kramers–Kronig forbids", ylim=(5e-5, 2), xlim=(-0.5, 3.5))
    open_frame(right, "matter passes, errors lose two thirds")
    save(figure, "joint_components.png")


def draw_rare_state(images: NDArray, particle: NDArray, rare: NDArray) -> None:
    """Edge-energy maps of truth and models, and the residual of a rank that is too low."""
    data = noisy(images, SIGMA)
    enough, low = model_of(data, particle), model_of(data, particle, rank=2)
    figure, axes = plt.subplots(1, 4, figsize=(12.2, 3.35), layout="constrained")
    maps = (
        ("truth", np.log(images)),
        (f"model, {enough.rank} components (automatic)", enough.log_object),
        ("model, 2 components (too few)", low.log_object),
    )
    for ax, (title, log_object) in zip(axes, maps, strict=False):
        image = np.full(particle.shape, np.nan)
        image[particle] = edge_energy_eV(log_object[:, particle])
        drawn = draw_map(ax, image, title, rare, "viridis", B2_LIMITS_EV)
    bar = figure.colorbar(drawn, ax=axes[:3], shrink=0.8, pad=0.01, extend="both")
    bar.set_label("edge energy $b_2$ (eV)")
    drawn = draw_map(axes[3], low.residual, "residual of 2 components", rare, "magma", (0, 5))
    figure.colorbar(drawn, ax=axes[3], shrink=0.8, pad=0.02, extend="max").set_label("residual / its median")
    save(figure, "joint_rare_state.png")


def draw_map(
    ax: Axes, image: NDArray, title: str, rare: NDArray, colours: str, limits: tuple[float, float]
) -> matplotlib.image.AxesImage:
    colour_map = matplotlib.colormaps[colours].with_extremes(bad="0.88")
    drawn = ax.imshow(image, cmap=colour_map, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    ax.contour(rare, levels=[0.5], colors="white", linewidths=1.0)
    ax.set_title(title, loc="left", fontsize="medium")
    ax.set_axis_off()
    rows, columns = image.shape
    length = 500e-9 / PIXEL_M
    ax.add_patch(Rectangle((columns - 2 - length, rows - 2.2), length, 0.9, color="black"))
    ax.text(columns - 2 - length / 2, rows - 2.8, "500 nm", ha="center", va="bottom", fontsize="small")
    return drawn


def draw_spectra(images: NDArray, particle: NDArray, rare: NDArray) -> None:
    """One pixel of the rare state: measured, modelled and true; and the mean error of its pixels."""
    data = noisy(images, SIGMA)
    enough, low = model_of(data, particle), model_of(data, particle, rank=2)
    row, column = (int(np.median(axis)) for axis in np.nonzero(rare))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.4), layout="constrained")
    pixel = (slice(None), row, column)
    left.plot(ENERGIES_EV, -2 * np.log(np.abs(data[pixel])), ".", color="0.45", label="one energy at a time")
    left.plot(
        ENERGIES_EV, -2 * np.log(np.abs(images[pixel])), "-", color="black", linewidth=0.8, label="truth"
    )
    chosen = ((enough, f"{enough.rank} components", BLUE), (low, "2 components", ORANGE))
    for model, label, colour in chosen:
        left.plot(ENERGIES_EV, -2 * model.log_object[pixel].real, "-", color=colour, label=label)
        error = -2 * (model.log_object[:, rare].real - np.log(np.abs(images[:, rare])))
        right.plot(ENERGIES_EV, 1e3 * error.mean(axis=1), ".-", color=colour, label=label)
    right.axhspan(-2e3 * SIGMA, 2e3 * SIGMA, color="0.9", zorder=0, label="noise of one pixel, ±σ")
    left.set(xlabel="energy (eV)", ylabel="absorbance µt", xlim=(5455, 5512))
    right.set(xlabel="energy (eV)", ylabel="mean error of µt (10⁻³)", xlim=(5455, 5512))
    left.legend(frameon=False, fontsize="small")
    right.legend(frameon=False, fontsize="small", loc="lower right")
    open_frame(left, "one pixel of the rare state")
    open_frame(right, f"mean of its {int(rare.sum())} pixels")
    save(figure, "joint_spectra.png")


def save(figure: plt.Figure, name: str) -> None:
    figure.savefig(IMAGES / name, dpi=110)
    plt.close(figure)


def main() -> None:
    images, particle, rare = particle_images()
    draw_components(images, particle)
    draw_rare_state(images, particle, rare)
    draw_spectra(images, particle, rare)


if __name__ == "__main__":
    main()
