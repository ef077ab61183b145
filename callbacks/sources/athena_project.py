"""Athena project files, Perl data or JSON, whichever the version wrote (Demeter's manual: Project files)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ptychrome.callbacks.sources.xas_columns import MeasuredSpectrum, XasError

HEADER = "Athena project file"
STATEMENT = re.compile(r"^\s*[$@](old_group|args|x|y)\s*=\s*\(?(.*?)\)?;\s*$")
TOKEN = re.compile(r"""'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"|([\[{(])|([\]})])|([^\s,\[\](){}=>]+)""")
NOT_MU = ("is_chi", "is_rsp", "is_qsp", "is_pixel", "is_bkg", "is_xmudat")


def project_spectra(text: str, path: Path) -> list[MeasuredSpectrum]:
    """Spectra of a project, its energy shifts applied.

    Parameters
    ----------
    text : str
        The uncompressed file.
    path : Path
        For messages.

    Returns
    -------
    list of MeasuredSpectrum
        Groups that are not μ(E) are left out.

    Raises
    ------
    ptychrome.callbacks.sources.xas_columns.XasError
        If it cannot be understood or no group is μ(E).
    """
    try:
        groups = _json_groups(text) if text.lstrip().startswith("{") else _perl_groups(text)
        found = [_spectrum(*group) for group in groups if _is_mu(group[1])]
    except (ValueError, KeyError, TypeError) as error:
        raise XasError(f"{path}: not understood as an Athena project ({error})") from None
    if not found:
        raise XasError(f"{path}: no group of the project is μ(E); expected at least one")
    return found


def _is_mu(args: dict[str, Any]) -> bool:
    if str(args.get("datatype") or "xmu") not in ("xmu", "xanes"):
        return False
    return not any(str(args.get(name) or "0") not in ("0", "") for name in NOT_MU)


def _spectrum(key: str, args: dict[str, Any], x: list[Any], y: list[Any]) -> MeasuredSpectrum:
    energy, mu = np.array(x, dtype=float), np.array(y, dtype=float)
    if energy.shape != mu.shape:
        raise ValueError(f"group {key}: {energy.size} energies, {mu.size} values")
    element, edge = (str(args.get(name) or "").strip().capitalize() for name in ("bkg_z", "fft_edge"))
    shift = float(args.get("bkg_eshift") or 0.0)
    ready = str(args.get("is_nor") or "0") != "0"
    return MeasuredSpectrum(str(args.get("label") or key), energy + shift, mu, element, edge, ready)


def _json_groups(text: str) -> Iterator[tuple[str, dict[str, Any], list[Any], list[Any]]]:
    project = json.loads(text)
    keys = project.get("_____order") or [key for key in project if not key.startswith("_____")]
    for key in keys:
        group = project[key]
        yield key, dict(group.get("args", {})), group["x"], group["y"]


def _perl_groups(text: str) -> Iterator[tuple[str, dict[str, Any], list[Any], list[Any]]]:
    """Groups of Perl's Data::Dumper: one statement a line, ``[record]`` after each group."""
    statements: dict[str, list[Any]] = {}
    for line in text.splitlines():
        if line.startswith("[record]") and {"x", "y"} <= set(statements):
            args = statements.get("args", [])
            key = str(statements.get("old_group", ["group"])[0])
            yield key, dict(zip(args[::2], args[1::2], strict=False)), statements["x"], statements["y"]
            statements = {}
        elif match := STATEMENT.match(line):
            statements[match[1]] = _values(match[2])


def _values(text: str) -> list[Any]:
    """Perl's list of strings and numbers; nested lists come as lists."""
    stack: list[list[Any]] = [[]]
    for single, double, opening, closing, bare in (match.groups("") for match in TOKEN.finditer(text)):
        if opening:
            stack.append([])
        elif closing:
            inner = stack.pop()
            stack[-1].append(inner)
        elif bare:
            stack[-1].append(None if bare == "undef" else bare)
        else:
            stack[-1].append(re.sub(r"\\(.)", r"\1", single or double))
    return stack[0]
