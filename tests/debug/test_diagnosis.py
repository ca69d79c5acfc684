"""Single faults planted in a port that works like llama2.c: compare finds where, and names the cause."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from minillama.arrays import Array
from minillama.compare import main
from minillama.debug import record
from minillama.llama import LlamaForCausalLM
from minillama.shipped import tale_model
from minillama.weights.names import halves_to_interleaved
from tests.bad import Capture, command
from tests.debug.port import Port

IDS = [1, 346, 1565, 350, 28, 300, 17, 4000]


class Eps(Port):
    def rmsnorm(self, x: Array, weight: Array) -> Array:
        return weight * x / np.sqrt(x @ x / len(x) + np.float32(1e-6))


class NoEps(Port):
    def rmsnorm(self, x: Array, weight: Array) -> Array:
        return weight * x / np.sqrt(x @ x / len(x))


class SumOfSquares(Port):
    def rmsnorm(self, x: Array, weight: Array) -> Array:
        return weight * x / np.sqrt(x @ x + np.float32(1e-5))


class PositionsFromOne(Port):
    def turn(self, head: Array, pos: int) -> None:
        super().turn(head, pos + 1)


class Halves(Port):
    """Rows are in Meta's order, and halves are turned."""

    def turn(self, head: Array, pos: int) -> None:
        half = len(head) // 2
        angle = pos * self.c.rope_theta ** (-np.arange(half) / half)
        a, b = head[:half].copy(), head[half:].copy()
        head[:half], head[half:] = a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)


class Theta(Port):
    def turn(self, head: Array, pos: int) -> None:
        for j in range(0, len(head), 2):
            pair = head[j] + 1j * head[j + 1]
            turned = pair * np.exp(1j * pos * 20000.0 ** (-j / len(head)))
            head[j], head[j + 1] = turned.real, turned.imag


