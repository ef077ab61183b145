"""Single exposures whose intensity a plan looks at: what the utilities of daily use have in common."""

import math
from typing import Any

from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import MsgGenerator

from ptychrome.plans.scan import find_frame_detector


class Transmission:
    """An area detector and the monitor upstream of the sample, as one measurement of absorption.

    Parameters
    ----------
    detectors : list
        As for `spectro_ptycho`; the area detector has a signal ``total``, the counts of a frame, and a
        monitor ``i0`` among its companions.

    Raises
    ------
    ValueError
        If there is no such detector.
    """

    def __init__(self, detectors: list[Any]) -> None:
        self.detector = find_frame_detector(detectors)
        self.readables = [*detectors, *self.detector.companions.monitors]
        monitors = {monitor.name: monitor for monitor in self.detector.companions.monitors}
        if "i0" not in monitors or not hasattr(self.detector, "total"):
            raise ValueError(
                f"{self.detector.name} has no signal 'total' or no monitor 'i0' among {sorted(monitors)}; "
                "expected both: the intensity behind and before the sample"
            )
        self.total_key, self.i0_key = self.detector.total.name, _only_key(monitors["i0"])

    def exposing(self, plan: MsgGenerator[None], exposure_s: float, md: dict[str, Any]) -> MsgGenerator[str]:
        """Run a plan as one run, with the shutter open; whatever happens, it ends with the shutter closed.

        Returns
        -------
        str
            uid of the run.

        Raises
        ------
        ValueError
            If the exposure is not a positive number.
        """
        if not (math.isfinite(exposure_s) and exposure_s > 0):
            raise ValueError(f"exposure_s is {exposure_s!r}; expected a positive number of seconds")
        shutter = self.detector.companions.shutter

        def move_shutter(state: str) -> MsgGenerator[None]:
            if shutter is not None:
                yield from bps.mv(shutter, state)

        def with_open_shutter() -> MsgGenerator[str]:
            yield from bps.mv(self.detector.exposure_time, exposure_s)
            yield from move_shutter("open")
            return (yield from bpp.stage_wrapper(bpp.run_wrapper(plan, md=md), [self.detector]))

        return (yield from bpp.finalize_wrapper(with_open_shutter(), lambda: move_shutter("closed")))

    def expose(self, moved: Any) -> MsgGenerator[float]:
        """One exposure and one event with it and the device that was moved.

        Returns
        -------
        float
            Absorbance −ln(behind / before the sample), up to a constant; NaN without beam.
        """
        yield from bps.checkpoint()
        reading = yield from bps.trigger_and_read([*self.readables, moved])
        total, i0 = reading[self.total_key]["value"], reading[self.i0_key]["value"]
        return -math.log(total / i0) if total > 0 and i0 > 0 else math.nan


def _only_key(monitor: Any) -> str:
    (key, *more) = monitor.describe()
    if more:
        raise ValueError(f"monitor {monitor.name} has the data keys {[key, *more]}; expected one")
    return str(key)
