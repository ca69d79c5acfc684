"""Thirty mutants of the tale model, each wrong in one way, for chapter 13.

from bughunt import healthy, mutant
suspect, reference = mutant(7), healthy()
"""

from bughunt.causes import CAUSES
from bughunt.comparing import TOLERANCE, error, errors, first_difference, record
from bughunt.model import Model as healthy  # noqa: N813  # called as mutant() is
from bughunt.mutants import COUNT, mutant
from bughunt.symptoms import PROMPT, SYMPTOMS, TEXT

__all__ = [
    "CAUSES",
    "COUNT",
    "PROMPT",
    "SYMPTOMS",
    "TEXT",
    "TOLERANCE",
    "error",
    "errors",
    "first_difference",
    "healthy",
    "mutant",
    "record",
]
