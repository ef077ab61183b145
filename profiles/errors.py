"""The one exception that ends a command with one clear line."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the user or of the surroundings; the message says what was expected and what to do."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of the way there: the message alone."""
        return [f"ptychrome: {self}"]
