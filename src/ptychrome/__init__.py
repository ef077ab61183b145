"""ptychrome: live X-ray spectroscopic ptychography for Bluesky."""

__version__ = "0.1.0"
