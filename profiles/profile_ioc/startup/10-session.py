"""RunEngine with a memory, Tiled and live analysis; ``progress()`` tells how far the analysis is."""
# names from before: settings (00-settings.py)
# ruff: noqa: F821
# mypy: disable-error-code="name-defined, assignment"

from bluesky.utils import ProgressBarManager
from databroker import Broker

from ptychrome.profiles.interactive import (
    best_effort_callback,
    offer_magics,
    persistent_metadata,
    start_session,
)
from ptychrome.profiles.tiled_server import raw_container

session = start_session(settings, stream=settings.stream)
RE = session.RE
RE.md = persistent_metadata(session)
RE.waiting_hook = ProgressBarManager()
cat = session.client()
db = Broker(raw_container(cat))  # the same runs as databroker shows them: db[-1].table()
bec = best_effort_callback(RE)
progress, focus = session.progress, session.focus
offer_magics()  # %wa, %mov, %ct, …
