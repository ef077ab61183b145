"""What a beamline knows of its detector, and what a detector says when it does not do what it should."""

from __future__ import annotations

from dataclasses import dataclass


class DetectorError(RuntimeError):
    """The detector did not do what it should; the message says what to look at."""


@dataclass(frozen=True)
class DetectorSite:
    """What a beamline knows of its detector.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns of a frame as they are written.
    pixel_size_m : (float, float)
        Per row and per column.
    distance_m : float
        Sample to detector.
    write_directory : str
        Where the frames go, as the file plugin's computer names it.
    read_directory : str
        The same folder as this computer and the analysis name it.
    roi_origin : (int, int) or None
        First row and column of the frame within the camera's; None: the camera's whole frame.
    mask_dataset : str
        Of the pixel mask in the files, "" where there is none (flagged pixels are left out anyhow).
    patience_s : float
        How long beyond the exposure a frame may take to be in the file.
    retries : int
        How often a frame that did not come is taken again, at the same position.
    bit_depth : int or None
        That the frames are expected to have, 8, 16 or 32; None: whatever the detector chooses. It chooses by
        exposure time and frame rate.
    """

    shape: tuple[int, int]
    pixel_size_m: tuple[float, float]
    distance_m: float
    write_directory: str
    read_directory: str
    roi_origin: tuple[int, int] | None = None
    mask_dataset: str = ""
    patience_s: float = 5.0
    retries: int = 1
    bit_depth: int | None = None

    @property
    def window(self) -> dict[str, str]:
        """For stream_resource: what counts of frames that are stored whole."""
        if self.roi_origin is None:
            return {}
        spans = zip(self.roi_origin, self.shape, strict=True)
        return {"slice": ",".join([":", *(f"{first}:{first + size}" for first, size in spans)])}
