"""Arrays in, arrays out: reconstruction, spectra and chemistry; knows nothing of Bluesky, Tiled or files."""
