"""What every comparison with llama.cpp needs."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

_called_to_the_end: list[Any] = []  # by llama.cpp, which holds no reference


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


@pytest.fixture(autouse=True, scope="session")
def no_log() -> None:
    """llama.cpp tells a page about every model."""
    llama_cpp = pytest.importorskip("llama_cpp")

    @llama_cpp.llama_log_callback
    def nothing(level: int, text: bytes, data: Any) -> None:
        pass

    _called_to_the_end.append(nothing)
    llama_cpp.llama_log_set(nothing, ctypes.c_void_p(0))
