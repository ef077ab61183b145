"""Stored measurements as Bluesky documents."""
