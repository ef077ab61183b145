"""The sections of a report in their order: which figures and which tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ptychrome.callbacks.figures.densities import densities_figure, scatter_figure, state_count_figure
from ptychrome.callbacks.figures.distributions import feature_limits, histograms_figure
from ptychrome.callbacks.figures.domains import domains_figure
from ptychrome.callbacks.figures.particles import image_scales, images_figure, series_figure
from ptychrome.callbacks.figures.quality import resolution_figure
from ptychrome.callbacks.figures.regions import regions_figure
from ptychrome.callbacks.figures.states import cluster_maps_figure, states_figure
from ptychrome.callbacks.figures.style import Scale, map_scale
from ptychrome.callbacks.figures.tables import maps_figure
from ptychrome.callbacks.results import Revision
from ptychrome.profiles.report import tables
from ptychrome.profiles.report.captions import CAPTIONS
from ptychrome.profiles.report.content import WIDTH_IN, Illustration, ReportData, Section, Table
from ptychrome.profiles.report.particles import Particle
from ptychrome.schema import FEATURES

FEATURE_MAPS = ("edge_energy", "pre_edge_ratio", "n_eff_ratio", "n_v")
# particles in one figure, so that it fits a page
MOST = {"images": 3, "energy_series": 4, "regions": 3, "maps": 4, "sigma_maps": 4, "state_maps": 9,
        "histograms": 6, "resolution": 6}  # fmt: skip
AROUND_EDGE_EV = (-10.0, 0.0, 7.0)  # from the mean edge energy: pre-edge peak, edge, white line


def sections(data: ReportData) -> Iterator[Section]:
    """All sections that the results allow.

    Raises
    ------
    UserError
        If an option does not fit the results: a region is outside, a compound cannot be read.
    """
    # mistakes of the user show before anything is drawn
    references, regions = tables.references_table(data), bool(data.spectra)
    yield Section("Summary", (tables.summary_table(data), *tables.bulk_tables(data)))
    yield Section("Reconstructed images", tuple(_images(data)))
    if data.mapped:
        if regions:
            yield Section("Spectra of regions of interest", tuple(_regions(data)))
        yield Section("Chemical maps", (*_maps(data), tables.pixels_table(data)))
    if data.k:
        yield Section("Chemical states", tuple(_states(data, references)))
        yield Section("Distributions", tuple(_distributions(data)))
    resolved = tuple(_resolution(data))
    if resolved:
        yield Section("Resolution", resolved)


def _images(data: ReportData) -> Iterator[Illustration]:
    scales = image_scales(_results(data.particles), data.energy_eV)
    for name, part in _parts("images", data.particles):
        figure = images_figure(
            _results(part), data.energy_eV, scales, labels=_labels(part), width_in=WIDTH_IN
        )
        yield _illustration(name, figure, names=_names(part), energy=data.energy_eV)
    if not data.mapped:
        return
    energies = _series_energies(data)
    for name, part in _parts("energy_series", data.mapped):
        figure = series_figure(_results(part), energies, row_labels=_row_labels(part), width_in=WIDTH_IN)
        yield _illustration(name, figure, names=_names(part))


def _series_energies(data: ReportData) -> list[float]:
    """Lowest and highest energy, and three that the edge energy of the particles places."""
    values = np.concatenate([each.result.arrays["maps/edge_energy"].ravel() for each in data.mapped])
    energies = np.concatenate([each.result.arrays["energy"] for each in data.mapped])
    near = [float(np.nanmedian(values)) + offset for offset in AROUND_EDGE_EV]
    near = [float(energies[np.argmin(np.abs(energies - each))]) for each in near]
    return sorted({float(energies.min()), *near, float(energies.max())})


def _regions(data: ReportData) -> Iterator[Illustration | Table]:
    scale = image_scales(_results(data.mapped), data.energy_eV)[1]
    shown = tuple(each for each in data.mapped if each.label in data.spectra)
    first = data.spectra[shown[0].label][0].region
    x = shown[0].result.arrays["x"]
    width_nm = 1e9 * first.pixels * abs(float(x[1] - x[0]))
    chosen = "as chosen" if data.options.places else "the squares with most atoms of each state"
    for name, part in _parts("regions", shown):
        spectra = [data.spectra[each.label] for each in part]
        figure = regions_figure(
            _results(part), spectra, data.energy_eV, scale, labels=_labels(part), bulk=data.bulk.spectra
        )
        yield _illustration(name, figure, names=_names(part), width=width_nm, chosen=chosen, bulk=_bulk(data))
    yield from tables.region_tables(data)


def _maps(data: ReportData) -> Iterator[Illustration]:
    element = data.edge[0] if data.edge else "the element"
    for stem, suffix in (("maps", ""), ("sigma_maps", "_sigma")):
        columns = list(dict.fromkeys(_scales(data, suffix)))
        for part_name, part in _parts(stem, data.mapped):
            figure = maps_figure(_results(part), columns, row_labels=_row_labels(part), width_in=WIDTH_IN)
            yield _illustration(part_name, figure, names=_names(part), element=element)


def _scales(data: ReportData, suffix: str) -> Iterator[tuple[str, Scale]]:
    """Maps with their scales; the ratio on the paper's and on a finer one, unless the user set one."""
    for base in FEATURE_MAPS:
        name = base + suffix
        for paper in (True, False):
            limits = data.options.scales.get(name)
            yield name, map_scale(name, _results(data.mapped), paper_scales=paper, limits=limits)


