"""More single faults planted in transformers' Llama, listed by somebody who had not read the hypotheses.

They are what people who port LLaMA to C, CUDA, JAX or write it for a course have done, as their issues tell: layouts
and conversions, remainders of tiles, races, caches, scalings, halves of optimizations. Compare is to find where, to say
why of most, and never to name a wrong cause.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any, NamedTuple

import pytest

from minillama.compare import main
from minillama.debug import record
from minillama.debug.capture import capture
from minillama.llama import LlamaForCausalLM
from minillama.shipped import tale_model
from tests.bad import Capture, command
from tests.oracle.planting import attend, attention_like, causal, layer_forward

torch = pytest.importorskip("torch", reason="needs the oracle extra")
transformers = pytest.importorskip("transformers", reason="needs the oracle extra")
if transformers.__version__.startswith("4."):
    pytest.skip("the faults are planted in transformers 5", allow_module_level=True)
modeling = pytest.importorskip("transformers.models.llama.modeling_llama")
# The libraries' own deprecation notes are not ours to fail on
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("default")]

F = torch.nn.functional
Patch = pytest.MonkeyPatch
L0, PROBS = "model.layers.0", "model.layers.0.self_attn.probs"
TALE = [1, 346, 1565, 350, 28, 300, 17, 4000, 12, 1565, 2047, 99, 5, 411, 300, 800]
PROMPT = len(TALE) - 2  # of the runs that decode
LEAST, OF = 24, 30  # of so many faults, the causes that must be named
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 128}  # fmt: skip
LONG = {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 16, "factor": 4.0,
        "short_factor": [1.0, 1.1, 1.3, 1.7, 2.0], "long_factor": [1.0, 1.5, 2.0, 3.0, 4.0]}  # fmt: skip
# Random models, by what is set otherwise than in `random_model`
CONFIGS: dict[str, dict[str, Any]] = {
    "biases": {"attention_bias": True, "mlp_bias": True},
    "llama3": {"rope_parameters": LLAMA3, "max_position_embeddings": 1024},
    "yarn": {"rope_parameters": YARN},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    "dynamic": {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
                "max_position_embeddings": 32},
    "longrope": {"rope_parameters": LONG, "max_position_embeddings": 64},
    "deep": {"num_hidden_layers": 12},
    "heads": {"num_key_value_heads": 8},
}  # fmt: skip


class Fault(NamedTuple):
    """plant: how it is planted; what it gives, the model is called with. tensor: where it shows first. word: is in the
    sentence that tells the cause. model: a name of CONFIGS, or the tale model. decode: it shows after the prompt."""

    plant: Callable[[Any, Patch], Any]
    tensor: str
    word: str
    model: str
    decode: bool


FAULTS: dict[str, Fault] = {}


def fault(tensor: str, word: str, model: str = "tale", decode: bool = False) -> Callable[[Any], Any]:
    def add(plant: Any) -> Any:
        FAULTS[plant.__name__] = Fault(plant, tensor, word, model, decode)
        return plant

    return add


def attention(patch: Patch, change: Callable[..., Any]) -> None:
    patch.setattr(modeling, "eager_attention_forward", attention_like(change))


def turning(patch: Patch, rotate: Callable[..., Any]) -> None:
    patch.setattr(modeling, "apply_rotary_pos_emb", rotate)


def linear(module: Any, forward: Callable[[Any, Any], Any]) -> None:
    """Have a projection compute something else of its weight and input."""
    module.forward = MethodType(lambda self, x: forward(self.weight, x), module)


def quantized(weight: Any, block: int, most: int) -> Any:
    """A weight that went through a format of so many steps on either side, a scale in float16 a block."""
    blocks = weight.reshape(-1, block)
    scale = blocks.abs().amax(-1, keepdim=True) / most
    return (torch.round(blocks / scale) * scale.half().float()).reshape(weight.shape)


# -- embedding ----------------------------------------------------------------------------------------------------


@fault("model.embed_tokens", "300")
def one_row_is_zero(model: Any, patch: Patch) -> Any:
    """As of a padding_idx, or a token that was added later."""
    model.model.embed_tokens.register_forward_hook(lambda module, ids, out: out * (ids[0] != 300)[..., None])


@fault("model.embed_tokens", "end-of-text")
def an_end_was_appended(model: Any, patch: Patch) -> Any:
    return {"input_ids": torch.tensor([[*TALE, 2]])}


@fault("model.embed_tokens", "row of 1999")
def ids_above_the_old_vocabulary(model: Any, patch: Patch) -> Any:
    model.model.embed_tokens.register_forward_hook(
        lambda module, ids, out: F.embedding(ids[0].clamp(max=1999), module.weight)
    )


# -- norms --------------------------------------------------------------------------------------------------------


@fault(f"{L0}.input_norm", "weight of the norm is left out")
def weight_of_norms_ignored(model: Any, patch: Patch) -> Any:
    patch.setattr(modeling.LlamaRMSNorm, "forward", lambda self, x: F.rms_norm(x, x.shape[-1:], None, 1e-5))


@fault(f"{L0}.input_norm", "sum of squares")
def sum_for_mean(model: Any, patch: Patch) -> Any:
    def forward(self: Any, x: Any) -> Any:
        return self.weight * x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-5)

    patch.setattr(modeling.LlamaRMSNorm, "forward", forward)


@fault(f"{L0}.input_norm", "each other's weight")
def norms_exchanged(model: Any, patch: Patch) -> Any:
    for layer in model.model.layers:
        a, b = layer.input_layernorm.weight, layer.post_attention_layernorm.weight
        a.data, b.data = b.data, a.data


@fault(f"{L0}.post_attention_norm", "left out")
def second_norm_missing(model: Any, patch: Patch) -> Any:
    for layer in model.model.layers:
        layer.post_attention_layernorm = torch.nn.Identity()


@fault("model.layers.1.input_norm", "layer before")
def norms_of_the_layer_before(model: Any, patch: Patch) -> Any:
    """A pointer that is advanced too late."""
    for layer, before in list(zip(model.model.layers[1:], model.model.layers, strict=False))[::-1]:
        layer.input_layernorm.weight.data = before.input_layernorm.weight.data


# -- projections --------------------------------------------------------------------------------------------------


@fault(f"{L0}.self_attn.q_proj", "bias of q_proj is left out", "biases")
def biases_ignored(model: Any, patch: Patch) -> Any:
    for layer in model.model.layers:
        for name in "qkvo":
            getattr(layer.self_attn, f"{name}_proj").bias.data.zero_()


@fault(f"{L0}.self_attn.o_proj", "bias of o_proj is left out", "biases")
def bias_behind_attention_ignored(model: Any, patch: Patch) -> Any:
    """As where only q, k and v were thought to have one."""
    for layer in model.model.layers:
        layer.self_attn.o_proj.bias = None


@fault(f"{L0}.mlp.gate", "gate_proj and up_proj are exchanged")
def gate_and_up_loaded_into_each_other(model: Any, patch: Patch) -> Any:
    for layer in model.model.layers:
        layer.mlp.gate_proj, layer.mlp.up_proj = layer.mlp.up_proj, layer.mlp.gate_proj


@fault("model.layers.2.self_attn.q_proj", "head 1 of self_attn.q_proj is zero")
def weights_of_one_head_are_zero(model: Any, patch: Patch) -> Any:
    model.model.layers[2].self_attn.q_proj.weight.data[64:128] = 0


@fault(f"{L0}.mlp.gate", "last 64")
def rows_of_the_last_tile_missing(model: Any, patch: Patch) -> Any:
    for layer in model.model.layers:
        layer.mlp.gate_proj.weight.data[704 // 128 * 128 :] = 0


@fault(f"{L0}.mlp.down", "last 64")
def sums_without_the_last_tile(model: Any, patch: Patch) -> Any:
    for layer in model.model.layers:
        linear(layer.mlp.down_proj, lambda w, x: x[..., : 704 // 128 * 128] @ w[:, : 704 // 128 * 128].T)


@fault(f"{L0}.self_attn.o_proj", "one token late")
def a_slice_is_the_last_tokens(model: Any, patch: Patch) -> Any:
    """As of a thread that is read before it is done."""

    def hook(module: Any, given: Any, out: Any) -> Any:
        late = out.roll(1, 1)
        return torch.cat((out[..., :192], late[..., 192:]), -1)

    for layer in model.model.layers:
        layer.self_attn.o_proj.register_forward_hook(hook)


@fault(f"{L0}.mlp.up", "(in, out)")
def up_read_as_in_by_out(model: Any, patch: Patch) -> Any:
    for layer in model.model.layers:
        linear(layer.mlp.up_proj, lambda w, x: x @ w.reshape(w.shape[::-1]))


@fault("model.layers.1.input_norm", "layer 0")
def every_layer_has_the_first_ones_weights(model: Any, patch: Patch) -> Any:
    for layer in model.model.layers[1:]:
        layer.load_state_dict(model.model.layers[0].state_dict())


@fault("model.layers.2.input_norm", "layer 10", "deep")
def layers_in_the_order_of_text(model: Any, patch: Patch) -> Any:
    layers = model.model.layers
    weights = [copy.deepcopy(layers[int(name)].state_dict()) for name in sorted(map(str, range(12)))]
    for layer, state in zip(layers, weights, strict=True):
        layer.load_state_dict(state)


@fault(f"{L0}.self_attn.q_proj", "q8_0")
def q_in_eight_bits(model: Any, patch: Patch) -> Any:
    for layer in model.model.layers:
        layer.self_attn.q_proj.weight.data = quantized(layer.self_attn.q_proj.weight.data, 32, 127)


@fault(f"{L0}.self_attn.q_proj", "row 10 is row 30 of q_proj", "heads")
def fused_projection_split_by_heads(model: Any, patch: Patch) -> Any:
    """Rows of q, k and v are under each other, and are taken for those of head after head."""
    for layer in model.model.layers:
        a = layer.self_attn
        fused = torch.cat([a.q_proj.weight.data, a.k_proj.weight.data, a.v_proj.weight.data])
        split = fused.view(8, 3, 10, -1)
        for i, projection in enumerate((a.q_proj, a.k_proj, a.v_proj)):
            projection.weight.data = split[:, i].reshape(80, -1).clone()


# -- rotary positions ---------------------------------------------------------------------------------------------


def whole_width(x: Any, woven: bool) -> Any:
    """Heads (B, H, T, K), turned as one of their whole width."""
    B, H, T, K = x.shape
    flat = x.transpose(1, 2).reshape(B, T, H * K)
    angles = torch.arange(T)[:, None] * 1e4 ** (-torch.arange(0, H * K, 2) / (H * K))
    pairs = flat.unflatten(-1, (-1, 2)) if woven else flat.unflatten(-1, (2, -1)).transpose(-1, -2)
    turned = torch.view_as_real(
        torch.view_as_complex(pairs.contiguous()) * torch.polar(torch.ones_like(angles), angles)
    )
    flat = turned.flatten(-2) if woven else turned.transpose(-1, -2).flatten(-2)
    return flat.view(B, T, H, K).transpose(1, 2)


@fault(f"{L0}.self_attn.q_rope", "before it is split")
def turned_before_the_split_into_heads(model: Any, patch: Patch) -> Any:
    turning(patch, lambda q, k, cos, sin: (whole_width(q, False), whole_width(k, False)))


@fault(f"{L0}.self_attn.q_rope", "before it is split")
def neighbours_turned_before_the_split(model: Any, patch: Patch) -> Any:
    turning(patch, lambda q, k, cos, sin: (whole_width(q, True), whole_width(k, True)))


@fault(f"{L0}.self_attn.q_rope", "each frequency twice")
def angles_of_neighbours_for_halves(model: Any, patch: Patch) -> Any:
    """cos and sin with each entry twice, as for neighbours, in rotate_half."""
    rotate = modeling.apply_rotary_pos_emb

    def angles(x: Any) -> Any:
        return x[..., : x.shape[-1] // 2].repeat_interleave(2, -1)

    turning(patch, lambda q, k, cos, sin: rotate(q, k, angles(cos), angles(sin)))


@fault(f"{L0}.self_attn.q_rope", "begin at 7")
def positions_from_seven(model: Any, patch: Patch) -> Any:
    return {"position_ids": torch.arange(7, 7 + len(TALE))[None]}


@fault(f"{L0}.self_attn.q_rope", "exponents")
def exponents_without_two(model: Any, patch: Patch) -> Any:
    model.model.rotary_emb.inv_freq = 1e4 ** (-torch.arange(32).float() / 64)


@fault(f"{L0}.self_attn.q_rope", "bfloat16")
def frequencies_cast_with_the_model(model: Any, patch: Patch) -> Any:
    model.model.rotary_emb.inv_freq = model.model.rotary_emb.inv_freq.bfloat16().float()


@fault(f"{L0}.self_attn.k_rope", "twice")
def keys_turned_twice(model: Any, patch: Patch) -> Any:
    rotate = modeling.apply_rotary_pos_emb
    turning(
        patch, lambda q, k, cos, sin: (rotate(q, k, cos, sin)[0], rotate(k, rotate(q, k, cos, sin)[1], cos, sin)[1])
    )


@fault(f"{L0}.self_attn.context", "values are rotated")
def values_turned_too(model: Any, patch: Patch) -> Any:
    rotate = modeling.apply_rotary_pos_emb

    def forward(module: Any, q: Any, k: Any, v: Any, scaling: float) -> Any:
        angles = torch.arange(q.shape[2])[:, None] * 1e4 ** (-torch.arange(0, 64, 2) / 64)
        cos, sin = (torch.cat((x, x), -1)[None] for x in (angles.cos(), angles.sin()))
        return attend(q, k, rotate(v, v, cos, sin)[1], scaling, causal(q.shape[2]), 2)

    attention(patch, forward)


@fault(f"{L0}.self_attn.q_rope", "between", "llama3")
def llama3_without_the_middle(model: Any, patch: Patch) -> Any:
    """Slow pairs divided, fast ones left, and none between."""
    rotary = model.model.rotary_emb
    own = 5e5 ** (-torch.arange(0, 10, 2).float() / 10)
    rotary.inv_freq = torch.where(128 * own / (2 * math.pi) < 1, own / 8, own)


@fault(f"{L0}.self_attn.q_rope", "attention factor", "yarn")
def yarn_without_its_factor(model: Any, patch: Patch) -> Any:
    model.model.rotary_emb.attention_scaling = 1.0


@fault(f"{L0}.self_attn.q_rope", "linearly by 4", "yarn")
def linear_for_yarn(model: Any, patch: Patch) -> Any:
    model.model.rotary_emb.inv_freq = 1e4 ** (-torch.arange(0, 10, 2).float() / 10) / 4
    model.model.rotary_emb.attention_scaling = 1.0


@fault(f"{L0}.self_attn.q_rope", "multiplied by the factor", "linear")
def linear_scaling_inverted(model: Any, patch: Patch) -> Any:
    model.model.rotary_emb.inv_freq *= 16


def fixed(model: Any, inv_freq: Any, factor: float = 1.0) -> None:
    """Frequencies that nothing changes."""

    def forward(self: Any, x: Any, position_ids: Any) -> Any:
        angles = position_ids[..., None].float() * inv_freq
        both = torch.cat((angles, angles), -1)
        return both.cos() * factor, both.sin() * factor

    model.model.rotary_emb.forward = MethodType(forward, model.model.rotary_emb)


@fault(f"{L0}.self_attn.q_rope", "dynamic scaling", "dynamic")
def dynamic_never_updated(model: Any, patch: Patch) -> Any:
    fixed(model, 1e4 ** (-torch.arange(0, 10, 2).float() / 10))


@fault(f"{L0}.self_attn.q_rope", "whole text", "dynamic")
def dynamic_by_the_whole_text(model: Any, patch: Patch) -> Any:
    """What transformers itself does: no fault of its own, and other numbers in one pass than token by token."""


@fault(f"{L0}.self_attn.q_rope", "short", "longrope")
def longrope_always_short(model: Any, patch: Patch) -> Any:
    rotary = model.model.rotary_emb
    inv_freq = 1e4 ** (-torch.arange(0, 10, 2).float() / 10) / torch.tensor(LONG["short_factor"])
    fixed(model, inv_freq, rotary.attention_scaling)


# -- attention ----------------------------------------------------------------------------------------------------


@fault(PROBS, "divided by K")
def scaled_twice(model: Any, patch: Patch) -> Any:
    for layer in model.model.layers:
        layer.self_attn.scaling **= 2


@fault(PROBS, "not see themselves")
def mask_hides_the_token_itself(model: Any, patch: Patch) -> Any:
    attention(patch, lambda module, q, k, v, scaling: attend(q, k, v, scaling, causal(q.shape[2], 0), 2))


@fault(PROBS, "0 before the softmax")
def masked_with_a_tiny_number(model: Any, patch: Patch) -> Any:
    """masked_fill with 1e-9 where -1e9 was meant."""

    def forward(module: Any, q: Any, k: Any, v: Any, scaling: float) -> Any:
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        scores = (q @ k.transpose(2, 3) * scaling).masked_fill(causal(q.shape[2]) < 0, 1e-9)
        return (scores.softmax(-1) @ v).transpose(1, 2), scores.softmax(-1)

    attention(patch, forward)


@fault(PROBS, "queries and keys are exchanged")
def queries_and_keys_exchanged(model: Any, patch: Patch) -> Any:
    def forward(module: Any, q: Any, k: Any, v: Any, scaling: float) -> Any:
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        probs = (k @ q.transpose(2, 3) * scaling + causal(q.shape[2])).softmax(-1)
        return (probs @ v).transpose(1, 2), probs

    attention(patch, forward)


@fault(PROBS, "8 tokens only")
def window_of_eight(model: Any, patch: Patch) -> Any:
    def forward(module: Any, q: Any, k: Any, v: Any, scaling: float) -> Any:
        T = q.shape[2]
        return attend(q, k, v, scaling, causal(T) + torch.full((T, T), -math.inf).tril(-8), 2)

    attention(patch, forward)


@fault(PROBS, "bfloat16")
def softmax_in_bfloat16(model: Any, patch: Patch) -> Any:
    def forward(module: Any, q: Any, k: Any, v: Any, scaling: float) -> Any:
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        probs = (q @ k.transpose(2, 3) * scaling + causal(q.shape[2])).bfloat16().softmax(-1).float()
        return (probs @ v).transpose(1, 2), probs

    attention(patch, forward)


@fault(f"{L0}.self_attn.context", "keys are averaged")
def keys_cached_as_values(model: Any, patch: Patch) -> Any:
    def forward(module: Any, q: Any, k: Any, v: Any, scaling: float) -> Any:
        return attend(q, k, k, scaling, causal(q.shape[2]), 2)

    attention(patch, forward)


@fault(f"{L0}.self_attn.context", "not rescaled")
def blocks_not_rescaled(model: Any, patch: Patch) -> Any:
    """A softmax over blocks of keys that forgets what it has, when the largest score changes; it has no
    probabilities to show."""

    def forward(module: Any, q: Any, k: Any, v: Any, scaling: float) -> Any:
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        scores = q @ k.transpose(2, 3) * scaling + causal(q.shape[2])
        top, total, out = torch.full((*q.shape[:3], 1), -math.inf), 0.0, 0.0
        for some, values in zip(scores.split(8, -1), v.split(8, 2), strict=True):
            top = torch.maximum(top, some.amax(-1, keepdim=True))
            weights = torch.exp(some - top)
            total, out = total + weights.sum(-1, keepdim=True), out + weights @ values
        return (out / total).transpose(1, 2), None

    attention(patch, forward)


@fault(f"{L0}.self_attn.context", "(K, H)")
def heads_woven(model: Any, patch: Patch) -> Any:
    def forward(module: Any, q: Any, k: Any, v: Any, scaling: float) -> Any:
        out, probs = attend(q, k, v, scaling, causal(q.shape[2]), 2)
        return out.transpose(2, 3).contiguous(), probs

    attention(patch, forward)


@fault(PROBS, "dropout")
def dropout_left_on(model: Any, patch: Patch) -> Any:
    def forward(module: Any, q: Any, k: Any, v: Any, scaling: float) -> Any:
        torch.manual_seed(3)
        probs = F.dropout(attend(q, k, v, scaling, causal(q.shape[2]), 2)[1], 0.1)
        return (probs @ v.repeat_interleave(2, 1)).transpose(1, 2), probs

    attention(patch, forward)


# -- the MLP and the stream ---------------------------------------------------------------------------------------


@fault(f"{L0}.mlp.act", "no activation")
def no_activation(model: Any, patch: Patch) -> Any:
    for layer in model.model.layers:
        layer.mlp.act_fn = torch.nn.Identity()


@fault(f"{L0}.mlp.act", "the activation is relu")
def relu_for_silu(model: Any, patch: Patch) -> Any:
    for layer in model.model.layers:
        layer.mlp.act_fn = torch.nn.ReLU()


@fault(f"{L0}.output", "about the MLP is missing")
def second_residual_missing(model: Any, patch: Patch) -> Any:
    def add(x: Any, h: Any, y: Any, second: bool = False) -> Any:
        return y if second else x + y

    patch.setattr(modeling.LlamaDecoderLayer, "forward", layer_forward(add))


@fault(f"{L0}.residual", "after its norm")
def attention_added_to_the_norm(model: Any, patch: Patch) -> Any:
    def add(x: Any, h: Any, y: Any, second: bool = False) -> Any:
        return x + y if second else h + y

    patch.setattr(modeling.LlamaDecoderLayer, "forward", layer_forward(add))


@fault(f"{L0}.residual", "bfloat16")
def stream_kept_in_bfloat16(model: Any, patch: Patch) -> Any:
    def add(x: Any, h: Any, y: Any, second: bool = False) -> Any:
        return (x + y).bfloat16().float()

    patch.setattr(modeling.LlamaDecoderLayer, "forward", layer_forward(add))


@fault(f"{L0}.post_attention_norm", "stream before attention")
def branches_in_parallel(model: Any, patch: Patch) -> Any:
    """As in GPT-J: both branches read the stream before the layer."""

    def forward(self: Any, hidden_states: Any, **named: Any) -> Any:
        x = hidden_states
        y = self.self_attn(hidden_states=self.input_layernorm(x), **named)[0]
        self.post_attention_layernorm._forward_pre_hooks.clear()  # the stream would be taken for the residual
        return x + y + self.mlp(self.post_attention_layernorm(x))

    patch.setattr(modeling.LlamaDecoderLayer, "forward", forward)


@fault("model.norm", "layer 5")
def last_layer_not_run(model: Any, patch: Patch) -> Any:
    model.model.layers = model.model.layers[:-1]
    model.model.config.num_hidden_layers = 5


@fault("model.layers.2.output", "layer 2 is run twice")
def a_layer_run_twice(model: Any, patch: Patch) -> Any:
    forward = modeling.LlamaDecoderLayer.forward

    def again(self: Any, hidden_states: Any, **named: Any) -> Any:
        out = forward(self, hidden_states, **named)
        return forward(self, out, **named) if self is model.model.layers[2] else out

    patch.setattr(modeling.LlamaDecoderLayer, "forward", again)


@fault(f"{L0}.mlp.down", "overflow")
def sums_overflow_float16(model: Any, patch: Patch) -> Any:
    """Accumulated times 65536, as scaled integers are, and then in float16."""
    for layer in model.model.layers:
        linear(layer.mlp.down_proj, lambda w, x: ((x * 2**16) @ w.T).half().float() / 2**16)


# -- the head -----------------------------------------------------------------------------------------------------


@fault("logits", "one token")
def logits_of_the_token_before(model: Any, patch: Patch) -> Any:
    model.lm_head.register_forward_hook(lambda module, given, out: out.roll(1, 1))


@fault("logits", "last 96")
def vocabulary_without_the_last_tile(model: Any, patch: Patch) -> Any:
    model.lm_head.register_forward_hook(lambda module, given, out: out * (torch.arange(4096) < 4000))


@fault("logits", "stands in the place of the head", "biases")
def tied_although_it_is_not(model: Any, patch: Patch) -> Any:
    model.lm_head.weight = model.model.embed_tokens.weight


@fault("logits", "bfloat16")
def head_in_bfloat16(model: Any, patch: Patch) -> Any:
    linear(model.lm_head, lambda w, x: (x.bfloat16() @ w.bfloat16().T).float())


# -- decoding -----------------------------------------------------------------------------------------------------

Q1, PROBS1 = f"step.1.{L0}.self_attn.q_rope", f"step.1.{PROBS}"


@fault(Q1, "anew", decode=True)
def positions_begin_anew(model: Any, patch: Patch) -> Any:
    return lambda cache, step: {"position_ids": torch.tensor([[0]])}


@fault(Q1, "one too low", decode=True)
def position_one_behind(model: Any, patch: Patch) -> Any:
    return lambda cache, step: {"position_ids": torch.tensor([[PROMPT + step - 2]])}


@fault(Q1, "one too high", decode=True)
def position_one_ahead(model: Any, patch: Patch) -> Any:
    return lambda cache, step: {"position_ids": torch.tensor([[PROMPT + step]])}


@fault(PROBS1, "key of the token before is overwritten", decode=True)
def new_keys_overwrite_the_last(model: Any, patch: Patch) -> Any:
    def before(cache: Any, step: int) -> Any:
        cache.crop(-1)
        return {"position_ids": torch.tensor([[PROMPT + step - 1]])}

    return before


@fault(PROBS1, "cached keys are turned again", decode=True)
def cached_keys_turned_again(model: Any, patch: Patch) -> Any:
    rotate = modeling.apply_rotary_pos_emb

    def before(cache: Any, step: int) -> Any:
        cos, sin = model.model.rotary_emb(torch.ones(1), torch.arange(cache.get_seq_length())[None])
        for layer in cache.layers:
            layer.keys = rotate(layer.keys, layer.keys, cos, sin)[1]
        return {}

    return before


# -- the tests ----------------------------------------------------------------------------------------------------


def random_model(folder: Path, **settings: Any) -> Path:
    """A random model in a folder, the same every time."""
    torch.manual_seed(2)
    common = {"vocab_size": 100, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3,
              "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 10, "max_position_embeddings": 128,
              "initializer_range": 0.15, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}  # fmt: skip
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**common | settings))
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:  # which begin as zeros and ones
            parameter.data += torch.randn_like(parameter) * 0.3
    model.save_pretrained(folder)
    return folder


class Bench:
    """Models and our traces of them, each made once, and what compare says of each fault."""

    def __init__(self, folder: Path):
        self._folder, self._known = folder, dict[str, dict[str, Any]]()

    def checkpoint(self, model: str) -> Path:
        folder = Path(tale_model()) if model == "tale" else self._folder / model
        return folder if folder.exists() else random_model(folder, **CONFIGS[model])

    def ids(self, model: str) -> list[int]:
        return TALE if model == "tale" else list(range(3, 99, 2))

    def ours(self, model: str, decode: bool) -> Path:
        file = self._folder / f"{model}-{decode}.safetensors"
        if not file.exists():
            ours, ids = LlamaForCausalLM.from_pretrained(self.checkpoint(model), engine="numpy"), self.ids(model)
            with record(ours) as trace:
                out = ours([ids[:PROMPT] if decode else ids], use_cache=decode)
                for token in ids[PROMPT:] if decode else []:
                    out = ours([[token]], past_key_values=out.past_key_values)
            trace.save(file)
        return file

    def theirs(self, name: str, planted: Fault | None, model: str, decode: bool) -> Path:
        """The trace of transformers' model, with a fault or without."""
        torch_model = transformers.LlamaForCausalLM.from_pretrained(
            self.checkpoint(model), dtype=torch.float32, attn_implementation="eager"
        ).eval()
        ids, file = self.ids(model), self._folder / f"{name}.safetensors"
        config = LlamaForCausalLM.from_pretrained(self.checkpoint(model), engine="numpy").config
        with pytest.MonkeyPatch.context() as patch, torch.no_grad():
            given = planted.plant(torch_model, patch) if planted else None
            with capture(torch_model, config, steps=None) as trace:
                if not decode:
                    torch_model(**{"input_ids": torch.tensor([ids]), "use_cache": False} | (given or {}))
                else:
                    cache = torch_model(torch.tensor([ids[:PROMPT]]), use_cache=True).past_key_values
                    for step, token in enumerate(ids[PROMPT:], 1):
                        named = given(cache, step) if given else {}
                        torch_model(torch.tensor([[token]]), cache=cache, **named)
        trace.save(file)
        return file

    def outcome(self, name: str, capfd: Capture) -> dict[str, Any]:
        """What compare says of a fault."""
        if name not in self._known:
            planted = FAULTS[name]
            theirs = self.theirs(name, planted, planted.model, planted.decode)
            place = self.checkpoint(planted.model)
            ours = self.ours(planted.model, planted.decode)
            done = command(capfd, ours, theirs, "--json", "--weights", place, run=main)
            assert (done.status, done.err) == (1, "")
            self._known[name] = json.loads(done.out)
        return self._known[name]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("faults"))


