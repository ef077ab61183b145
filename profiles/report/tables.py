"""The numbers of a report."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ptychrome.analysis.chemistry import EdgeConstants, n_eff_ratio_reference
from ptychrome.analysis.cluster_count import StateCount
from ptychrome.analysis.scan import DataError
from ptychrome.callbacks.figures.domains import chords_of
from ptychrome.callbacks.figures.images import measured
from ptychrome.callbacks.figures.states import state_spectra
from ptychrome.profiles.errors import UserError
from ptychrome.profiles.report.content import Column, ReportData, Table
from ptychrome.schema import MAPS

RESOLUTIONS = ("half_bit", "one_bit", "prtf")
FEATURE_COLUMNS = (
    Column("edge_energy_eV", "b₂ (eV)", ".2f"),
    Column("pre_edge_ratio_eV", "PE/Δμt (eV)", ".2f"),
    Column("n_eff_ratio", "Re[N_eff]/N_V", ".1f"),
)
SUMMARY = (
    Column("particle", "particle"),
    Column("preparation", "preparation"),
    Column("energies_done", "energies measured", "d"),
    Column("energies_planned", "energies planned", "d"),
    Column("lowest_eV", "lowest (eV)", ".1f"),
    Column("highest_eV", "highest (eV)", ".1f"),
    Column("recipe", "recipe"),
    Column("pixel_m", "pixel (nm)", ".1f", 1e9),
    Column("resolution_half_bit_m", "resolution, FRC ½ bit (nm)", ".0f", 1e9),
    Column("resolution_one_bit_m", "resolution, FRC 1 bit (nm)", ".0f", 1e9),
    Column("resolution_prtf_m", "resolution, PRTF (nm)", ".0f", 1e9),
    Column("photons_per_frame", "photons per frame", ".2e"),
    Column("dose_Gy", "dose (Gy)", ".2e"),
    Column("residual", "residual", ".2f"),
    Column("r_factor", "R factor", ".3f"),
    Column("software", "version"),
    Column("raw_uid", "uid"),
)


def summary_table(data: ReportData) -> Table:
    """A row for each particle: what was measured, how it was reconstructed, how good it is."""
    rows = []
    for particle in data.particles:
        result, attributes = particle.result, particle.result.attributes
        energies = result.tables.get("quality/energies", {})
        done = result.arrays["energy"][measured(result)]
        x = result.arrays["x"]
        rows.append(
            (
                particle.label,
                particle.group,
                len(done),
                len(result.arrays["energy"]),
                done[0] if done.size else np.nan,
                done[-1] if done.size else np.nan,
                attributes.get("recipe", ""),
                abs(float(x[1] - x[0])),
                *(attributes.get(f"resolution_{name}_m", np.nan) for name in RESOLUTIONS),
                _middle(energies.get("photons")),
                _total(energies.get("dose_Gy")),
                _middle(energies.get("residual")),
                _middle(energies.get("r_factor")),
                attributes.get("software", ""),
                result.raw_uid,
            )
        )
    materials = {str(each.result.attributes.get("dose_material", "the element")) for each in data.particles}
    caption = (
        "The dose is the sum over all energies, that of the pure element "
        f"({', '.join(sorted(materials))}) at the entrance. Residual: median of 4 (√I − |Ψ|)², 1 is photon "
        "noise. Resolutions are full periods; FRC is of two halves of the scan. “–”: not determined."
    )
    return Table("summary", SUMMARY, tuple(rows), "Particles", caption, turned=True)


def states_table(data: ReportData) -> Table:
    """Centres of the states and their shares in each group."""
    centers = np.asarray(data.mapped[0].result.arrays["clusters/centers"], dtype=float)
    columns, shares = [Column("state", "state", "d"), *FEATURE_COLUMNS], []
    for group, particles in data.groups.items():
        share = data.shares(particles)
        key = group.replace(" ", "_").replace("-", "_")
        columns += [
            Column(f"share_{key}", f"{group} (%)", ".1f", 100.0),
            Column(f"share_{key}_sigma", "± (%)", ".1f", 100.0),
        ]
        shares += [share.value, share.sigma]
    rows = tuple(
        (state, *centers[state], *(share[state] for share in shares)) for state in range(len(centers))
    )
    caption = "Centres of the states and their shares of the atoms (weighted by N_V)."
    return Table("states", tuple(columns), rows, "States", caption)


def shares_table(data: ReportData) -> Table:
    """Shares in each particle and each group, for CSV."""
    columns = tuple(Column(name) for name in ("particle", "preparation", "state", "share", "share_sigma"))
    rows = []
    for particle in data.mapped:
        share = data.shares([particle])
        rows += [(particle.label, particle.group, k, share.value[k], share.sigma[k]) for k in range(data.k)]
    for group, particles in data.groups.items():
        share = data.shares(particles)
        rows += [("all", group, k, share.value[k], share.sigma[k]) for k in range(data.k)]
    return Table("shares", columns, tuple(rows))


def references_table(data: ReportData) -> Table | None:
    """Re[N_eff]/N_V of compounds with all sets of constants; None where there are no compounds.

    Raises
    ------
    UserError
        If a compound cannot be read or lacks the element.
    """
    sets = data.constants()
    compounds = data.options.compounds_of(data.edge[0]) if data.edge else ()
    if not sets or not compounds:
        return None
    columns = (Column("compound", "compound"), *(Column(each.name, each.name, ".2f") for each in sets))
    rows = tuple((name, *(_reference(name, each) for each in sets)) for name in compounds)
    lowest = sets[0].energy_eV
    caption = (
        f"Re[N_eff]/N_V of compounds at {lowest:.1f} eV with f′ by Chantler (xraydb)"
        + (" and with the constants of the paper, whose f′ of V is −7.14" if len(sets) > 1 else "")
        + ". They move these reference values, not the maps. “–”: the set holds not all of the elements."
    )
    return Table("references", columns, rows, "Reference values", caption)


def _reference(compound: str, constants: EdgeConstants) -> float:
    try:
        return n_eff_ratio_reference(compound, constants)
    except DataError as error:
        if constants.f1 is not None:  # of few elements
            return float("nan")
        raise UserError(f"--compound: {error}") from None


def region_tables(data: ReportData) -> Iterator[Table]:
    """Parameters of the regions of interest, and their spectra for CSV."""
    names = ("edge_energy", "edge_jump", "pre_edge_area", "pre_edge_ratio")
    titles = {"edge_energy": "b₂ (eV)", "edge_jump": "Δμt", "pre_edge_area": "PE (eV)",
              "pre_edge_ratio": "PE/Δμt (eV)"}  # fmt: skip
    forms = {"edge_energy": ".2f", "edge_jump": ".4f", "pre_edge_area": ".3f", "pre_edge_ratio": ".2f"}
    columns = [
        Column("particle", "particle"),
        Column("region", "region"),
        Column("state", "state", "d"),
        Column("x_m", "x (µm)", ".3f", 1e6),
        Column("y_m", "y (µm)", ".3f", 1e6),
    ]
    for name in names:
        unit = "_eV" if MAPS[name].unit == "eV" else ""
        columns += [Column(f"{name}{unit}", titles[name], forms[name])]
        columns += [Column(f"{name}_sigma{unit}", "±", forms[name])]
    rows, points = [], []
    for particle in data.mapped:
        for each in data.spectra.get(particle.label, ()):
            region = each.region
            y_m, x_m = region.centre_m(particle.result)
            values = [number for name in names for number in each.values[name]]
            rows.append((particle.label, region.name, region.state, x_m, y_m, *values))
            points += [
                (particle.label, region.name, *point)
                for point in zip(each.energy_eV, each.absorbance, each.fitted, strict=True)
            ]
    caption = "Parameters of eq. (1) fitted to the mean spectrum of each region, with one standard deviation."
    yield Table("regions", tuple(columns), tuple(rows), "Regions of interest", caption)
    spectra = ("particle", "region", "energy_eV", "absorbance", "fitted")
    yield Table("region_spectra", tuple(Column(name) for name in spectra), tuple(points))


def pixels_table(data: ReportData) -> Table:
    """All fitted pixels with all maps, for CSV."""
    names = [name + suffix for name in MAPS for suffix in ("", "_sigma")]
    columns = ["particle", "preparation", "row", "column", "y_m", "x_m", *names, "state"]
    rows: list[tuple[object, ...]] = []
    for particle in data.mapped:
        arrays = particle.result.arrays
        places = np.argwhere(np.isfinite(arrays["maps/n_v"]))
        label = arrays.get("clusters/label", np.full(arrays["maps/n_v"].shape, -1))
        missing = np.full(label.shape, np.nan)
        images = [arrays.get(f"maps/{name}", missing) for name in names]
        for row, column in places:
            values = [float(image[row, column]) for image in images]
            where = int(row), int(column), float(arrays["y"][row]), float(arrays["x"][column])
            rows.append((particle.label, particle.group, *where, *values, int(label[row, column])))
    return Table("pixels", tuple(Column(name) for name in columns), tuple(rows))


def state_spectra_table(data: ReportData) -> Table:
    """Normalised mean spectra of the states, for CSV."""
    energy, spectra = state_spectra([each.result for each in data.mapped])
    columns = (Column("energy_eV"), *(Column(f"state_{state}") for state in range(len(spectra))))
    rows = tuple((float(e), *map(float, spectra[:, place])) for place, e in enumerate(energy))
    return Table("state_spectra", columns, rows)


def bulk_tables(data: ReportData) -> Iterator[Table]:
    """Bulk spectra as drawn, for CSV; none where there are none."""
    rows = [
        (each.name, *map(float, point))
        for each in data.bulk.spectra
        for point in zip(each.energy_eV, each.normalised, strict=True)
    ]
    if rows:
        columns = ("spectrum", "energy_eV", "normalised")
        yield Table("bulk_spectra", tuple(Column(name) for name in columns), tuple(rows))


def state_count_table(count: StateCount) -> Table:
    """Criteria for the number of states, for CSV."""
    names = ("inertia", "silhouette", "bic", "gap", "gap_sigma", "stability")
    values = [getattr(count, name) for name in names]
    rows = tuple((int(k), *(float(each[place]) for each in values)) for place, k in enumerate(count.ks))
    return Table("state_count", tuple(Column(name) for name in ("k", *names)), rows)


def domains_table(data: ReportData) -> Table:
    """Mean chords of each state in each particle, for CSV."""
    columns = ("particle", "preparation", "state", "mean_chord_m", "whole_chords")
    rows = []
    for particle in data.mapped:
        found = chords_of([particle.result])
        mean_m = found.mean_m(data.k)
        rows += [
            (particle.label, particle.group, k, float(mean_m[k]), len(found.whole(k))) for k in range(data.k)
        ]
    return Table("domains", tuple(Column(name) for name in columns), tuple(rows))


def resolution_table(data: ReportData) -> Table | None:
    """Curves of ring correlation and transfer function, for CSV; None where there are none."""
    columns = ("particle", "curve", "frequency_per_m", "value")
    curves = {"frc": ("correlation", "half_bit", "one_bit"), "prtf": ("prtf",)}
    rows = [
        (particle.label, name, float(frequency), float(value))
        for particle in data.particles
        for table, names in curves.items()
        if (found := particle.result.tables.get(f"quality/{table}")) is not None
        for name in names
        for frequency, value in zip(found["frequency"], found[name], strict=True)
    ]
    return Table("resolution", tuple(Column(name) for name in columns), tuple(rows)) if rows else None


def _total(values: np.ndarray | None) -> float:
    return float(np.sum(values)) if values is not None else float("nan")


def _middle(values: np.ndarray | None) -> float:
    return float(np.nanmedian(values)) if values is not None and np.isfinite(values).any() else float("nan")
