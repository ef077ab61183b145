"""What a report holds: sections of figures and tables, computed from the results of its particles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from matplotlib.figure import Figure

from ptychrome.analysis.chemistry import EdgeConstants
from ptychrome.analysis.cluster_count import StateCount, count_states
from ptychrome.analysis.clustering import ClusterOptions
from ptychrome.analysis.scan import DataError
from ptychrome.callbacks.figures.images import measured
from ptychrome.callbacks.figures.states import Shares
from ptychrome.callbacks.regions import RegionSpectrum, region_at, region_spectra, representative_regions
from ptychrome.callbacks.results import Revision
from ptychrome.edges import tabulated_edge_eV
from ptychrome.profiles.errors import UserError
from ptychrome.profiles.pooled import pixel_features, pool_clusters
from ptychrome.profiles.report.options import ReportOptions
from ptychrome.profiles.report.particles import Particle, edge_of
from ptychrome.profiles.standards import Standards, read_standards

WIDTH_IN = 10.0
MOST_STATES = 10  # that are tried


@dataclass(frozen=True)
class Illustration:
    """One figure of a report, with what it shows and how that was computed."""

    name: str
    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Column:
    """A column of a table: name in the CSV file (with unit); title, format and factor on the page."""

    name: str
    title: str = ""
    form: str = ""
    factor: float = 1.0


@dataclass(frozen=True)
class Table:
    """Numbers of a report; those with a title are on the page, all are CSV files.

    On the page a `turned` one has its columns as rows.
    """

    name: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[object, ...], ...]
    title: str = ""
    caption: str = ""
    turned: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    title: str
    items: tuple[Illustration | Table, ...]


@dataclass(frozen=True)
class ReportData:
    """The particles, clustered together, and what follows for all of them.

    Attributes
    ----------
    particles : tuple of Particle
    edge : (str, str) or None
        Element and edge.
    k : int
        Number of states; 0: none were looked for.
    options : ReportOptions
    notes : tuple of str
        What is missing and why.
    bulk : Standards
        Bulk spectra beside those of the particles.
    """

    particles: tuple[Particle, ...]
    edge: tuple[str, str] | None
    k: int
    options: ReportOptions
    notes: tuple[str, ...] = ()
    bulk: Standards = Standards()

    @property
    def mapped(self) -> tuple[Particle, ...]:
        """Particles with chemical maps."""
        return tuple(particle for particle in self.particles if particle.mapped)

    @property
    def groups(self) -> dict[str, tuple[Particle, ...]]:
        """Clustered particles of each state of preparation."""
        names = dict.fromkeys(particle.group for particle in self.mapped)
        return {name: tuple(each for each in self.mapped if each.group == name) for name in names}

    @property
    def energy_eV(self) -> float:
        """Of the images."""
        if self.options.energy_eV is not None:
            return self.options.energy_eV
        tops = [
            particle.result.arrays["energy"][done[-1]]
            for particle in self.particles
            if (done := measured(particle.result)).size
        ]
        return float(max(tops))

    def constants(self) -> tuple[EdgeConstants, ...]:
        """Sets of scattering constants at the lowest energy of the results; the paper's for vanadium only."""
        if self.edge is None or not self.mapped:
            return ()
        lowest = min(float(each.result.arrays["energy"][0]) for each in self.mapped)
        chantler = EdgeConstants.chantler(*self.edge, lowest)
        return (chantler, EdgeConstants.paper()) if self.edge == ("V", "K") else (chantler,)

    def shares(self, particles: Sequence[Particle]) -> Shares:
        """Share of the atoms of these particles in each state.

        Its standard deviation is that of the mean over particles; of a single one that of the assignment of
        its pixels.
        """
        arrays = [particle.result.arrays for particle in particles]
        each = np.array([one["clusters/fractions"] for one in arrays])
        if len(each) == 1:
            return Shares(each[0], arrays[0].get("clusters/fractions_sigma", np.full(self.k, np.nan)))
        atoms = [np.nansum(one["maps/n_v"][one["clusters/label"] >= 0], dtype=float) for one in arrays]
        return Shares(np.average(each, axis=0, weights=atoms), each.std(axis=0, ddof=1) / np.sqrt(len(each)))

    def count_states(self) -> StateCount | None:
        """Criteria for the number of states; None with too few pixels for more than one."""
        values = np.concatenate([pixel_features(particle.result) for particle in self.mapped])
        weights = self.clustering.pixel_weights(pooled(self.mapped, "maps/n_v"))
        valid = int(np.count_nonzero(np.isfinite(values).all(axis=1) & (weights > 0)))
        most = min(MOST_STATES, valid // 2)
        if most < 2:
            return None
        return count_states(values, weights, range(1, most + 1), scaling=self.clustering.scaling)

    @property
    def clustering(self) -> ClusterOptions:
        """How the pixels are compared: as the recipe of the first result says."""
        return _clustering_of(self.mapped[0].result)

    @cached_property
    def spectra(self) -> dict[str, list[RegionSpectrum]]:
        """Fitted spectra of the regions of interest of each particle that has some."""
        found = {}
        for particle in self.mapped:
            regions = self._regions(particle)
            if regions and self.edge is not None:
                found[particle.label] = region_spectra(particle.result, regions, *self.edge)
        return found

    def _regions(self, particle: Particle) -> list:
        places = [
            each for each in self.options.places if each.sample in (None, particle.label)
        ]  # fmt: skip
        if not places:
            return representative_regions(particle.result)
        try:
            return [
                region_at(particle.result, each.x_m, each.y_m, chr(ord("A") + number))
                for number, each in enumerate(places)
            ]
        except DataError as error:
            raise UserError(f"--roi: {error}") from None


def assemble(particles: tuple[Particle, ...], options: ReportOptions) -> ReportData:
    """Cluster all particles together.

    Parameters
    ----------
    particles : tuple of Particle
    options : ReportOptions

    Returns
    -------
    ReportData

    Raises
    ------
    UserError
        If results are of several edges, nothing is measured, an option names an unknown sample, or bulk
        spectra cannot be used.
    """
    labels = [particle.label for particle in particles]
    for place in options.places:
        if place.sample not in (None, *labels):
            raise UserError(f"--roi: no sample {place.sample!r}; expected one of {', '.join(labels)}")
    if not any(measured(particle.result).size for particle in particles):
        raise UserError("the results hold no reconstructed energy; expected at least one")
    edge = edge_of(particles)
    bulk = Standards()
    if options.bulk:
        if edge is None:
            raise UserError("--bulk: the results are of no edge; expected those of a scan over an edge")
        bulk = read_standards(options.bulk, options.foil, tabulated_edge_eV(*edge))
    elif options.foil is not None:
        raise UserError(f"--foil {options.foil}: expected --bulk spectra, whose energy scale it tells")
    notes = [f"{each.label} has no chemical maps" for each in particles if not each.mapped]
    notes += [
        f"{each.label} is not finished: {measured(each.result).size} of "
        f"{len(each.result.arrays['energy'])} energies"
        for each in particles
        if measured(each.result).size < len(each.result.arrays["energy"])
    ]
    mapped = {each.label: each.result for each in particles if each.mapped}
    k = options.clusters or max((_clusters_of(result) for result in mapped.values()), default=0)
    try:
        first = [_clustering_of(result) for result in mapped.values()][:1]
        clustered = pool_clusters(mapped, k, *first) if k else mapped
    except DataError as error:
        notes.append(f"no chemical states: {error}")
        clustered, k = mapped, 0
    if not k:
        clustered = {name: _without_clusters(result) for name, result in clustered.items()}
    return ReportData(
        tuple(replace(each, result=clustered.get(each.label, each.result)) for each in particles),
        edge,
        k if mapped else 0,
        options,
        tuple(notes),
        bulk,
    )


def pooled(particles: Sequence[Particle], name: str) -> np.ndarray:
    """An array of all particles in one, flat."""
    return np.concatenate([particle.result.arrays[name].ravel() for particle in particles])


def _clustering_of(result: Revision) -> ClusterOptions:
    return ClusterOptions.model_validate(result.attributes.get("options", {}).get("clusters", {}))


def _clusters_of(result: Revision) -> int:
    options = result.attributes.get("options", {})
    stored = len(result.arrays.get("clusters/fractions", ()))
    return stored or int(options.get("n_clusters", 0))


def _without_clusters(result: Revision) -> Revision:
    arrays = {name: array for name, array in result.arrays.items() if not name.startswith("clusters/")}
    return replace(result, arrays=arrays)
