"""Bluesky documents in, results out: sources, intake, pipeline, executors and sinks."""
