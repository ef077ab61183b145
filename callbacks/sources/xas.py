"""Bulk absorption spectra from files of any kind that is known, as measured and normalised."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from ptychrome.analysis.bulk import BulkSpectrum, normalise_bulk
from ptychrome.analysis.scan import DataError
from ptychrome.callbacks.sources.athena_project import HEADER, project_spectra
from ptychrome.callbacks.sources.xas_columns import MeasuredSpectrum, XasError, column_spectra

__all__ = ["MeasuredSpectrum", "XasError", "read_bulk", "read_spectra"]

GZIP = b"\x1f\x8b"


def read_spectra(path: Path) -> list[MeasuredSpectrum]:
    """All absorption spectra of an XDI file, a column file or an Athena project.

    Parameters
    ----------
    path : Path

    Returns
    -------
    list of MeasuredSpectrum
        At least one.

    Raises
    ------
    XasError
        If the file cannot be read or holds no spectrum.
    """
    try:
        content = path.read_bytes()
        if content.startswith(GZIP):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise XasError(f"{path}: cannot be read ({error}); expected an XDI or Athena file") from None
    text = content.decode("utf-8", "replace")
    found = project_spectra(text, path) if HEADER in text[:500] else column_spectra(text, path)
    for spectrum in found:
        if np.isfinite(spectrum.mu).sum() < 2:
            raise XasError(f"{path}, {spectrum.name}: expected μ at two energies or more")
    return found


def read_bulk(path: Path, edge_eV: float) -> list[BulkSpectrum]:
    """All spectra of a file, normalised at an edge unless the file says that they are.

    Parameters
    ----------
    path : Path
    edge_eV : float
        Tabulated edge.

    Returns
    -------
    list of BulkSpectrum

    Raises
    ------
    XasError
        If the file cannot be read, or a spectrum cannot be normalised at this edge.
    """
    try:
        return [_bulk(spectrum, edge_eV) for spectrum in read_spectra(path)]
    except DataError as error:
        raise XasError(f"{path}: {error}") from None


def _bulk(spectrum: MeasuredSpectrum, edge_eV: float) -> BulkSpectrum:
    if spectrum.is_normalised:
        return BulkSpectrum.normalised_already(spectrum.energy_eV, spectrum.mu, name=spectrum.name)
    return normalise_bulk(spectrum.energy_eV, spectrum.mu, edge_eV, name=spectrum.name)
