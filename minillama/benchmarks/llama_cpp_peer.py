"""llama.cpp through the low-level interface of llama-cpp-python; its settings are the defaults."""

from __future__ import annotations

import ctypes
from typing import Any

import llama_cpp

from minillama.benchmarks.gguf_peer import GGUFPeer, uses


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _no_log(level: int, text: bytes, data: Any) -> None:
    pass


class LlamaCpp(GGUFPeer):
    """A GGUF file, run by llama.cpp."""

    name, lib = "llama.cpp", llama_cpp

    def _be_quiet(self) -> None:
        self.lib.llama_log_set(_no_log, ctypes.c_void_p(0))

    def _version(self) -> str:
        return f"llama-cpp-python {self.lib.__version__} ({uses(self.lib.llama_print_system_info())})"

    def _forget(self) -> None:
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)

    def _forget_from(self, length: int) -> None:
        self.lib.llama_memory_seq_rm(self.lib.llama_get_memory(self.context), -1, length, -1)
