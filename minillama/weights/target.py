"""What is to be written of a checkpoint: which tensors, in which format, under which config."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping

from minillama.config import LlamaConfig
from minillama.layout import COMPRESSED, MADE, PACKED
from minillama.weights.checkpoint import Checkpoint
from minillama.weights.mixed import matrix_forms, stored_format
from minillama.weights.names import EMBED_TOKENS, LM_HEAD, SCORE
from minillama.weights.quantized import PackedLater, PackedTensor, quantization_config
from minillama.weights.safetensors import Tensor
from minillama.weights.saving import main_dtype, written_bytes
from minillama.weights.streaming import ConvertedTensor

DTYPES = ("auto", "f32", "f16", "bf16", COMPRESSED, *MADE)
_ARCHITECTURES = {LM_HEAD: "LlamaForCausalLM", SCORE: "LlamaForSequenceClassification", None: "LlamaModel"}
log = logging.getLogger("minillama")


def named_for(checkpoint: Checkpoint, dtype: str) -> dict[str, Tensor]:
    """The tensors by the names that they are saved under. A tied head, which is the embedding, is left out, but where
    it is to be quantized: the embedding is not."""
    tensors = dict(checkpoint.tensors)
    embedding, lm_head = tensors[EMBED_TOKENS], tensors.get(LM_HEAD)
    tied = checkpoint.config.tie_word_embeddings
    if lm_head is not None and tied and is_packed(lm_head) and dtype not in ("auto", lm_head.dtype.lower()):
        lm_head = tensors[LM_HEAD] = embedding  # of which it was made
    if lm_head is embedding and (dtype not in PACKED or is_packed(embedding)):
        del tensors[LM_HEAD]
    return {name.removeprefix("" if checkpoint.head else "model."): tensor for name, tensor in tensors.items()}


def in_format(
    tensors: Mapping[str, Tensor], dtype: str, pack: Callable[[Tensor, str], PackedTensor]
) -> dict[str, Tensor]:
    """The same in a format of DTYPES. `pack` gets the matrices that kernels multiply by, not the embedding."""
    if dtype == "auto":
        return dict(tensors)
    made: dict[str, Tensor] = {}
    forms = matrix_forms(dtype, tensors) if dtype in PACKED else dict.fromkeys(tensors, dtype)
    for name, tensor in tensors.items():
        if name not in forms or tensor.dtype == forms[name].upper():
            made[name] = tensor
        elif dtype not in PACKED:
            made[name] = ConvertedTensor(tensor, dtype.upper(), name)
        else:
            made[name] = PackedLater(tensor, forms[name], name, pack)
    later = [tensor for tensor in made.values() if isinstance(tensor, PackedLater)]
    warn_of_loss(sum(stored_format(tensor.source).startswith("Q") for tensor in later))
    return made


def warn_of_loss(again: int) -> None:
    """A line where matrices are quantized that were quantized already."""
    if again:
        log.warning("%d matrices are quantized already and lose once more: convert what they were made of", again)


def is_packed(tensor: Tensor) -> bool:
    return tensor.dtype.lower() in PACKED


def true_config(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> LlamaConfig:
    """The config with what it says of the numbers and of the class made true, as open_checkpoint has done for the
    head."""
    stamp = {"torch_dtype": main_dtype(tensors), "architectures": [_ARCHITECTURES[checkpoint.head]]}
    fields = checkpoint.config.to_dict() | stamp
    fields.pop("quantization_config", None)
    forms = Counter(tensor.dtype.lower() for tensor in tensors.values() if is_packed(tensor))
    if forms:
        fields["quantization_config"] = quantization_config(forms.most_common(1)[0][0])
    return LlamaConfig.from_dict(fields)


def size_of(tensors: Mapping[str, Tensor]) -> str:
    """Their bytes, and the format that most of them are in."""
    sizes: Counter[str] = Counter()
    for name, tensor in tensors.items():
        sizes[tensor.dtype.lower()] += written_bytes({name: tensor})
    return f"{in_words(sizes.total())} in {sizes.most_common(1)[0][0]}"


def in_words(size: int) -> str:
    """Bytes as people count them."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
