"""Absorption spectra in columns: XDI 1.0, what Athena writes (.nor, .xmu, .dat) and plain tables.

XDI: https://github.com/XraySpectroscopy/XAS-Data-Interchange/blob/master/specification/spec.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
FIELD = re.compile(r"#\s*([A-Za-z]\w*)\.([\w-]+)\s*:\s*(.*)")
ENERGY = re.compile(r"e|energy|energ|ev|e_ev|energy_ev", re.IGNORECASE)
# columns that are μ, the first that is there; then pairs of a signal and what it is divided by
ABSORPTION = ("mutrans", "mufluor", "mu", "xmu")
NORMALISED = ("normtrans", "normfluor", "norm")
TRANSMITTED, FLUORESCENT, INCIDENT = ("itrans", "i1", "it"), ("ifluor", "if", "iff"), ("i0", "io")
NEVER = re.compile(
    r"(i\d|io|it|if|iff|itrans|ifluor|irefer|mcs\d*|nbkg|bkg|flat|fbkg|nder|der|nsec|sec|pre_edge|post_edge|"
    r"stddev|counttime|time|theta|angle|signal|murefer|normrefer)$",
    re.IGNORECASE,
)


class XasError(ValueError):
    """A file that cannot be read as absorption spectra; the message names it and what was expected."""


@dataclass(frozen=True)
class MeasuredSpectrum:
    """A spectrum as it lies in a file.

    Attributes
    ----------
    name : str
        The sample, the column or the group; otherwise the file.
    energy_eV : (n,) float64
    mu : (n,) float64
        Absorption, any units.
    element, edge : str
        Empty where the file does not say.
    is_normalised : bool
        Whether the file says that `mu` has its background taken off and an edge step of 1.
    """

    name: str
    energy_eV: Float
    mu: Float
    element: str = ""
    edge: str = ""
    is_normalised: bool = False


@dataclass(frozen=True)
class _Table:
    """A column file: fields of its header, labels and units of its columns, (n, columns) numbers."""

    fields: dict[str, str]
    labels: tuple[str, ...]
    units: tuple[str, ...]
    values: Float


def column_spectra(text: str, path: Path) -> list[MeasuredSpectrum]:
    """Spectra of a column file.

    μ if a column is called so, else −ln(transmitted/incident) or fluorescence/incident, else every further
    column but those with detectors and derived quantities, named after the column.

    Parameters
    ----------
    text : str
        The file.
    path : Path
        For names and messages.

    Returns
    -------
    list of MeasuredSpectrum

    Raises
    ------
    XasError
        If there is no table or no column is known to be a spectrum.
    """
    return _spectra(_table(text, path), path)


def _table(text: str, path: Path) -> _Table:
    """Header and numbers; the header ends where the first line of numbers is."""
    header: list[str] = []
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith(("#", "%", ";", "!")):
            if not rows:
                header.append("#" + stripped[1:])
        elif stripped:
            try:
                rows.append([float(word) for word in stripped.replace(",", " ").split()])
            except ValueError:
                if rows:
                    raise XasError(f"{path}, line {number}: {stripped[:40]!r}; expected numbers") from None
                header.append("# " + stripped)
            else:
                if len(rows[-1]) != len(rows[0]):
                    raise XasError(
                        f"{path}, line {number}: {len(rows[-1])} numbers; expected {len(rows[0])} as before"
                    )
    if not rows or len(rows[0]) < 2:
        raise XasError(f"{path}: no table of numbers; expected energy in one column and data in others")
    fields = {
        f"{family}.{name}".lower(): value.strip()
        for family, name, value in (m.groups() for m in map(FIELD.match, header) if m)
    }
    return _Table(fields, *_columns(header, fields, len(rows[0])), np.array(rows))


def _columns(
    header: list[str], fields: dict[str, str], count: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Labels and units from ``Column.N`` fields, else from the last line of the header, else none."""
    declared = [fields.get(f"column.{i}", "").split("||")[0].split() for i in range(1, count + 1)]
    if any(declared):
        return tuple(words[0] if words else "" for words in declared), tuple(
            words[1] if len(words) > 1 else "" for words in declared
        )
    last = next((line.lstrip("# ").split() for line in reversed(header) if line.strip("#- =")), [])
    labels = tuple(last) if len(last) == count else ("",) * count
    return labels, ("",) * count


def _spectra(table: _Table, path: Path) -> list[MeasuredSpectrum]:
    labels = [label.lower() for label in table.labels]
    place = next((i for i, label in enumerate(labels) if ENERGY.fullmatch(label)), 0)
    energy = table.values[:, place] * _energy_unit(table, place, path)
    element, edge = (table.fields.get(f"element.{name}", "") for name in ("symbol", "edge"))
    columns = {label: table.values[:, i] for i, label in enumerate(labels) if label and i != place}
    sample = table.fields.get("sample.name") or path.stem
    mu, ready = _absorption(columns), "normalized" in table.fields.get("demeter.output_filetype", "")
    if mu is not None:
        return [MeasuredSpectrum(sample, energy, mu, element, edge)]
    mu = _first(columns, NORMALISED)
    if mu is not None:
        return [MeasuredSpectrum(sample, energy, mu, element, edge, True)]
    others = [i for i, label in enumerate(labels) if i != place and not NEVER.match(label)]
    if not others:
        raise XasError(
            f"{path}: columns {', '.join(table.labels)}; expected one of "
            f"{', '.join(ABSORPTION + NORMALISED)}, or i0 with itrans or ifluor"
        )
    names = [table.labels[i] or (sample if len(others) == 1 else f"{sample} {i}") for i in others]
    return [
        MeasuredSpectrum(name, energy, table.values[:, i], element, edge, ready)
        for name, i in zip(names, others, strict=True)
    ]


def _absorption(columns: dict[str, Float]) -> Float | None:
    """μ of the columns that are known by name; None if there are none."""
    mu = _first(columns, ABSORPTION)
    if mu is not None:
        return mu
    incident = _first(columns, INCIDENT)
    transmitted, fluorescent = _first(columns, TRANSMITTED), _first(columns, FLUORESCENT)
    with np.errstate(divide="ignore", invalid="ignore"):
        if incident is not None and transmitted is not None:
            return -np.log(transmitted / incident)
        if incident is not None and fluorescent is not None:
            return fluorescent / incident
    return None


def _first(columns: dict[str, Float], names: tuple[str, ...]) -> Float | None:
    return next((columns[name] for name in names if name in columns), None)


def _energy_unit(table: _Table, place: int, path: Path) -> float:
    """eV per unit of the energy column."""
    unit, label = table.units[place].lower(), table.labels[place].lower()
    if unit in ("degrees", "deg", "degree") or label in ("angle", "theta"):
        raise XasError(f"{path}: first column is an angle; expected energies in eV or keV")
    if unit == "kev" or (not unit and table.values[:, place].max() < 120.0):  # no edge is that low in eV
        return 1e3
    return 1.0
