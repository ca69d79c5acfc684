"""Hugging Face's transformers with torch on the CPU."""

from __future__ import annotations

import inspect
import time
from pathlib import Path

import torch
import transformers

from minillama.arrays import Array

# What torch computes in, by minillama's names; it has no quantized model of its own, so the others are bfloat16
DTYPES = {"f64": torch.float64, "f32": torch.float32}


class Transformers:
    """The same checkpoint, read by transformers itself."""

    def __init__(self, path: Path, dtype: str, threads: int):
        torch.set_num_threads(threads)
        self.format = dtype if dtype in DTYPES else "bf16"
        kind = DTYPES.get(dtype, torch.bfloat16)
        self.model = transformers.LlamaForCausalLM.from_pretrained(path, dtype=kind).eval()
        takes = inspect.signature(self.model.forward).parameters
        self.cache_name = "cache" if "cache" in takes else "past_key_values"  # as it was called before 5.24
        self.version = f"{transformers.__version__}, torch {torch.__version__}"

    def start(self, rows: int, room: int) -> None:
        self.cache = transformers.DynamicCache()

    def prefill(self, ids: Array) -> float:
        with torch.inference_mode():
            tokens = torch.from_numpy(ids)
            begin = time.perf_counter()
            self.output = self.model(tokens, **{self.cache_name: self.cache}, use_cache=True, logits_to_keep=1)
            return time.perf_counter() - begin

    def decode(self, ids: Array) -> float:
        return self.prefill(ids[:, None])

    def cut(self, length: int) -> None:
        self.cache.crop(length - self.cache.get_seq_length())  # below 0: so many from the end

    def logits(self) -> Array:
        logits: Array = self.output.logits[:, -1].float().numpy()
        return logits
