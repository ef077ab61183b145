"""The command: from results to a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ptychrome.profiles.report.content import assemble
from ptychrome.profiles.report.options import ReportOptions
from ptychrome.profiles.report.particles import read_particles
from ptychrome.profiles.report.sections import sections
from ptychrome.profiles.report.writing import PAGE, check_writable, write_report


def report(sources: Sequence[str], out: Path, options: ReportOptions | None = None) -> int:
    """Draw and write all that the results allow.

    Parameters
    ----------
    sources : sequence of str
        NeXus files of results, folders of them, or addresses of results in Tiled.
    out : Path
        Folder of the report.
    options : ReportOptions, optional

    Returns
    -------
    int
        Exit status, 0.

    Raises
    ------
    UserError
        If results cannot be read, options do not fit them, or the report cannot be written; then nothing is.
    """
    options = options or ReportOptions()
    check_writable(out)
    data = assemble(read_particles(sources, options.groups), options)
    title = "Chemical states of " + ", ".join(particle.label for particle in data.particles)
    write_report(out, title, list(sections(data)), data.notes)
    Console(stderr=True).print(f"{len(data.particles)} particles: {out / PAGE}", soft_wrap=True)
    return 0