def _states(data: ReportData, references: Table | None) -> Iterator[Illustration | Table]:
    for name, part in _parts("state_maps", data.mapped):
        yield _illustration(name, cluster_maps_figure(_results(part), labels=_labels(part)), k=data.k)
    shares = {group: data.shares(particles) for group, particles in data.groups.items()}
    figure = states_figure(_results(data.mapped), shares, data.bulk.spectra)
    yield _illustration("states", figure, bulk=_bulk(data))
    yield tables.states_table(data)
    if references is not None:
        yield references
    yield tables.shares_table(data)
    yield tables.state_spectra_table(data)


def _distributions(data: ReportData) -> Iterator[Illustration | Table]:
    for name, part in _parts("histograms", data.mapped):
        yield _illustration(name, histograms_figure(_results(part), labels=_labels(part)), names=_names(part))
    limits = [feature_limits(_results(data.mapped), name) for name in FEATURES]
    for number, (group, particles) in enumerate(data.groups.items(), 1):
        for stem, draw in (("densities", densities_figure), ("scatter", scatter_figure)):
            figure = draw(_results(particles), limits)
            yield _illustration(f"{stem}-{number}", figure, names=_names(particles), group=group)
    count = data.count_states()
    if count is not None:
        yield _illustration("state_count", state_count_figure(count), k=data.k)
        yield tables.state_count_table(count)
    groups = {group: _results(particles) for group, particles in data.groups.items()}
    yield _illustration("domains", domains_figure(groups))
    yield tables.domains_table(data)


def _resolution(data: ReportData) -> Iterator[Illustration | Table]:
    curves = {"quality/frc", "quality/prtf"}
    shown = tuple(each for each in data.particles if curves & set(each.result.tables))
    for name, part in _parts("resolution", shown):
        yield _illustration(name, resolution_figure(_results(part), labels=_labels(part)), names=_names(part))
    table = tables.resolution_table(data)
    if table is not None:
        yield table


def _bulk(data: ReportData) -> str:
    """What the captions say of bulk spectra."""
    bulk = data.bulk
    if not bulk.spectra:
        return ""
    names = " and ".join(each.name for each in bulk.spectra)
    if bulk.offset_eV is None:
        return f" Grey: bulk spectra of {names}, as measured in energy, normalised."
    shift = f"{bulk.offset_eV:+.2f} ± {bulk.sigma_eV:.2f} eV"
    return f" Grey: bulk spectra of {names}, normalised, shifted by {shift} so that the foil is at its edge."


def _illustration(name: str, figure: Figure, **words: Any) -> Illustration:
    title, caption = CAPTIONS[name.rstrip("0123456789-")]
    return Illustration(name, title.format(**words), caption.format(**words), figure)


def _parts(stem: str, particles: Sequence[Particle]) -> Iterator[tuple[str, tuple[Particle, ...]]]:
    """Particles in as few parts of similar size as fit a page, with the names of their figures."""
    if not particles:
        return
    count = -(-len(particles) // MOST[stem])
    for number, part in enumerate(np.array_split(np.arange(len(particles)), count), 1):
        yield f"{stem}-{number}" if count > 1 else stem, tuple(particles[place] for place in part)


def _results(particles: Sequence[Particle]) -> list[Revision]:
    return [particle.result for particle in particles]


def _labels(particles: Sequence[Particle]) -> list[str]:
    return [f"{particle.label}, {particle.group}" for particle in particles]


def _row_labels(particles: Sequence[Particle]) -> list[str]:
    return [f"{particle.label}\n{particle.group}" for particle in particles]


def _names(particles: Sequence[Particle]) -> str:
    labels = [particle.label for particle in particles]
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
