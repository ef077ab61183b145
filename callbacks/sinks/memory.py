"""Results in memory: the newest revision of each run, for scoring, tests and interactive use."""

from __future__ import annotations

from collections import Counter

from ptychrome.callbacks.results import Revision


class MemorySink:
    """Keeps the newest revision of each run.

    Attributes
    ----------
    latest : dict of str to Revision
        By raw uid, in the order the runs began.
    revisions : Counter of str
        How many revisions each run has had.
    """

    def __init__(self) -> None:
        self.latest: dict[str, Revision] = {}
        self.revisions: Counter[str] = Counter()

    def write(self, revision: Revision) -> None:
        """Take one revision."""
        self.latest[revision.raw_uid] = revision
        self.revisions[revision.raw_uid] += 1

    def close(self) -> None:
        """Nothing to finish; what was kept stays."""
