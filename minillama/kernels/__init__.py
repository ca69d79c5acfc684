"""Numba twins of the hot functions."""
