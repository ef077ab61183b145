"""Where results go: memory, Tiled, NeXus."""
