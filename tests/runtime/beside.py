"""An engine of each kind on the same weights: NumPy in float64, with what a format rounds rounded, and the kernels."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import pytest

import minillama.model.attention
import minillama.model.engine
import minillama.model.mlp
from minillama.arrays import Array
from minillama.layout import GROUP, PACKED, QUANTIZED, rounded_up
from minillama.llama import LlamaForCausalLM
from minillama.model.cache import KVCache
from minillama.model.heads import lm_logits
from minillama.model.ops import linear
from minillama.runtime.engine import NumbaEngine
from minillama.runtime.model import FastModel
from minillama.runtime.packing import STORED, packed
from minillama.weights.formats import narrow, widen
from minillama.weights.names import EMBED_TOKENS
from minillama.weights.safetensors import ArrayTensor, Tensor
from tests.kernels.products import rounded
from tests.tiny import random_ids, tiny_model

# Formats of the weights, each with one of the cache
FORMS = {"f32": "f32", "f16": "f16", "bf16": "bf16", "bf16z": "bf16", "q8_0": "f16", "q4_0": "f16"}
# How far logits are from those of NumPy on the same rounded weights, with the same roundings in between, as parts of
# the largest:
#   f32         float32 rounds at 6e-8; sums of some dozen terms, two layers and a softmax make some 1e-6 of that
#   f16, bf16   keys and values are rounded, at 2 ** -11 and 2 ** -8 of their size. A number near the middle of two, a
#               seldom one, may be rounded to the other neighbour here, and scores of some 10 pass that on tenfold; but
#               it is one number of very many
#   q8_0, ...   so may one activation be, by a 127th of the largest of its group
TOLERANCE = {"f32": 1e-5, "f16": 2e-3, "bf16": 1e-2, "bf16z": 1e-2, **dict.fromkeys(QUANTIZED, 3e-2)}
ODD = {"hidden_size": 22, "intermediate_size": 35, "vocab_size": 37, "head_dim": 18}


def models(form: str, threads: int = 2, **overrides: Any) -> tuple[LlamaForCausalLM, FastModel]:
    """A model by NumPy in float64 and by the kernels, both with the weights that the format keeps."""
    return models_of(form, threads, json.dumps(overrides))


@functools.cache
def models_of(form: str, threads: int, overrides: str) -> tuple[LlamaForCausalLM, FastModel]:
    model = tiny_model(**json.loads(overrides))
    for name, tensor in list(model.weights.tensors.items()):
        if len(tensor.shape) == 2 and name != EMBED_TOKENS:
            model.weights.replace(name, in_format(tensor, form))
    return model, FastModel(model.config, model.weights.tensors, form, FORMS[form], threads)


def in_format(tensor: Tensor, form: str) -> Tensor:
    """A matrix with the numbers that a format has."""
    if form in PACKED:
        return packed(tensor, form)
    name = STORED[form]
    return ArrayTensor(widen(narrow(tensor.read(np.float32), name), name, np.float32))


def numba_engine(form: str, threads: int = 2, **overrides: Any) -> NumbaEngine:
    return NumbaEngine(models(form, threads, **overrides)[1])


class NumpyRounded:
    """The NumPy engine of a model, in float64, with activations, keys and values rounded as a format rounds them."""

    def __init__(self, form: str, **overrides: Any):
        self.form = form
        self.engine = models(form, **overrides)[0].new_engine()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.engine, name)

        def rounding(*args: Any) -> Any:
            with pytest.MonkeyPatch.context() as patch:
                append = KVCache.append
                patch.setattr(
                    KVCache, "append", lambda cache, layer, k, v: append(cache, layer, self.kept(k), self.kept(v))
                )
                for module in (minillama.model.attention, minillama.model.mlp):
                    patch.setattr(module, "linear", lambda x, w, b, parts=1: linear(self.read(x), w, b, parts))
                patch.setattr(minillama.model.engine, "lm_logits", lambda x, w: lm_logits(self.read(x), w))
                return method(*args)

        return rounding

    def kept(self, x: Array) -> Array:
        """Keys or values as they are cached."""
        name = STORED[FORMS.get(self.form, "f16")]
        return widen(narrow(x.astype(np.float32), name), name, np.float64)

    def read(self, x: Array) -> Array:
        """Activations as a product reads them."""
        if self.form not in QUANTIZED:
            return x
        width = x.shape[-1]
        rows = np.zeros((x.size // width, rounded_up(width, GROUP)))
        rows[:, :width] = x.reshape(-1, width)
        whole, scales = rounded(rows)
        return (whole * np.repeat(scales.astype(np.float64), GROUP, axis=1))[:, :width].reshape(x.shape)


def random_rows(seed: int, lengths: list[int]) -> list[list[int]]:
    return [random_ids(seed + i, length).tolist() for i, length in enumerate(lengths)]


def assert_near(form: str, ours: Array, theirs: Array) -> None:
    assert (ours.shape, ours.dtype) == (theirs.shape, np.float32)
    off = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert off <= TOLERANCE[form], f"off by {off}"


def assert_like_numpy(form: str, rows: list[list[int]], **overrides: Any) -> None:
    """A ragged batch: its prompts, and two more tokens for each."""
    ours, theirs = numba_engine(form, **overrides), NumpyRounded(form, **overrides)
    assert_near(form, ours.prefill(rows), theirs.prefill(rows))
    for step in range(2):
        ids = random_ids(90 + step, len(rows))
        assert_near(form, ours.decode(ids), theirs.decode(ids))
