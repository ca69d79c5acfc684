"""Which format each matrix of a model gets, where a file mixes formats."""

from __future__ import annotations

import math
from collections.abc import Mapping

from minillama.layout import WHOLE
from minillama.weights.names import EMBED_TOKENS, SCORE
from minillama.weights.safetensors import Tensor


def stored_format(tensor: Tensor) -> str:
    """The format that a tensor is stored in, which may differ from what it is read as."""
    return str(getattr(tensor, "packed", tensor.dtype))


def main_format(tensors: Mapping[str, Tensor]) -> str:
    """The format that most of the numbers are stored in."""
    sizes: dict[str, int] = {}
    for tensor in tensors.values():
        form = stored_format(tensor)
        sizes[form] = sizes.get(form, 0) + math.prod(tensor.shape)
    return max(sizes, key=sizes.__getitem__)


def matrix_forms(form: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The format of every matrix that kernels multiply by, in a model that is to be in `form`; by name.

    All are in `form`, unless that is what most of the model is in already, and of whole numbers: then every matrix
    keeps its own, if that is of whole numbers too, and others are in 8 bits. Quantizers give more bits to what the text
    depends on most, the head first.
    """
    forms = {
        name: form
        for name, tensor in tensors.items()
        if len(tensor.shape) == 2 and name not in (EMBED_TOKENS, EMBED_TOKENS.removeprefix("model."), SCORE)
    }
    if form in WHOLE and main_format(tensors) == form.upper():
        own = {name: stored_format(tensors[name]).lower() for name in forms}
        return {name: kept if kept in WHOLE else "q8_0" for name, kept in own.items()}
    return forms
