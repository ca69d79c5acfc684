"""The number format of every matrix in a GGUF file that is written."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from minillama.messages import listed, shown
from minillama.weights.gguf_blocks import BLOCKS
from minillama.weights.mixed import matrix_forms, stored_format
from minillama.weights.names import EMBED_TOKENS, LM_HEAD
from minillama.weights.safetensors import Tensor

# minillama's names of number formats -> those of GGUF
FORMATS = {
    "f32": "F32",
    "f16": "F16",
    "bf16": "BF16",
    "q8_0": "Q8_0",
    "q4_0": "Q4_0",
}
NEAREST = {"F64": "F32", "BF16Z": "BF16"}  # of formats that llama.cpp does not have or does not multiply by
_SIZES = {block.name: (block.size, block.nbytes) for block in BLOCKS.values()}


def own_format(tensor: Tensor) -> str:
    """The format that a matrix keeps in a GGUF file; blocks of another GGUF file stay what they are."""
    stored = stored_format(tensor)
    return NEAREST.get(stored, stored)


def matrix_formats(tensors: Mapping[str, Tensor], format: str | None) -> dict[str, str]:
    """GGUF's format of every matrix, by name: `format`, or without one each matrix's own. A tied head has none.

    A head of more bits than the Q4_0 matrices beside it keeps its format, for the reason that matrix_forms states.
    ValueError for a format that is not written, and for rows that are not whole blocks.
    """
    if format is not None and format not in FORMATS.values():
        raise ValueError(f"GGUF files are written in {listed(FORMATS.values())}, not in {shown(format)}")
    formats = {name: format or own_format(tensor) for name, tensor in tensors.items() if len(tensor.shape) == 2}
    head = EMBED_TOKENS if tensors[LM_HEAD] is tensors[EMBED_TOKENS] else LM_HEAD
    if head == EMBED_TOKENS:
        del formats[LM_HEAD]
    if format == "Q4_0" and matrix_forms("q4_0", tensors)[LM_HEAD] != "q4_0":
        formats[head] = own_format(tensors[LM_HEAD])
    for name, form in formats.items():
        width = tensors[name].shape[1]
        if width % _SIZES[form][0]:
            raise ValueError(f"{form} is for rows of whole groups of 32, and {_width(name)} is {width}: use bf16")
    return formats


def _width(name: str) -> str:
    """What the config calls the length of a matrix's rows."""
    if ".down_proj." in name:
        return "intermediate_size"
    return "num_attention_heads * head_dim" if ".o_proj." in name else "hidden_size"


def stored_size(shape: tuple[int, ...], format: str) -> int:
    """The bytes of a tensor in a format."""
    size, nbytes = _SIZES[format]
    return math.prod(shape) // size * nbytes


def main_of(tensors: Mapping[str, Tensor], formats: Mapping[str, str]) -> str:
    """The format that most of the numbers in matrices are in."""
    sizes: Counter[str] = Counter()
    for name, form in formats.items():
        sizes[form] += math.prod(tensors[name].shape)
    return sizes.most_common(1)[0][0]


def quantized_again(tensors: Mapping[str, Tensor], formats: Mapping[str, str]) -> int:
    """How many matrices are quantized already and get another format of that kind."""
    changed = [(own_format(tensors[name]), form) for name, form in formats.items()]
    return sum(own != form and own.startswith("Q") and form.startswith("Q") for own, form in changed)
