"""A report on the disk: one page, a PDF of its figures, its numbers; all of it or nothing."""

from __future__ import annotations

import base64
import csv
import io
import math
import re
import tempfile
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from ptychrome import __version__
from ptychrome.callbacks.figures.style import SUPERSCRIPTS, typeset
from ptychrome.profiles.errors import UserError
from ptychrome.profiles.report.content import Column, Illustration, Section, Table

PAGE, PDF = "report.html", "report.pdf"
CAPTION_IN, LINE_IN, CHARACTERS_PER_IN = 0.25, 0.19, 13.0  # under a figure of the PDF, in its 10 points


def check_writable(out: Path) -> None:
    """Refuse a folder that cannot take a report, before anything is computed.

    Raises
    ------
    UserError
        If it is a file, holds something else than a report, or cannot be made.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out is {out}, which is a file; expected a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / PAGE).is_file():
        raise UserError(
            f"--out is {out}, which holds other files; expected a new folder or an earlier report"
        )
    if not out.resolve().parent.is_dir():
        raise UserError(f"cannot make {out}: {out.parent} is not a folder")


def write_report(out: Path, title: str, sections: Sequence[Section], notes: Sequence[str]) -> None:
    """Write a page, a PDF and CSV files beside the folder, then move them into it.

    Parameters
    ----------
    out : Path
        Folder; made when it is not there, files of an earlier report are replaced.
    title : str
    sections : sequence of Section
    notes : sequence of str
        Shown above all.

    Raises
    ------
    UserError
        If it cannot be written; then nothing is.
    """
    items = [item for section in sections for item in section.items]
    figures = [item for item in items if isinstance(item, Illustration)]
    tables = [item for item in items if isinstance(item, Table)]
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.resolve().parent) as folder:
            for table in tables:
                _write_csv(Path(folder, f"{table.name}.csv"), table)
            _write_pdf(Path(folder, PDF), title, figures)
            Path(folder, PAGE).write_text(_html(title, sections, notes, tables), encoding="utf-8")
            out.mkdir(exist_ok=True)
            for file in Path(folder).iterdir():
                file.replace(out / file.name)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror or error}") from None


def _write_csv(path: Path, table: Table) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([column.name for column in table.columns])
        writer.writerows(table.rows)


def _write_pdf(path: Path, title: str, figures: Sequence[Illustration]) -> None:
    """A page for each figure, as large as it is, with its caption below."""
    with PdfPages(path, metadata={"Title": title, "Creator": f"ptychrome {__version__}"}) as pdf:
        for number, each in enumerate(figures, 1):
            width, height = each.figure.get_size_inches()
            text = f"Figure {number}. {each.title}. {each.caption}"
            lines = textwrap.wrap(text, int(CHARACTERS_PER_IN * (width - 0.6)))
            below = CAPTION_IN + LINE_IN * len(lines)
            note = each.figure.text(
                0.3 / width, -0.1 / height, typeset("\n".join(lines)), va="top", ha="left"
            )
            pdf.savefig(each.figure, bbox_inches=Bbox([[0, -below], [width, height]]))
            note.remove()


def _html(title: str, sections: Sequence[Section], notes: Sequence[str], tables: Sequence[Table]) -> str:
    environment = Environment(
        loader=PackageLoader("ptychrome.profiles", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": _cell, "picture": _picture, "symbols": _symbols}
    environment.tests["figure"] = lambda item: isinstance(item, Illustration)
    page: Any = environment.get_template("page.html.j2")
    return page.render(
        title=title, sections=sections, notes=notes, tables=tables, pdf=PDF, version=__version__,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )  # fmt: skip


def _symbols(text: str) -> Markup:
    """Subscripts of the symbols of the field."""
    return Markup(re.sub(r"N_(V|eff)", r"<i>N</i><sub>\1</sub>", str(escape(text))))


def _cell(value: object, column: Column) -> str:
    """A number as people read it; – where there is none."""
    if isinstance(value, str):
        return value if column.name != "raw_uid" else value[:8]
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number):
        return "–"
    if column.form == "d":
        return str(round(number))
    text = format(number * column.factor, column.form)
    mantissa, e, exponent = text.partition("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(SUPERSCRIPTS)}" if e else text.replace("-", "−")


def _picture(figure: Figure) -> str:
    """A figure as an address of its own content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