class Exponent(Port):
    """The frequency of pair j by the number of the pair, not of the component."""

    def turn(self, head: Array, pos: int) -> None:
        for j in range(len(head) // 2):
            pair = head[2 * j] + 1j * head[2 * j + 1]
            turned = pair * np.exp(1j * pos * self.c.rope_theta ** (-j / len(head)))
            head[2 * j], head[2 * j + 1] = turned.real, turned.imag


class Groups(Port):
    def key_head(self, head: int) -> int:
        return head % self.c.num_key_value_heads


class Undivided(Port):
    """`h * head_size` for `h / kv_mul * head_size`, in a cache without end."""

    def key_head(self, head: int) -> int:
        return head

    def head(self, att: Array, q: Array, layer: int, head: int, pos: int) -> Array:
        caches = self.key_cache, self.value_cache
        self.key_cache, self.value_cache = (np.concatenate((c, np.roll(c, -1, axis=1)), axis=2) for c in caches)
        context = super().head(att, q, layer, head, pos)
        self.key_cache, self.value_cache = caches
        return context


class OneSum(Port):
    """`float sum = 0` before the loop over the rows, and not inside."""

    def matmul(self, w: Array, x: Array) -> Array:
        return np.asarray(np.cumsum(w @ x, dtype=np.float32) if w.shape == (128, 256) else w @ x)


class InPlace(Port):
    """What is turned first is read again, turned."""

    def turn(self, head: Array, pos: int) -> None:
        for j in range(0, len(head), 2):
            angle = pos * self.c.rope_theta ** (-j / len(head))
            head[j] = head[j] * np.cos(angle) - head[j + 1] * np.sin(angle)
            head[j + 1] = head[j] * np.sin(angle) + head[j + 1] * np.cos(angle)


class NoScale(Port):
    def root(self) -> Any:
        return np.float32(1)


class ByK(Port):
    def root(self) -> Any:
        return np.float32(self.c.head_dim)


class NotItself(Port):
    """`< pos` for `<= pos`."""

    def head(self, att: Array, q: Array, layer: int, head: int, pos: int) -> Array:
        att[: pos + 1] = 0
        return super().head(att, q, layer, head, pos - 1) if pos else np.zeros(self.c.head_dim, np.float32)


class ItselfLeftOut(Port):
    """`softmax(att, pos)` for `softmax(att, pos + 1)`."""

    def head(self, att: Array, q: Array, layer: int, head: int, pos: int) -> Array:
        size, at = self.c.head_dim, self.key_head(head) * self.c.head_dim
        super().head(att, q, layer, head, pos - 1) if pos else None
        att[pos] = self.key_cache[layer, pos, at : at + size] @ q[head * size : (head + 1) * size] / self.root()
        return att[: pos + 1] @ self.value_cache[layer, : pos + 1, at : at + size]


class OneCache(Port):
    """`key_cache + pos * kv_dim`, without the layer."""

    def head(self, att: Array, q: Array, layer: int, head: int, pos: int) -> Array:
        for cache in (self.key_cache, self.value_cache):
            cache[0, pos] = cache[layer, pos]
        return super().head(att, q, 0, head, pos)


class WideStride(Port):
    """Keys are read at `t * dim`, which is twice as wide as a token's are."""

    def head(self, att: Array, q: Array, layer: int, head: int, pos: int) -> Array:
        caches = self.key_cache
        self.key_cache = np.concatenate((caches[:, ::2], np.zeros_like(caches)), axis=1)
        context = super().head(att, q, layer, head, pos)
        self.key_cache = caches
        return context


class Short(Port):
    """Sums over the first `dim` of the `hidden_dim` numbers."""

    def matmul(self, w: Array, x: Array) -> Array:
        return w[:, :256] @ x[:256]


class RowsOfDim(Port):
    """`w[i * dim + j]` where rows have hidden_dim numbers."""

    def matmul(self, w: Array, x: Array) -> Array:
        return w.ravel()[: len(w) * 256].reshape(-1, 256) @ x[:256]


class Overwritten(Port):
    """The result of a square matrix is written where its input is."""

    def matmul(self, w: Array, x: Array) -> Array:
        x = x.copy()
        for i in range(256 if w.shape == (256, 256) and self.after_attention else 0):
            x[i] = w[i] @ x
        return x if w.shape == (256, 256) and self.after_attention else w @ x

    @property
    def after_attention(self) -> bool:
        """Whether the last buffer that was kept is what heads have made."""
        return next(reversed(self.buffers)).endswith("xb_att")


class Uncleared(Port):
    """Heads add to what the norm has left in xb."""

    def head(self, att: Array, q: Array, layer: int, head: int, pos: int) -> Array:
        at = slice(head * self.c.head_dim, (head + 1) * self.c.head_dim)
        return super().head(att, q, layer, head, pos) + self.buffers[f"pos{pos}.l{layer}.xb"][at]


class LastLeftOut(Port):
    """`j < size - 1` in the sum of squares."""

    def rmsnorm(self, x: Array, weight: Array) -> Array:
        return weight * x / np.sqrt(x[:-1] @ x[:-1] / len(x) + np.float32(1e-5))


class Minus(Port):
    def swiglu(self, gate: Array, up: Array) -> Array:
        return gate / (1 + np.exp(gate)) * up


class Gelu(Port):
    def swiglu(self, gate: Array, up: Array) -> Array:
        return np.array([0.5 * g * (1 + math.erf(g / math.sqrt(2))) for g in gate], np.float32) * up


class Swapped(Port):
    def swiglu(self, gate: Array, up: Array) -> Array:
        return super().swiglu(up, gate)


class NoResidual(Port):
    def add(self, x: Array, y: Array) -> Array:
        return y


class Doubled(Port):
    def add(self, x: Array, y: Array) -> Array:
        return x + 2 * y


class NextRow(Port):
    def embed(self, token: int) -> Array:
        return super().embed(token + 1)


class Scaled(Port):
    def classify(self, x: Array) -> Array:
        return super().classify(x) / np.sqrt(len(x))


class Transposed(Port):
    """A square matrix, (out, in), is read as (in, out)."""

    def matmul(self, w: Array, x: Array) -> Array:
        return x @ w if w.shape == (256, 256) else w @ x


LAYER = "model.layers.0"
FAULTS: list[tuple[type[Port], str, str]] = [
    (Eps, f"{LAYER}.input_norm", "norm.eps"),
    (NoEps, f"{LAYER}.input_norm", "norm.eps"),
    (SumOfSquares, f"{LAYER}.input_norm", "norm.sum"),
    (PositionsFromOne, f"{LAYER}.self_attn.q_rope", "rope.positions"),
    (Theta, f"{LAYER}.self_attn.q_rope", "rope.theta"),
    (Exponent, f"{LAYER}.self_attn.q_rope", "rope.exponent"),
    (Transposed, f"{LAYER}.self_attn.q_rope", "weight.transposed"),
    (Groups, f"{LAYER}.self_attn.probs", "attention.groups"),
    (Undivided, f"{LAYER}.self_attn.probs", "attention.groups_undivided"),
    (OneSum, f"{LAYER}.self_attn.v_proj", "any.running"),
    (InPlace, f"{LAYER}.self_attn.q_rope", "rope.in_place"),
    (NoScale, f"{LAYER}.self_attn.probs", "attention.scale"),
    (ByK, f"{LAYER}.self_attn.probs", "attention.scale"),
    (NotItself, f"{LAYER}.self_attn.probs", "attention.mask_behind"),
    (ItselfLeftOut, f"{LAYER}.self_attn.probs", "attention.softmax_short"),
    (OneCache, f"{LAYER}.self_attn.probs", "cache.shared"),
    (WideStride, f"{LAYER}.self_attn.probs", "attention.stride_width"),
    (Short, f"{LAYER}.mlp.down", "part.sum"),
    (RowsOfDim, f"{LAYER}.mlp.down", "weight.row_length"),
    (Overwritten, f"{LAYER}.self_attn.o_proj", "weight.in_place"),
    (Uncleared, f"{LAYER}.self_attn.context", "any.not_cleared"),
    (LastLeftOut, f"{LAYER}.input_norm", "norm.last_left_out"),
    (Minus, f"{LAYER}.mlp.act", "mlp.activation_sign"),
    (Gelu, f"{LAYER}.mlp.act", "mlp.activation"),
    (Swapped, f"{LAYER}.mlp.act", "mlp.gate_up_swapped"),
    (NoResidual, f"{LAYER}.residual", "stream.residual_missing"),
    (Doubled, f"{LAYER}.residual", "stream.branch_scale"),
    (NextRow, "model.embed_tokens", "embedding.off_by_one"),
    (Scaled, "logits", "head.scale"),
]


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(tale_model(), engine="numpy")


@pytest.fixture(scope="module")
def weights(model: LlamaForCausalLM) -> dict[str, Array]:
    found = {name: np.array(array, np.float32) for name, array in model.state_dict().items()}
    for name in found:
        for part, heads in (("q_proj", 4), ("k_proj", 2)):
            if part in name:
                found[name] = halves_to_interleaved(found[name], heads)
    return found


@pytest.fixture(scope="module")
def ours(model: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ours") / "trace.safetensors"
    with record(model) as trace:
        model([IDS])
    trace.save(file)
    return file


def told(ours: Path, theirs: Path, status: int, capfd: Capture, *arguments: object) -> dict[str, Any]:
    done = command(capfd, ours, theirs, "--map", "llama2c", "--json", *arguments, run=main)
    assert (done.status, done.err) == (status, "")
    return dict(json.loads(done.out))


def test_the_port_without_a_fault(
    model: LlamaForCausalLM, weights: dict[str, Array], ours: Path, tmp_path: Path, capfd: Capture
) -> None:
    theirs = Port(model.config, weights).run(IDS).save(tmp_path / "dump")
    result = told(ours, theirs, 0, capfd)
    assert result["first"] is None
    assert len(result["rows"]) == 105 - 3 * 6  # queries and keys before rotation, and scores, are in no buffer


@pytest.mark.parametrize(("kind", "tensor", "key"), FAULTS, ids=lambda value: getattr(value, "__name__", None))
def test_a_fault(
    kind: type[Port],
    tensor: str,
    key: str,
    model: LlamaForCausalLM,
    weights: dict[str, Array],
    ours: Path,
    tmp_path: Path,
    capfd: Capture,
) -> None:
    theirs = kind(model.config, weights).run(IDS).save(tmp_path / "dump")
    result = told(ours, theirs, 1, capfd)
    assert result["first"]["name"] == tensor
    assert result["findings"][0]["key"] == key, result["findings"]
    assert result["findings"][0]["reproduced"]


def test_rows_in_the_order_of_the_other_layout(
    model: LlamaForCausalLM, weights: dict[str, Array], ours: Path, tmp_path: Path, capfd: Capture
) -> None:
    """The commonest mistake there is: pairs are turned by halves, on rows in Meta's order."""
    theirs = Halves(model.config, weights).run(IDS).save(tmp_path / "dump")
    result = told(ours, theirs, 1, capfd)
    assert result["first"]["name"] == f"{LAYER}.self_attn.q_rope"
    assert result["findings"][0]["key"].startswith("rope.layout")


def test_a_fault_in_one_layer_is_found_in_that_layer(
    model: LlamaForCausalLM, weights: dict[str, Array], ours: Path, tmp_path: Path, capfd: Capture
) -> None:
    name = "model.layers.4.mlp.down_proj.weight"
    wrong = weights | {name: weights["model.layers.5.mlp.down_proj.weight"]}
    result = told(ours, Port(model.config, wrong).run(IDS).save(tmp_path / "dump"), 1, capfd)
    assert result["first"]["name"] == "model.layers.4.mlp.down"
    assert result["findings"][0]["cause"] == "down_proj is that of the layer after"


def test_a_layer_that_is_read_at_a_wrong_distance(
    model: LlamaForCausalLM, weights: dict[str, Array], ours: Path, tmp_path: Path, capfd: Capture
) -> None:
    """Pointers into one file: w2 + layer * dim * dim. The first layer is right."""
    name, wrong = "model.layers.{}.mlp.down_proj.weight", dict(weights)
    stack = np.concatenate([weights[name.format(layer)].ravel() for layer in range(6)])
    for layer in range(6):
        shape = weights[name.format(layer)].shape
        wrong[name.format(layer)] = stack[layer * 256 * 256 :][: shape[0] * shape[1]].reshape(shape)
    result = told(ours, Port(model.config, wrong).run(IDS).save(tmp_path / "dump"), 1, capfd)
    assert result["first"]["name"] == "model.layers.1.mlp.down"
    assert [finding["cause"] for finding in result["findings"]] == [
        "down_proj of layer n is read at n D D, and not at n D F"
    ]


def test_little_is_enough(
    model: LlamaForCausalLM, weights: dict[str, Array], ours: Path, tmp_path: Path, capfd: Capture
) -> None:
    """Of each layer its output only: what lies between is computed, under each hypothesis."""
    port = Groups(model.config, weights).run(IDS)
    port.buffers = {name: array for name, array in port.buffers.items() if name.endswith(".x")}
    result = told(ours, port.save(tmp_path / "dump"), 1, capfd)
    assert result["first"]["name"] == f"{LAYER}.output"
    assert result["findings"][0]["key"] == "attention.groups"


def test_what_no_hypothesis_gives_is_not_claimed(
    model: LlamaForCausalLM, weights: dict[str, Array], ours: Path, tmp_path: Path, capfd: Capture
) -> None:
    rng = np.random.default_rng(5)
    name = "model.layers.2.mlp.up_proj.weight"
    wrong = weights | {name: weights[name] + rng.standard_normal(weights[name].shape).astype(np.float32) * 0.01}
    result = told(ours, Port(model.config, wrong).run(IDS).save(tmp_path / "dump"), 1, capfd)
    assert result["first"]["name"] == "model.layers.2.mlp.up"
    assert not any(finding["reproduced"] for finding in result["findings"])


def test_numbers_of_a_format_that_all_have_are_no_sign_of_sums_kept_in_it(
    ours: Path, tmp_path: Path, capfd: Capture
) -> None:
    """A run that was written as float16, with an error that nothing explains."""
    name = "model.layers.1.mlp.act"
    with safe_open(ours, "np") as trace:
        theirs = {name: trace.get_tensor(name) for name in trace.keys()}  # noqa: SIM118
    theirs[name] = theirs[name] * (1 + 0.3 * np.random.default_rng(0).standard_normal(theirs[name].shape))
    np.savez(tmp_path / "theirs.npz", **{name: array.astype(np.float16) for name, array in theirs.items()})
    done = command(capfd, ours, tmp_path / "theirs.npz", "--json", run=main)
    result = json.loads(done.out)
    assert (done.err, result["first"]["name"], result["tolerance"]["form"]) == ("", name, "f16")
    assert not any(finding["reproduced"] for finding in result["findings"])


def test_numbers_that_only_happen_to_fit_a_format_are_not_claimed(ours: Path, tmp_path: Path, capfd: Capture) -> None:
    """Logits without what is behind the point: bfloat16 has them, but no rounding makes errors of such a size."""
    with safe_open(ours, "np") as trace:
        theirs = {name: trace.get_tensor(name) for name in trace.keys()}  # noqa: SIM118
    np.savez(tmp_path / "theirs.npz", **theirs | {"logits": np.trunc(theirs["logits"])})
    result = json.loads(command(capfd, ours, tmp_path / "theirs.npz", "--json", run=main).out)
    assert result["first"]["name"] == "logits"
    assert not any(finding["reproduced"] for finding in result["findings"])


def test_a_fault_below_the_tolerance_is_found_where_it_is_made(
    model: LlamaForCausalLM, weights: dict[str, Array], ours: Path, tmp_path: Path, capfd: Capture
) -> None:
    """Too small to see in its own tensor, it shows where it has grown: the steps are then checked one by one."""

    class Slightly(Port):
        def add(self, x: Array, y: Array) -> Array:
            return x + y * np.float32(1 + 1e-5)

    theirs = Slightly(model.config, weights).run(IDS).save(tmp_path / "dump")
    result = told(ours, theirs, 1, capfd)
    assert result["first"]["name"] != f"{LAYER}.residual"
    assert result["findings"][0]["target"] == f"{LAYER}.residual"
    assert result["findings"][0]["key"] == "stream.branch_scale"


def test_rounding_that_adds_up_is_no_fault(
    model: LlamaForCausalLM, weights: dict[str, Array], ours: Path, tmp_path: Path, capfd: Capture
) -> None:
    theirs = Port(model.config, weights).run(IDS).save(tmp_path / "dump")
    result = told(ours, theirs, 1, capfd, "--rtol", "1e-7", "--atol", "0")
    assert [finding["key"] for finding in result["findings"]] == ["none"]
