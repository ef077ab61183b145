"""Which pixels count as fitted, and why the others do not."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from ptychrome.analysis.options import Options
from ptychrome.analysis.xanes import XanesFit
from ptychrome.schema import Flag


class MaskOptions(Options):
    """Which pixels count as fitted; the default follows the error of b2, `paper` is Δμt > σ.

    A pixel passes with Δμt ≥ `min_snr` σ, or with σ(b2) < `max_sigma_eV`; in either case its jump must
    exceed `floor_snr` times both σ and its own uncertainty, so that vacuum never passes.
    """

    min_snr: Annotated[float, Field(gt=0)] = 10.0
    max_sigma_eV: Annotated[float, Field(ge=0)] = 0.5
    floor_snr: Annotated[float, Field(ge=0)] = 4.0

    @classmethod
    def paper(cls) -> MaskOptions:
        """Δμt > σ and nothing else."""
        return cls(min_snr=1.0, max_sigma_eV=0.0, floor_snr=0.0)


def fit_flags(fit: XanesFit, sigma: ArrayLike, options: MaskOptions | None = None) -> NDArray[np.uint8]:
    """Why each pixel is missing, or that it is not.

    Parameters
    ----------
    fit : XanesFit
    sigma : float or (n_pixels,) float
        Noise of μt.
    options : MaskOptions, optional

    Returns
    -------
    (n_pixels,) uint8
        Values of `schema.Flag`; of several reasons the first in this order: no spectrum, undetermined, not
        converged, noisy.
    """
    options = options or MaskOptions()
    noise, jump = np.asarray(sigma, dtype=float), fit["b1"]
    floor = options.floor_snr * np.maximum(noise, fit.sigma("b1"))
    with np.errstate(invalid="ignore"):
        clear = (jump > floor) & (
            (jump >= options.min_snr * noise) | (fit.sigma("b2") < options.max_sigma_eV)
        )
    reasons = {
        Flag.NO_SPECTRUM: ~fit.measured,
        Flag.UNDETERMINED: ~np.isfinite(jump) | ~np.isfinite(fit["b2"]),
        Flag.NOT_CONVERGED: ~fit.converged,
        Flag.NOISY: ~clear,
    }
    return np.select(list(reasons.values()), list(reasons), Flag.FITTED).astype(np.uint8)


def fitted_mask(fit: XanesFit, sigma: ArrayLike, options: MaskOptions | None = None) -> NDArray[np.bool_]:
    """Pixels whose spectra carry a usable edge, (n_pixels,); see `fit_flags`."""
    return fit_flags(fit, sigma, options) == Flag.FITTED
