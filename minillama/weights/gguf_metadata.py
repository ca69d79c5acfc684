"""The metadata of a GGUF file that is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from minillama.config import LlamaConfig
from minillama.vocabulary import UNUSED, Vocabulary
from minillama.weights.gguf_special import END_OF_MESSAGE, ENDS_OF_TURNS, known_ends


def filled_up(vocabulary: Vocabulary, rows: int) -> Vocabulary:
    """The vocabulary with a piece for every row of the weights. ValueError if it has more."""
    size = len(vocabulary.pieces)
    if size > rows:
        raise ValueError(f"the tokenizer has {size} pieces and the model only {rows}: name the model's own tokenizer")
    more = range(size, rows)
    return replace(
        vocabulary,
        pieces=[*vocabulary.pieces, *(f"[PAD{index}]" for index in more)],
        types=[*vocabulary.types, *(UNUSED for _ in more)],
        scores=[*vocabulary.scores, *(0.0 for _ in more)] if vocabulary.scores else [],
    )


def add_settings(gguf: Any, writer: Any, config: LlamaConfig, format: str, title: str, quantized: bool) -> None:
    """What the file is, and the settings that make the config. format: of most matrices. quantized: whether any is."""
    writer.add_type("model")
    writer.add_name(title)
    mixture = f"{format}_M" if format in ("Q4_K", "Q5_K") else format  # as the usual mixtures of these are called
    writer.add_file_type(gguf.LlamaFileType[f"{'ALL' if format == 'F32' else 'MOSTLY'}_{mixture}"])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if quantized:
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    if config.rope_type in ("linear", "yarn"):
        _add_scaling(gguf, writer, config)


def _add_scaling(gguf: Any, writer: Any, config: LlamaConfig) -> None:
    scaling = config.rope_scaling or {}
    original = config.original_max_position_embeddings
    factor = scaling.get("factor") or config.max_position_embeddings / original
    writer.add_rope_scaling_type(gguf.RopeScalingType[config.rope_type.upper()])
    writer.add_rope_scaling_factor(factor)
    if config.rope_type == "yarn":
        writer.add_rope_scaling_orig_ctx_len(original)


def add_vocabulary(writer: Any, config: LlamaConfig, vocabulary: Vocabulary | None, ends: Sequence[int]) -> None:
    """The pieces and how they are used; without any, llama.cpp takes ids only. ends: the ids that end an answer."""
    for name, index in special_ids(config, vocabulary, ends).items():
        if index is not None:
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", index)
    if vocabulary is None:
        writer.add_tokenizer_model("no_vocab")
        return
    writer.add_tokenizer_model(vocabulary.kind)
    writer.add_tokenizer_pre(vocabulary.pre or "default")
    writer.add_token_list(vocabulary.pieces)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.types)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.kind == "llama":
        writer.add_add_space_prefix(vocabulary.space_prefix)
    for flag, add in ((vocabulary.add_bos, writer.add_add_bos_token), (vocabulary.add_eos, writer.add_add_eos_token)):
        if flag is not None:
            add(flag)
    template = vocabulary.chat_template
    if template is not None:
        named = template if isinstance(template, str) else [{"name": n, "template": t} for n, t in template.items()]
        writer.add_chat_template(named)


def special_ids(config: LlamaConfig, vocabulary: Vocabulary | None, ends: Sequence[int]) -> dict[str, int | None]:
    """The special ids by GGUF's names: those of the vocabulary, else of the config.

    Of the ids that end an answer, the vocabulary's own is eos. A file names two more, eot and eom; those that llama.cpp
    knows by their text come last, as they need not be named. ValueError where there are more.
    """
    bos, pad = config.bos_token_id, config.pad_token_id
    ends = [index for index in ends if 0 <= index < config.vocab_size]  # others are never drawn
    eos = next(iter(ends), None)
    unk = None
    pieces: Sequence[str] = ()
    if vocabulary is not None:
        bos, unk, pad = vocabulary.bos, vocabulary.unk, vocabulary.pad
        eos = eos if vocabulary.eos is None else vocabulary.eos
        pieces = vocabulary.pieces
    by_text = known_ends(pieces)
    others = [index for index in dict.fromkeys(ends) if index != eos]
    unnamed = [index for index in others if index not in by_text]
    if len(unnamed) > 2:
        raise ValueError(
            f"llama.cpp would not end at {', '.join(map(str, unnamed[2:10]))}: a GGUF file names three ends, and "
            "others are known by their text; leave some out of eos_token_id"
        )
    texts = {index: pieces[index] for index in others if index in by_text}
    eot = next((index for index, text in texts.items() if text in ENDS_OF_TURNS), None)
    eom = next((index for index, text in texts.items() if text == END_OF_MESSAGE), None)
    if unnamed:
        eot, *rest = unnamed
        eom = rest[0] if rest else eom
    return {"bos": bos, "eos": eos, "unknown": unk, "padding": pad, "eot": eot, "eom": eom}
