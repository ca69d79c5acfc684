"""The Numba twins of model/: the same file names and formulas, written for the memory bus and the vector units."""
