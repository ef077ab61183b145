"""What a reader may choose of a report, from the words of the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ptychrome.profiles.errors import UserError
from ptychrome.schema import MAPS

COMPOUNDS = {"V": ("Li10/7V6/7O2", "LiVO2", "LiVO3")}  # of the paper


@dataclass(frozen=True)
class Place:
    """Centre of a region of interest in the CXI frame; None: of every particle."""

    sample: str | None
    x_m: float
    y_m: float


@dataclass(frozen=True)
class ReportOptions:
    """Choices; each has a default that fits most results.

    Attributes
    ----------
    groups : mapping of str to tuple of str
        Samples of each state of preparation.
    clusters : int or None
        Number of states; None: that of the results.
    energy_eV : float or None
        Of the images; None: the highest measured.
    scales : mapping of str to (float, float)
        Colour scales of chemical maps, in their units.
    places : tuple of Place
        Regions of interest; empty: the thickest place of every state.
    compounds : tuple of str or None
        Whose Re[N_eff]/N_V are told for comparison; None: for vanadium those of the paper.
    bulk : tuple of Path
        Files of bulk spectra that are drawn beside those of the particles.
    foil : Path or None
        Spectrum of a metal foil on their energy scale.
    """

    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    clusters: int | None = None
    energy_eV: float | None = None
    scales: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    places: tuple[Place, ...] = ()
    compounds: tuple[str, ...] | None = None
    bulk: tuple[Path, ...] = ()
    foil: Path | None = None

    @classmethod
    def parse(
        cls,
        *,
        groups: Sequence[str] = (),
        clusters: int | None = None,
        energy_eV: float | None = None,
        scales: Sequence[str] = (),
        places: Sequence[str] = (),
        compounds: Sequence[str] | None = None,
        bulk: Sequence[Path] = (),
        foil: Path | None = None,
    ) -> ReportOptions:
        """From words such as "as-prepared=P1,P2", "n_eff_ratio=30,50" and "P1=1e-7,-2e-7".

        Raises
        ------
        UserError
            If one cannot be understood; names it and what was expected.
        """
        if clusters is not None and not 1 <= clusters <= 20:
            raise UserError(f"--clusters is {clusters}; expected a number from 1 to 20")
        if energy_eV is not None and not energy_eV > 0:
            raise UserError(f"--energy-eV is {energy_eV}; expected an energy in eV")
        return cls(
            dict(_group(word) for word in groups),
            clusters,
            energy_eV,
            dict(_scale(word) for word in scales),
            tuple(_place(word) for word in places),
            None if compounds is None else tuple(compounds),
            tuple(bulk),
            foil,
        )

    def compounds_of(self, element: str) -> tuple[str, ...]:
        """Compounds to compare with at an edge of this element."""
        return COMPOUNDS.get(element, ()) if self.compounds is None else self.compounds


def _group(word: str) -> tuple[str, tuple[str, ...]]:
    name, _, samples = word.partition("=")
    found = tuple(sample.strip() for sample in samples.split(",") if sample.strip())
    if not name.strip() or not found:
        raise UserError(f"--group {word!r}: expected NAME=SAMPLE,SAMPLE")
    return name.strip(), found


def _scale(word: str) -> tuple[str, tuple[float, float]]:
    name, _, limits = word.partition("=")
    numbers = _numbers(limits)
    if name.removesuffix("_sigma") not in MAPS or len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise UserError(f"--scale {word!r}: expected MAP=LOW,HIGH with MAP one of {', '.join(MAPS)}")
    return name, (numbers[0], numbers[1])


def _place(word: str) -> Place:
    sample, _, centre = word.rpartition("=")
    numbers = _numbers(centre)
    if len(numbers) != 2:
        raise UserError(f"--roi {word!r}: expected X_M,Y_M or SAMPLE=X_M,Y_M, metres")
    return Place(sample.strip() or None, *numbers)


def _numbers(text: str) -> list[float]:
    """Finite numbers between commas; none where it holds anything else."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return []
    return numbers if all(math.isfinite(number) for number in numbers) else []
