"""Hypothesis, set so that a test run is the same everywhere: no deadline, no random choice of examples."""

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("tests.tokenizer.beside")  # which then shows what it has compared

settings.register_profile("minillama", max_examples=30, deadline=None, derandomize=True)
settings.load_profile("minillama")
