"""ik_llama.cpp, a fork of llama.cpp that is faster on CPUs, through the functions that ik-llama-cpp-python binds."""

from __future__ import annotations

import ctypes
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

from ik_llama_cpp import _ctypes_api as api

from minillama.benchmarks.gguf_peer import GGUFPeer, uses

_WANTED = (
    "llama_backend_init", "llama_model_default_params", "llama_model_load_from_file", "llama_model_get_vocab",
    "llama_vocab_n_tokens", "llama_context_default_params", "llama_init_from_model", "llama_free", "llama_batch_init",
    "llama_batch_free", "llama_decode", "llama_get_logits_ith", "llama_kv_cache_clear",
)  # fmt: skip
_MESSAGE = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


def _function(name: str, result: Any, *arguments: Any) -> Any:
    """One that the library has and the package does not bind."""
    function = getattr(api._lib, name)
    function.restype, function.argtypes = result, arguments
    return function


_no_log = _MESSAGE(lambda level, text, data: None)
LIBRARY = SimpleNamespace(
    **{name: getattr(api, name) for name in _WANTED},
    llama_synchronize=_function("llama_synchronize", None, ctypes.c_void_p),
    llama_log_set=_function("llama_log_set", None, _MESSAGE, ctypes.c_void_p),
    llama_print_system_info=_function("llama_print_system_info", ctypes.c_char_p),
    llama_kv_cache_seq_rm=_function(
        "llama_kv_cache_seq_rm", ctypes.c_bool, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_int32
    ),
)


class IkLlamaCpp(GGUFPeer):
    """A GGUF file on the CPU, its tensors rearranged when it is loaded: the fastest that there is of it."""

    name, lib = "ik", LIBRARY

    def _be_quiet(self) -> None:
        self.lib.llama_log_set(_no_log, None)

    def _set_up(self, settings: Any) -> None:
        settings.n_gpu_layers, settings.repack_tensors, settings.use_mmap = 0, True, False

    def _set_up_cache(self, settings: Any, rows: int) -> None:
        settings.flash_attn = rows == 1  # 0.1.5 ends the process where one sequence does not see a whole block of keys

    def _version(self) -> str:
        told = uses(self.lib.llama_print_system_info())
        return f"ik-llama-cpp-python {version('ik-llama-cpp-python')}, repacked ({told})"

    def _forget(self) -> None:
        self.lib.llama_kv_cache_clear(self.context)

    def _forget_from(self, length: int) -> None:
        self.lib.llama_kv_cache_seq_rm(self.context, -1, length, -1)
