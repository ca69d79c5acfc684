"""Adapters merged into a model's weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from minillama.config import LlamaConfig
from minillama.vocabulary import is_gguf
from minillama.weights import names
from minillama.weights.formats import QUANTS
from minillama.weights.gguf_file import read_gguf
from minillama.weights.gguf_tensors import TiledTensor
from minillama.weights.lora import Contents, MergedTensor, Pair, UnfitError
from minillama.weights.lora_gguf import lora_of_gguf
from minillama.weights.lora_peft import CONFIG, WEIGHTS, contents_of, open_peft, read_settings
from minillama.weights.safetensors import Tensor

log = logging.getLogger("minillama")


def merge_lora(
    place: Path, tensors: Mapping[str, Tensor], config: LlamaConfig, head: str | None
) -> tuple[dict[str, Tensor], LlamaConfig]:
    """A model's tensors with an adapter merged into them, and its config; nothing is computed before they are read.

    place: a folder as peft saves it, a file of it, or a GGUF file. head: which the model has; adapters of others are
    left out. Where the head is tied to the embedding, an adapter of either changes both, as in peft. An adapter that
    has whole tables of another size resizes the vocabulary. ValueError, OSError or FileNotFoundError that names the
    file.
    """
    if is_gguf(place):
        file, read = place, partial(lora_of_gguf, read_gguf(place), config)
    else:
        place = place.parent if place.name in (CONFIG, WEIGHTS) else place
        settings = read_settings(place / CONFIG)
        file, read = place / WEIGHTS, partial(contents_of, open_peft(place), settings)
    try:
        contents = read()
        return _merged(contents.without(*(name for name in names.HEADS if name != head)), tensors, config, head)
    except UnfitError as error:
        raise ValueError(f"{file}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{file} does not fit: {error}; name the adapter of this model") from None


def _merged(
    contents: Contents, tensors: Mapping[str, Tensor], config: LlamaConfig, head: str | None
) -> tuple[dict[str, Tensor], LlamaConfig]:
    merged, whole = dict(tensors), contents.bases | contents.trained
    if size := _new_size(contents, tensors, config):
        config = LlamaConfig.from_dict(config.to_dict(), vocab_size=size)
        merged |= _in_place_of(merged[names.EMBED_TOKENS], whole[names.EMBED_TOKENS], merged)
    expected = names.expected_shapes(config, head)
    for name, tensor in whole.items():
        if expected.get(name) != tensor.shape:
            raise ValueError(f"{name} is {tensor.shape} there and {expected.get(name, 'absent')} in the model")
    for name, tensor in contents.bases.items():
        merged |= _in_place_of(merged.get(name), tensor, merged) | {name: tensor}
    merged |= contents.trained
    for name, pair in contents.pairs.items():
        if name not in merged:
            raise ValueError(f"it adapts {name}, which the model has not")
        base = merged[name]
        merged |= _in_place_of(base, MergedTensor(_fit(base, name, pair), pair), merged)
    return merged, config


def _new_size(contents: Contents, tensors: Mapping[str, Tensor], config: LlamaConfig) -> int | None:
    """How large the adapter's tables make the vocabulary, if not as large as it is. UnfitError where one is lacking."""
    embed, head = names.EMBED_TOKENS, names.LM_HEAD
    whole, D = contents.bases | contents.trained, config.hidden_size
    shapes = [whole[name].shape for name in (embed, head) if name in whole]
    for pair in (contents.pairs[name] for name in (embed, head) if name in contents.pairs):
        shape = (*pair.b.shape[:1], *pair.a.shape[-1:])
        shapes.append(shape[::-1] if pair.transposed else shape)
    sizes = {shape[0] for shape in shapes if shape[1:] == (D,)}
    if not sizes - {config.vocab_size}:
        return None
    needed = {embed} if head not in tensors else {embed, head}
    if embed in contents.bases and tensors[embed] is tensors.get(head):
        needed = {embed}  # which is the head too
    if len(sizes) > 1 or not needed <= whole.keys():
        raise UnfitError(
            f"it was trained with a vocabulary of {max(sizes)} tokens, and the model has {config.vocab_size}; it does "
            f"not bring {' and '.join(sorted(needed))} of that size: resize the model (resize_token_embeddings, "
            "save_pretrained) and name that one"
        )
    log.warning(
        "the adapter makes the vocabulary %d tokens instead of %d: its tokenizer is the one to name (--tokenizer)",
        *sizes,
        config.vocab_size,
    )
    return sizes.pop()


def _in_place_of(old: Tensor | None, new: Tensor, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`new` under every name of `old`, of which a tied matrix has two."""
    return {name: new for name, tensor in tensors.items() if tensor is old}


def _fit(base: Tensor, name: str, pair: Pair) -> Tensor:
    """What B A is added to: the base, or of one in a GGUF file's blocks the floats that they stand for. ValueError
    where that cannot be done."""
    if isinstance(base, TiledTensor):
        base = base.tensor
    if base.dtype in QUANTS:
        raise UnfitError(
            f"{name} is in {base.dtype.lower()}, and an adapter is added to floats: name the weights in float32, "
            "float16 or bfloat16 that it was made of"
        )
    rank = pair.rank
    (rows, columns) = base.shape if len(base.shape) == 2 else (0, 0)
    wanted = ((rank, rows), (columns, rank)) if pair.transposed else ((rank, columns), (rows, rank))
    if (pair.a.shape, pair.b.shape) != wanted:
        raise ValueError(f"A {pair.a.shape} and B {pair.b.shape} of rank {rank} do not make {name} {base.shape}")
    return base
