"""Tests of :mod:`genrec.recipes`."""
