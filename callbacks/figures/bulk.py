"""Bulk spectra beside those of a particle."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from ptychrome.analysis.bulk import BulkSpectrum
from ptychrome.callbacks.figures.style import LINES


def draw_bulk(
    ax: Axes, bulk: Sequence[BulkSpectrum], *, jump: float = 1.0, offset: float = 0.0, named: bool = True
) -> None:
    """Normalised bulk spectra over what is drawn already, as grey lines.

    Parameters
    ----------
    ax : Axes
        Of absorbance over photon energy; its limits along energy stay.
    bulk : sequence of BulkSpectrum
    jump, offset : float
        Edge jump and value below the edge of what they are compared with; those of a normalised spectrum by
        default.
    named : bool
        Whether they take part in a legend.
    """
    low, high = ax.get_xlim()
    for number, spectrum in enumerate(bulk):
        shown = (spectrum.energy_eV >= low) & (spectrum.energy_eV <= high)
        ax.plot(
            spectrum.energy_eV[shown], offset + jump * spectrum.normalised[shown],
            linestyle=LINES[number % len(LINES)], color=str(0.1 + 0.5 * number / len(bulk)), linewidth=1.0,
            label=spectrum.name if named else None, zorder=1.5,
        )  # fmt: skip
    ax.set_xlim(low, high)
