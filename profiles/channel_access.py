"""How a process finds records. libca reads its variables when ophyd is first imported: call this before."""

from __future__ import annotations

import contextlib
import os
import sys

from ptychrome.profiles.beamline_settings import ChannelAccessSettings


def prepare_channel_access(settings: ChannelAccessSettings) -> None:
    """Set the search addresses of this process and the patience of its devices.

    Raises
    ------
    RuntimeError
        If ophyd is imported already and the addresses would change.
    """
    if settings.addresses:
        wanted = {
            "EPICS_CA_ADDR_LIST": " ".join(settings.addresses),
            "EPICS_CA_AUTO_ADDR_LIST": "YES" if settings.broadcast else "NO",
        }
        if "ophyd" in sys.modules and any(os.environ.get(name) != value for name, value in wanted.items()):
            raise RuntimeError("ophyd is imported already; prepare_channel_access must come before")
        os.environ |= wanted
    from ophyd.signal import EpicsSignalBase

    with contextlib.suppress(RuntimeError):  # signals exist already, with the defaults they have
        EpicsSignalBase.set_defaults(timeout=settings.timeout_s, connection_timeout=settings.timeout_s)
