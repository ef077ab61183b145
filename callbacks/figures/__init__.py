"""Figures of results: pages that are kept new while a scan runs, and the figures of a report.

Figures are objects of their own (no pyplot), so that any thread may draw.
"""
