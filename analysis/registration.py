"""Sub-pixel registration of the energies on the phase, whose contrast hardly changes across an edge."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.registration import phase_cross_correlation


def register(
    reference: NDArray[np.floating], moving: NDArray[np.floating], *, upsampling: int = 200
) -> tuple[float, float]:
    """Shift that brings one phase image onto another.

    Parameters
    ----------
    reference, moving : (ny, nx) float, rad
        Normalised phase images, zero in vacuum and outside the field.
    upsampling : int
        Inverse of the step of the search, 1/pixels.

    Returns
    -------
    (float, float)
        Rows and columns by which the content of `moving` must move, pixels.

    Notes
    -----
    Cross-correlation with an up-sampled matrix DFT: Guizar-Sicairos, Thurman & Fienup, Opt. Lett. 33,
    156 (2008), as in scikit-image.
    """
    taper = np.outer(np.hanning(reference.shape[0] + 2)[1:-1], np.hanning(reference.shape[1] + 2)[1:-1])
    taper = np.minimum(1, 4 * taper)
    shift, _, _ = phase_cross_correlation(
        reference * taper, moving * taper, upsample_factor=upsampling, normalization=None
    )
    return float(shift[0]), float(shift[1])