def named(told: dict[str, Any], word: str) -> bool:
    """Whether the first cause told is the right one."""
    found = told["findings"]
    return bool(found) and found[0]["reproduced"] and word in found[0]["cause"]


@pytest.mark.parametrize(
    ("model", "decode"),
    [("tale", True), *((model, False) for model in CONFIGS if model not in ("dynamic", "longrope"))],
)
def test_without_a_fault_they_are_equal(model: str, decode: bool, bench: Bench, capfd: Capture) -> None:
    done = command(capfd, bench.ours(model, decode), bench.theirs("same", None, model, decode), "--json", run=main)
    told = json.loads(done.out)
    assert (done.status, told["first"]) == (0, None)
    assert len(told["rows"]) >= 3 * (105 - 6) if decode else len(told["rows"]) > 50


@pytest.mark.parametrize("name", FAULTS)
def test_the_tensor_of_a_fault_is_found(name: str, bench: Bench, capfd: Capture) -> None:
    assert bench.outcome(name, capfd)["first"]["name"] == FAULTS[name].tensor


def test_the_causes_of_most_are_named_and_none_wrongly(bench: Bench, capfd: Capture) -> None:
    told = {name: bench.outcome(name, capfd) for name in FAULTS}
    missed = {name: told[name]["findings"] for name, fault in FAULTS.items() if not named(told[name], fault.word)}
    wrong = [name for name, found in missed.items() if found and found[0]["reproduced"]]
    assert not wrong
    assert len(FAULTS) >= OF
    assert len(FAULTS) - len(missed) >= LEAST * len(FAULTS) / OF
    assert not missed  # as it is today; the line above is what is promised
