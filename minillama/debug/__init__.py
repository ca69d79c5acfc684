"""Finding out where two implementations differ: predictions, divergences."""
