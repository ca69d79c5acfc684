"""Which format each matrix of a model gets, where a file mixes formats."""

from __future__ import annotations

import math
from collections.abc import Mapping

from minillama.weights.names import EMBED_TOKENS, LM_HEAD, SCORE
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

    All are in `form`, with one exception. A file in Q4_0 usually has a head of more bits, Q6_K or Q8_0: the logits
    depend on it most. Such a head is kept in q8_0; rounding it to 4 bits would multiply the error of the logits.
    """
    forms = {
        name: form
        for name, tensor in tensors.items()
        if len(tensor.shape) == 2 and name not in (EMBED_TOKENS, EMBED_TOKENS.removeprefix("model."), SCORE)
    }
    if form == "q4_0" and LM_HEAD in forms and main_format(tensors) == "Q4_0" != stored_format(tensors[LM_HEAD]):
        forms[LM_HEAD] = "q8_0"
    return forms
