"""Bulk spectra that a command is given: read, normalised, on the energy scale that a foil tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ptychrome.analysis.bulk import BulkSpectrum, foil_offset
from ptychrome.analysis.scan import DataError
from ptychrome.callbacks.sources.xas import XasError, read_bulk, read_spectra
from ptychrome.profiles.errors import UserError


@dataclass(frozen=True)
class Standards:
    """Bulk spectra on a calibrated energy scale.

    Attributes
    ----------
    spectra : tuple of BulkSpectrum
    offset_eV, sigma_eV : float or None
        What a foil added to their energies, and its standard deviation; None: there was no foil.
    """

    spectra: tuple[BulkSpectrum, ...] = ()
    offset_eV: float | None = None
    sigma_eV: float | None = None


def read_standards(paths: Sequence[Path], foil: Path | None, edge_eV: float) -> Standards:
    """Read all spectra of files, and put them on the scale of a foil.

    Parameters
    ----------
    paths : sequence of Path
        XDI, Athena's columns and projects; all spectra of a file count.
    foil : Path or None
        Metal foil on their energy scale.
    edge_eV : float
        Tabulated edge.

    Raises
    ------
    UserError
        If a file cannot be read, or a spectrum cannot be used at this edge; names it.
    """
    try:
        spectra = tuple(spectrum for path in paths for spectrum in read_bulk(path, edge_eV))
        if foil is None:
            return Standards(spectra)
        found = read_spectra(foil)
    except XasError as error:
        raise UserError(str(error)) from None
    if len(found) != 1:
        raise UserError(f"{foil} holds {len(found)} spectra; expected that of one foil")
    try:
        offset_eV, sigma_eV = foil_offset(found[0].energy_eV, found[0].mu, edge_eV)
    except DataError as error:
        raise UserError(f"{foil}: {error}") from None
    return Standards(tuple(spectrum.shifted(offset_eV) for spectrum in spectra), offset_eV, sigma_eV)
