"""Wires everything together: settings, sessions, servers and what the command line runs."""
