"""What llama.cpp's evaluation callback shows, under its own names, beside a trace.

Runs where llama-cpp-python is installed (the peers extra); with MINILLAMA_PEERS=1 it is an error if that is missing.
"""

from __future__ import annotations

import ctypes
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.compare import main as compare
from minillama.convert import main as convert
from minillama.shipped import tale_model
from minillama.trace import main as trace
from tests.bad import Capture, command

if os.environ.get("MINILLAMA_PEERS") == "1":
    import llama_cpp  # it has to be there
else:
    llama_cpp = pytest.importorskip("llama_cpp")

IDS = [1, 346, 1565, 350, 28, 300, 17, 4000]
F32 = 0  # llama.cpp's numbers of its formats


@llama_cpp.llama_log_callback
def _no_log(level: int, text: bytes, data: Any) -> None:
    """llama.cpp tells a page about every model."""


def ggml() -> Any:
    """The library with the functions that look at a tensor."""
    folder = Path(llama_cpp.__file__).parent / "lib"
    library = ctypes.CDLL(str(next(file for file in sorted(folder.glob("*ggml-base.*")) if "lib" in file.name)))
    library.ggml_get_name.restype = ctypes.c_char_p
    library.ggml_get_data.restype = ctypes.c_void_p
    for name in ("ggml_get_name", "ggml_get_data"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    return library


def dumped(file: Path, theta: float = 0.0) -> dict[str, Array]:
    """Every float32 tensor of one pass: the last of a name under it, the first as NAME.first, as the mapping wants."""
    library, seen = ggml(), {}

    @llama_cpp.ggml_backend_sched_eval_callback
    def look(tensor: int, ask: bool, data: Any) -> bool:
        sides = (ctypes.c_int64 * 4).from_address(tensor + 16)  # after the format and the buffer
        strides = (ctypes.c_size_t * 4).from_address(tensor + 48)
        form = ctypes.c_int32.from_address(tensor).value
        in_order = list(strides) == [4, *(4 * int(n) for n in np.cumprod(sides)[:3])]
        if not ask and form == F32 and in_order:
            name = library.ggml_get_name(tensor).decode()
            numbers = ctypes.string_at(library.ggml_get_data(tensor), 4 * int(np.prod(sides)))
            array = np.frombuffer(numbers, np.float32).reshape([n for n in sides if n > 1][::-1])
            seen.setdefault(f"{name}.first", array)
            seen[name] = array
        return True

    llama_cpp.llama_log_set(_no_log, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    settings = llama_cpp.llama_model_default_params()
    settings.n_gpu_layers = 0
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), settings)
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx, settings.n_threads, settings.flash_attn_type = 256, 1, 0
    settings.type_k = settings.type_v = F32
    settings.cb_eval, settings.rope_freq_base = look, theta
    context = llama_cpp.llama_init_from_model(model, settings)
    batch = llama_cpp.llama_batch_init(len(IDS), 0, 1)
    batch.n_tokens = len(IDS)
    for i, token in enumerate(IDS):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
        batch.seq_id[i][0] = 0
    assert llama_cpp.llama_decode(context, batch) == 0
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return seen


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("llama.cpp")
    assert convert([str(tale_model()), str(place / "tale.gguf"), "--dtype", "f32"]) == 0
    assert trace(["--ids", ",".join(map(str, IDS)), "--out", str(place / "ours")]) == 0
    return place


def told(folder: Path, tensors: dict[str, Array], status: int, capfd: Capture) -> dict[str, Any]:
    np.savez(folder / "theirs.npz", **tensors)
    done = command(capfd, folder / "ours", folder / "theirs.npz", "--map", "llama.cpp", "--json", run=compare)
    assert (done.status, done.err) == (status, "")
    return dict(json.loads(done.out))


def test_all_of_its_tensors_agree(folder: Path, capfd: Capture) -> None:
    result = told(folder, dumped(folder / "tale.gguf"), 0, capfd)
    assert len(result["rows"]) == 105  # every intermediate there is
    assert result["only_b"] == []


def test_another_theta_is_found(folder: Path, capfd: Capture) -> None:
    result = told(folder, dumped(folder / "tale.gguf", theta=500000.0), 1, capfd)
    assert result["first"]["name"] == "model.layers.0.self_attn.q_rope"
    assert result["findings"][0]["cause"] == "rope: theta is 500000 and not 10000"
