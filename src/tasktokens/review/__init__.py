"""Reviewing discovered labels: to and from annotation tools, on a page of our own, and what was decided."""
