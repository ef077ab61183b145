"""RunEngine, Tiled server and live analysis; ``progress()`` tells how far the analysis is."""
# names from before: settings (00-settings.py)
# ruff: noqa: F821
# mypy: disable-error-code=name-defined

from ptychrome.profiles.interactive import best_effort_callback, start_session

session = start_session(settings)
RE = session.RE
cat = session.client()
bec = best_effort_callback(RE)
progress = session.progress
