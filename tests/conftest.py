"""Hypothesis, set so that a test run is the same everywhere: no deadline, no random choice of examples."""

from hypothesis import settings

settings.register_profile("minillama", max_examples=30, deadline=None, derandomize=True)
settings.load_profile("minillama")
