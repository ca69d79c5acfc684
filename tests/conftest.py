"""Hypothesis, set so that a test run is the same everywhere: no deadline, no random choice of examples."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("tests.tokenizer.beside")  # which then shows what it has compared

settings.register_profile("minillama", max_examples=30, deadline=None, derandomize=True)
settings.load_profile("minillama")


@pytest.fixture(autouse=True, scope="session")
def nothing_compiled() -> Iterator[None]:
    """Engine auto takes what is best for a machine where no kernels have been compiled, whatever ran before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minillama.engines.maybe_compiled", lambda: False)
        yield
