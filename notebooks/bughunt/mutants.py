"""Thirty models, each wrong in one way. To read on is to skip the hunt: the answers are here, one after the other.

Each is the healthy model with one step done differently, under the number that the course knows it by.
"""

from typing import Any

import numpy as np

from bughunt.model import Model
from minillama.model.heads import cross_entropy
from minillama.model.mlp import gelu
from minillama.model.norm import rms_norm
from minillama.model.ops import softmax
from minillama.model.rope import rotate

COUNT = 30


def mutant(number: int) -> Model:
    """The mutant of a number from 1 to 30: to be asked what the healthy model can be asked. ValueError for others."""
    if not isinstance(number, int) or not 1 <= number <= COUNT:
        raise ValueError(f"there are mutants 1 to {COUNT}, not {number!r}")
    kind: type[Model] = globals()[f"M{number:02}"]
    return kind(f"mutant {number}")


class M01(Model):
    def _scale(self) -> float:
        return 1.0


class M02(Model):
    def _act(self, gate: Any) -> Any:
        return gelu(gate)


class M03(Model):
    def _positions(self, start: int, T: int) -> Any:
        return np.arange(T) + max(start - 1, 0)


class M04(Model):
    def encode(self, text: str) -> list[int]:
        return [self.config.bos_token_id, *super().encode(text)]


class M05(Model):
    def loss(self, ids: np.ndarray) -> float:
        logits = self(ids)
        return cross_entropy(logits.reshape(-1, logits.shape[-1]), ids.reshape(-1))


class M06(Model):
    def _added(self, x: Any, new: Any) -> Any:
        return new


class M07(Model):
    def _visible(self, T: int, S: int) -> Any:
        return super()._visible(T, S) & (np.arange(S) != np.arange(S - T, S)[:, None])


class M08(Model):
    def decode(self, ids: Any) -> str:
        return "".join(super(M08, self).decode([index]) for index in ids)


class M09(Model):
    def _norm(self, x: Any, weight: Any) -> Any:
        return x / np.sqrt(np.sum(x * x, axis=-1, keepdims=True) + np.float32(self.config.rms_norm_eps)) * weight


class M10(Model):
    def _weight(self, layer: int, name: str) -> Any:
        other = {"mlp.gate_proj": "mlp.up_proj", "mlp.up_proj": "mlp.gate_proj"}
        return super()._weight(layer, other.get(name, name))


class M11(Model):
    def _depth(self) -> int:
        return super()._depth() - 1


class M12(Model):
    def _turned(self, q: Any, k: Any, v: Any, angles: Any) -> Any:
        return self._pairs(q, *angles), self._pairs(k, *angles), v

    def _pairs(self, x: Any, cos: Any, sin: Any) -> Any:
        cos, sin = cos[:, None], sin[:, None]
        a, b = x[..., ::2], x[..., 1::2]
        return np.stack((a * cos - b * sin, b * cos + a * sin), axis=-1).reshape(x.shape)


class M13(Model):
    def _warmed(self, z: Any, temperature: float) -> Any:
        p = softmax(z) / temperature
        return p / p.sum()


class M14(Model):
    def _last(self, x: Any) -> Any:
        return x


class M15(Model):
    def _weight(self, layer: int, name: str) -> Any:
        weight = super()._weight(layer, name)
        return weight.T if name == "self_attn.o_proj" else weight


class M16(Model):
    def _scale(self) -> float:
        return float(self.config.hidden_size**0.5)


class M17(Model):
    def _visible(self, T: int, S: int) -> Any:
        return np.arange(S) <= np.arange(S - T, S)[:, None] + 1


class M18(Model):
    def _penalized(self, z: Any, seen: Any, penalty: float) -> Any:
        return np.where(seen, z / penalty, z)


class M19(Model):
    def _frequencies(self) -> Any:
        return 500_000.0 ** (-np.arange(0, 1, 2 / self.config.head_dim))


class M20(Model):
    def _head(self, x: Any) -> Any:
        shape = (self.config.vocab_size, self.config.hidden_size)
        return x @ np.random.default_rng(20).normal(0, self.config.initializer_range, shape).astype(np.float32).T


class M21(Model):
    def _for_each_head(self, x: Any) -> Any:
        return np.tile(x, (1, self.config.num_attention_heads // self.config.num_key_value_heads, 1, 1))


class M22(Model):
    def _norm(self, x: Any, weight: Any) -> Any:
        return super()._norm(x - x.mean(axis=-1, keepdims=True), weight)


class M23(Model):
    def _turned(self, q: Any, k: Any, v: Any, angles: Any) -> Any:
        q, k, v = super()._turned(q, k, v, angles)
        return q, k, rotate(v, *angles)


class M24(Model):
    def _probs(self, scores: Any, visible: Any) -> Any:
        return softmax(np.where(visible, scores, -np.inf).swapaxes(2, 3)).swapaxes(2, 3)


class M25(Model):
    def _nucleus(self, p: Any, top_p: float) -> Any:
        order = np.argsort(-p, kind="stable")
        kept = p[order].cumsum() <= top_p
        kept[0] = True
        q = np.zeros_like(p)
        q[order[kept]] = p[order[kept]]
        return q / q.sum()


class M26(Model):
    def _second(self, x: Any, stream: Any) -> Any:
        return x


class M27(Model):
    def _angles(self, positions: Any) -> Any:
        cos, sin = super()._angles(positions)
        return cos, -sin


class M28(Model):
    def _norm(self, x: Any, weight: Any) -> Any:
        return rms_norm(x, weight, 1e-6)


class M29(Model):
    def _weight(self, layer: int, name: str) -> Any:
        weight = super()._weight(layer, name)
        if name != "self_attn.k_proj":
            return weight
        heads, width = self.config.num_attention_heads, self.config.head_dim
        pairs = weight.reshape(-1, 2, width // 2, weight.shape[1]).swapaxes(1, 2).reshape(heads, -1, 2, weight.shape[1])
        return pairs.swapaxes(1, 2).reshape(weight.shape)


class M30(Model):
    def _norm(self, x: Any, weight: Any) -> Any:
        rms = np.sqrt(np.mean(x * x, axis=-1, keepdims=True)) + np.float32(self.config.rms_norm_eps)
        return x / rms * weight
