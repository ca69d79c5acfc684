"""What the components expect of their weights: any object with these attributes will do.

Matrices are stored as (out, in). A bias is None where the model has none.
"""

from collections.abc import Sequence
from typing import Protocol

from minillama.arrays import Array


class AttentionWeights(Protocol):
    @property
    def q_proj(self) -> Array: ...  # (H K, D)
    @property
    def k_proj(self) -> Array: ...  # (G K, D)
    @property
    def v_proj(self) -> Array: ...  # (G K, D)
    @property
    def o_proj(self) -> Array: ...  # (D, H K)
    @property
    def q_bias(self) -> Array | None: ...
    @property
    def k_bias(self) -> Array | None: ...
    @property
    def v_bias(self) -> Array | None: ...
    @property
    def o_bias(self) -> Array | None: ...


class MLPWeights(Protocol):
    @property
    def gate_proj(self) -> Array: ...  # (F, D)
    @property
    def up_proj(self) -> Array: ...  # (F, D)
    @property
    def down_proj(self) -> Array: ...  # (D, F)
    @property
    def gate_bias(self) -> Array | None: ...
    @property
    def up_bias(self) -> Array | None: ...
    @property
    def down_bias(self) -> Array | None: ...


class LayerWeights(AttentionWeights, MLPWeights, Protocol):
    @property
    def input_norm(self) -> Array: ...  # (D,)
    @property
    def post_attention_norm(self) -> Array: ...  # (D,)


class Rows(Protocol):
    """A matrix of which some rows are wanted: an array, or one that is widened only where it is read."""

    def __getitem__(self, ids: Array) -> Array: ...


class DecoderWeights(Protocol):
    @property
    def embed_tokens(self) -> Rows: ...  # (V, D)
    @property
    def layers(self) -> Sequence[LayerWeights]: ...
    @property
    def norm(self) -> Array: ...  # (D,)


class CausalLMWeights(DecoderWeights, Protocol):
    @property
    def lm_head(self) -> Array: ...  # (V, D)
