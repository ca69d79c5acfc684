"""Tensors with names other than Hugging Face's for LLaMA: which project they are from, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable

# How some tensor of the model is named, and what is said; the first that is found counts
_KNOWN = {
    r"lora_[AB]\b|lora_embedding_[AB]": "it is a LoRA adapter: name it with --lora, and its model with --weights",
    r"vision_tower|vision_model|multi_modal_projector": "it is a model that sees, and minillama has none",
    r"\.norm_1\.weight|mlp\.fc_1\.weight": "these are litgpt's names: `litgpt convert_from_litgpt` changes them",
    r"\bsa_norm\.scale|\bmlp_norm\.scale": "these are torchtune's names: have it save with FullModelHFCheckpointer",
    r"self_attention\.(linear_qkv|query_key_value)": "these are Megatron's names: its tools convert to Hugging Face's",
    r"pp_block\.": "these are nanotron's names: its examples/llama/convert_nanotron_to_hf.py makes Hugging Face's",
    r"\battn\.W_Q\b": "these are TransformerLens' names: get the model as Hugging Face keeps it",
    r"\bwte\.weight|\bln_1\.weight": "it is a GPT-2, and minillama runs LLaMAs",
    r"\bgpt_neox\.|decoder\.embed_positions|\bbert\.|\bmixer\.": "it is another kind of model than a LLaMA",
    r"qkv|W_pack|query_key_value|c_attn": "its q, k and v are one matrix, which is not read: get the model with three",
    r"gate_up|w1w3|w13": "its gate and up are one matrix, which is not read: get the model with two",
    r"experts|_exps\b|_shexp\b|block_sparse_moe|ffn_gate_inp": "it is a mixture of experts, which minillama has not",
}


def whose(names: Iterable[str]) -> str | None:
    """What to say of a model that has tensors of these names; None for none that are known here."""
    text = "\n".join(names)
    return next((what for pattern, what in _KNOWN.items() if re.search(pattern, text)), None)
