"""A simulated beamline behind Channel Access: an IOC (caproto) that serves the twin."""
