"""What every comparison with llama.cpp needs."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(autouse=True, scope="session")
def plain_buffers() -> Any:
    """llama.cpp without its special buffers: weights are multiplied as they lie in the file. Its form for AMX ends the
    process on virtual machines that show AMX and do not permit it."""
    llama_cpp = pytest.importorskip("llama_cpp")
    defaults = llama_cpp.llama_model_default_params

    def plain() -> Any:
        settings = defaults()
        settings.use_extra_bufts = False
        return settings

    with pytest.MonkeyPatch.context() as patch:
        for module in (llama_cpp, llama_cpp.llama_cpp):
            patch.setattr(module, "llama_model_default_params", plain)
        yield
