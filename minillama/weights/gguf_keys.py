"""Which settings of a GGUF file are known: those that are read, and those that change nothing, at all or at one value.

Any other setting may mean that the model computes otherwise, and is refused.

Sources: the names in src/llama-arch.cpp of llama.cpp, what its load_hparams and src/models/llama.cpp take of them, and
the logits that it gives with each (tests/peers/test_gguf_keys_live.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# Read in gguf_model.py and gguf_rope.py, each behind "llama."
READ = {
    "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.layer_norm_rms_epsilon",
    "attention.value_length", "block_count", "context_length", "embedding_length", "expert_count",
    "feed_forward_length", "rope.dimension_count", "rope.freq_base", "rope.scale_linear", "rope.scaling.attn_factor",
    "rope.scaling.factor", "rope.scaling.original_context_length", "rope.scaling.type", "vocab_size",
}  # fmt: skip
# Notes, what embeddings are made by, and settings of what a LLaMA has none of: experts, windows, other norms
IDLE = {
    "attention.key_length_swa", "attention.layer_norm_epsilon", "attention.sliding_window_pattern",
    "attention.value_length_swa", "classifier.output_labels", "embedding_length_out",
    "expert_chunk_feed_forward_length", "expert_feed_forward_length", "expert_gating_func", "expert_group_count",
    "expert_group_scale", "expert_group_used_count", "expert_shared_count", "expert_shared_feed_forward_length",
    "expert_used_count", "expert_weights_norm", "expert_weights_scale", "experts_per_group",
    "interleave_moe_layer_step", "leading_dense_block_count", "moe_every_n_layers", "pooling_type",
    "rope.dimension_count_swa", "rope.freq_base_swa", "rope.scaling.finetuned", "tensor_data_layout",
}  # fmt: skip
# The values at which other settings say what a LLaMA does anyway
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.output_scale": (0, 1),
    "attention.scale": (0,),  # or what follows from the width of a head
    "attention.shared_kv_layers": (0,),
    "attention.sliding_window": (0,),  # or the context, or more
    "attention.temperature_length": (0,),
    "attention.value_scale": (0, 1),
    "attn_logit_softcapping": (0,),
    "embedding_scale": (0, 1),
    "final_logit_softcapping": (0,),
    "hidden_activation": ("silu", "swish"),
    "logit_scale": (0, 1),
    "nextn_predict_layers": (0,),
    "residual_scale": (0, 1),
    "rope.dimension_sections": (0,),
    "rope.scaling.alpha": (0,),
    # llama.cpp takes these of other architectures only: a LLaMA's are what they are usually
    "rope.scaling.yarn_attn_factor": (1,),
    "rope.scaling.yarn_beta_fast": (0, 32),
    "rope.scaling.yarn_beta_slow": (0, 1),
    "rope.scaling.yarn_ext_factor": (-1, 1),
    "rope.scaling.yarn_log_multiplier": (0,),
    "use_parallel_residual": (False,),
}


def check_keys(metadata: Mapping[str, Any], head_dim: int, context: int) -> None:
    """ValueError for a setting that may change the numbers in a way that is not computed here."""
    for key, value in metadata.items():
        name = key.removeprefix("llama.")
        if name == key or name in READ | IDLE:
            continue
        shown = repr(value)[:60].replace("\n", " ")
        if name not in NEUTRAL:
            raise ValueError(
                f"its metadata have {key[:100]} ({shown}), which is not known here and may change the numbers: get "
                "another file of the model"
            )
        neutral = NEUTRAL[name]
        if name == "attention.scale":
            neutral += (float(np.float32(head_dim**-0.5)),)
        items = value if isinstance(value, np.ndarray | list) else [value]
        wide = name == "attention.sliding_window" and all(isinstance(item, int) and item >= context for item in items)
        if not wide and not all(item in neutral for item in items):
            raise ValueError(
                f"its {key} is {shown}, and what that changes is not computed here: get another file of the model"
            )
