"""The healthy model: that of chapter 8, with a tap, a cache, the tokenizer, a loss and sampling.

Every step that a mutant may do in its own way is a method.
"""

from collections.abc import Iterable, Sequence
from functools import cache as once
from typing import Any

import numpy as np

from minillama import LlamaConfig, load_tokenizer, tale_model
from minillama.generation.sampling import keep_top_p, penalize_repetition, seen_ids
from minillama.model.attention import grouped_context, grouped_scores, merge_heads, split_heads, visible_keys
from minillama.model.cache import KVCache
from minillama.model.heads import causal_lm_loss
from minillama.model.mlp import silu
from minillama.model.norm import rms_norm
from minillama.model.ops import Tap, no_tap, scoped, softmax
from minillama.model.rope import Rotary, rotate
from minillama.weights import open_checkpoint


@once
def _tale_model() -> tuple[LlamaConfig, dict[str, np.ndarray], Any]:
    """Configuration, weights and tokenizer, read once for all mutants."""
    tensors = {name: tensor.read(np.float32) for name, tensor in open_checkpoint(tale_model()).tensors.items()}
    return LlamaConfig.from_pretrained(tale_model()), tensors, load_tokenizer(tale_model())


class Model:
    """The tale model in NumPy. Sizes are named as in docs/notation.md, and so are the arrays that a tap is shown."""

    def __init__(self, name: str = "the healthy model"):
        self.name = name
        self.config, self._tensors, self._tokenizer = _tale_model()

    def __repr__(self) -> str:
        return self.name

    # -- what can be asked of it ------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """The ids of a text, that of the beginning first."""
        return list(self._tokenizer.encode(text))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def new_cache(self) -> KVCache:
        return KVCache(self.config.num_hidden_layers)

    def __call__(self, ids: np.ndarray, cache: KVCache | None = None, tap: Tap = no_tap) -> np.ndarray:
        """Logits (B, T, V) of ids (B, T), which follow those in the cache, if there is one; it is extended.

        tap: called with the name and the array of every intermediate.
        """
        cache = self.new_cache() if cache is None else cache
        B, T = ids.shape
        positions = np.broadcast_to(self._positions(cache.length, T), (B, T))
        visible = self._visible(T, cache.length + T)
        cache.add_positions(positions)
        angles = self._angles(positions)
        x = self._tensors["model.embed_tokens.weight"][ids]
        tap("model.embed_tokens", x)
        for layer in range(self._depth()):
            x = self._block(x, layer, angles, visible, cache, scoped(tap, f"model.layers.{layer}."))
        x = self._last(x)
        tap("model.norm", x)
        logits = self._head(x)
        tap("logits", logits)
        return logits

    def loss(self, ids: np.ndarray) -> float:
        """Mean of -log p, in nats, of each of the ids (B, T) after those before it."""
        return causal_lm_loss(self(ids), ids)

    def probabilities(
        self,
        logits: np.ndarray,
        seen: Iterable[int] = (),
        penalty: float = 1.0,
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> np.ndarray:
        """What the next id is drawn with, (V,), from its logits (V,): penalty for seen ids, temperature, top-p."""
        z = np.asarray(logits, np.float64)
        z = self._penalized(z, seen_ids(np.array([*seen], int), len(z)), penalty)
        p = self._warmed(z, temperature)
        return self._nucleus(p, top_p)

    def generate(
        self,
        ids: Sequence[int],
        count: int,
        *,
        greedy: bool = True,
        seed: int = 0,
        use_cache: bool = True,
        **how: float,
    ) -> list[int]:
        """Up to `count` new ids after a list of ids, none after the end-of-text id. how: as for probabilities."""
        rng = np.random.default_rng(seed)
        cache = self.new_cache() if use_cache else None
        everything, fed = list(ids), list(ids)
        while len(everything) < len(ids) + count and everything[-1] != self.config.eos_token_id:
            logits = self(np.array([fed]), cache)[0, -1]
            p = self.probabilities(logits, everything, **how)
            everything.append(int(p.argmax() if greedy else rng.choice(len(p), p=p)))
            fed = everything[-1:] if use_cache else everything
        return everything[len(ids) :]

    # -- the decoder ------------------------------------------------------------------------------------------

    def _block(self, x: Any, layer: int, angles: Any, visible: Any, cache: KVCache, tap: Tap) -> Any:
        h = self._norm(x, self._weight(layer, "input_layernorm"))
        tap("input_norm", h)
        stream = self._added(x, self._attention(h, layer, angles, visible, cache, scoped(tap, "self_attn.")))
        tap("residual", stream)
        h = self._norm(self._second(x, stream), self._weight(layer, "post_attention_layernorm"))
        tap("post_attention_norm", h)
        stream = stream + self._mlp(h, layer, scoped(tap, "mlp."))
        tap("output", stream)
        return stream

    def _attention(self, h: Any, layer: int, angles: Any, visible: Any, cache: KVCache, tap: Tap) -> Any:
        K = self.config.head_dim
        q, k, v = (split_heads(h @ self._weight(layer, f"self_attn.{name}_proj").T, K) for name in "qkv")
        tap("q_proj", q)
        tap("k_proj", k)
        tap("v_proj", v)
        q, k, v = self._turned(q, k, v, angles)
        tap("q_rope", q)
        tap("k_rope", k)
        k, v = map(self._for_each_head, cache.append(layer, k, v))
        scores = grouped_scores(q, k) / self._scale()
        tap("scores", scores)
        probs = self._probs(scores, visible)
        tap("probs", probs)
        context = merge_heads(grouped_context(probs, v))
        tap("context", context)
        out = context @ self._weight(layer, "self_attn.o_proj").T
        tap("o_proj", out)
        return out

    def _mlp(self, h: Any, layer: int, tap: Tap) -> Any:
        gate, up = (h @ self._weight(layer, f"mlp.{name}_proj").T for name in ("gate", "up"))
        tap("gate", gate)
        tap("up", up)
        hidden = self._act(gate) * up
        tap("act", hidden)
        out = hidden @ self._weight(layer, "mlp.down_proj").T
        tap("down", out)
        return out

    # -- single steps -----------------------------------------------------------------------------------------

    def _weight(self, layer: int, name: str) -> Any:
        return self._tensors[f"model.layers.{layer}.{name}.weight"]

    def _depth(self) -> int:
        return self.config.num_hidden_layers

    def _positions(self, start: int, T: int) -> Any:
        return np.arange(start, start + T)

    def _visible(self, T: int, S: int) -> Any:
        return visible_keys(T, S)

    def _frequencies(self) -> Any:
        return self.config.rope_theta ** (-np.arange(0, 1, 2 / self.config.head_dim))

    def _angles(self, positions: Any) -> Any:
        return Rotary(self.config).angles(positions, self._frequencies(), np.float32)

    def _turned(self, q: Any, k: Any, v: Any, angles: Any) -> Any:
        return rotate(q, *angles), rotate(k, *angles), v

    def _norm(self, x: Any, weight: Any) -> Any:
        return rms_norm(x, weight, self.config.rms_norm_eps)

    def _added(self, x: Any, new: Any) -> Any:
        return x + new

    def _second(self, x: Any, stream: Any) -> Any:
        return stream

    def _for_each_head(self, x: Any) -> Any:
        return np.repeat(x, self.config.num_attention_heads // self.config.num_key_value_heads, axis=1)

    def _scale(self) -> float:
        return float(self.config.head_dim**0.5)

    def _probs(self, scores: Any, visible: Any) -> Any:
        return softmax(np.where(visible, scores, -np.inf))

    def _act(self, gate: Any) -> Any:
        return silu(gate)

    def _last(self, x: Any) -> Any:
        return self._norm(x, self._tensors["model.norm.weight"])

    def _head(self, x: Any) -> Any:
        return x @ self._tensors["model.embed_tokens.weight"].T

    def _penalized(self, z: Any, seen: Any, penalty: float) -> Any:
        return penalize_repetition(z, seen, penalty)

    def _warmed(self, z: Any, temperature: float) -> Any:
        return softmax(z / temperature)

    def _nucleus(self, p: Any, top_p: float) -> Any:
        with np.errstate(divide="ignore"):  # a probability of zero
            return softmax(keep_top_p(np.log(p), top_p)) if top_p < 1 else p
