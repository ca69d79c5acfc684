"""Files that PyTorch itself wrote, and Meta's checkpoints beside a model in Meta's own formulation."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.llama import LlamaForCausalLM
from minillama.weights import open_checkpoint
from minillama.weights.torch_file import open_torch_file
from tests.tiny import random_weights, tiny_config
from tests.weights.meta_files import meta_weights

torch = pytest.importorskip("torch", reason="needs the oracle extra")
pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("default")]

FORMS = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.uint16: "U16", torch.uint32: "U32", torch.uint64: "U64",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip


def drawn(*shape: int, dtype: Any = torch.float32, seed: int = 0) -> Any:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3).to(dtype)


def assert_read(file: Path, expected: dict[str, Any]) -> None:
    """Every tensor has torch's numbers, to the bit."""
    found = open_torch_file(file)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        ours = found[name]
        assert ours.shape == tuple(tensor.shape), name
        assert ours.dtype == FORMS[tensor.dtype], name
        bits = tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        assert np.ascontiguousarray(ours.stored()).tobytes() == bits, name
        if ours.dtype in ("F64", "F32", "F16", "BF16"):
            wide = tensor.detach().double().numpy()
            np.testing.assert_array_equal(ours.read(np.float64), wide)
            if wide.ndim and len(wide) > 2:
                np.testing.assert_array_equal(ours.read(np.float64, np.array([2, 0, 2])), wide[[2, 0, 2]])


@pytest.mark.parametrize("dtype", FORMS, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (7,), (0,), (5, 3), (0, 4), (3, 1, 2), (2, 3, 4, 5)], ids=str)
def test_every_dtype_and_shape(dtype: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    tensor = drawn(*shape).abs().to(dtype) if not dtype.is_signed else drawn(*shape).to(dtype)
    torch.save({"a": tensor}, tmp_path / "a.pth")
    assert_read(tmp_path / "a.pth", {"a": tensor})


def views() -> dict[str, Any]:
    base = drawn(8, 6, 4, seed=1)
    return {
        "whole": base,
        "transposed": base.transpose(0, 2),
        "permuted": base.permute(1, 2, 0),
        "from the middle": base[2:7, 1:3],
        "every other": base[::2, :, ::3],
        "one column": base[:, 2, 1],
        "flat": base.view(-1)[5:77],
        "windows": drawn(9, 4).t()[1:3],
        "nothing": base[3:3],
        "a number": base[4, 3, 2],
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_views_that_share_a_storage(protocol: int, tmp_path: Path) -> None:
    tensors = views()
    torch.save(tensors, tmp_path / "a.pt", pickle_protocol=protocol)
    assert_read(tmp_path / "a.pt", tensors)


def test_what_overlaps_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3, 1).expand(3, 5)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="overlap each other"):
        open_torch_file(tmp_path / "a.pt")


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_a_module_with_its_metadata(wrap: str | None, tmp_path: Path) -> None:
    class Model(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(5, 3)
            self.norm = torch.nn.BatchNorm1d(3)
            self.second = torch.nn.Linear(3, 5, bias=False)
            self.second.weight = torch.nn.Parameter(self.first.weight.t())

    state = Model().state_dict()
    optimizer = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({wrap: state, "epoch": 3, "optimizer": optimizer} if wrap else state, tmp_path / "a.pth")
    assert_read(tmp_path / "a.pth", dict(state))


def test_parameters_in_an_ordered_dictionary(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(drawn(4, 3))
    tensors = OrderedDict(b=parameter, a=torch.nn.Parameter(drawn(2), requires_grad=False), c=parameter)
    torch.save(tensors, tmp_path / "a.pth")
    assert_read(tmp_path / "a.pth", dict(tensors))


@pytest.mark.parametrize("alignment", [1, 64, 4096])
def test_other_settings_of_torch_save(alignment: int, tmp_path: Path) -> None:
    config = torch.utils.serialization.config.save
    before = config.storage_alignment, config.compute_crc32
    try:
        config.storage_alignment, config.compute_crc32 = alignment, False
        torch.save({"a": drawn(3, 2)}, tmp_path / "a.pth")
    finally:
        config.storage_alignment, config.compute_crc32 = before
    assert_read(tmp_path / "a.pth", {"a": drawn(3, 2)})


@pytest.mark.parametrize("kind", ["conjugate", "sparse", "complex", "module"])
def test_what_is_no_plain_tensor_is_refused(kind: str, tmp_path: Path) -> None:
    value = {
        "conjugate": lambda: torch.randn(2, dtype=torch.cfloat).conj().imag,  # is negated when it is read
        "sparse": lambda: torch.eye(3).to_sparse(),
        "complex": lambda: torch.ones(2, dtype=torch.cfloat),
        "module": lambda: torch.nn.Linear(2, 2),
    }[kind]()
    torch.save({"a": value}, tmp_path / "a.pth")
    said = "is not a sound PyTorch file" if kind == "conjugate" else "cannot be read"
    with pytest.raises(ValueError, match=f"{said}: its pickle"):
        open_torch_file(tmp_path / "a.pth")


def test_the_format_before_1_6(tmp_path: Path) -> None:
    file, tensors = tmp_path / "old.pth", {"a": drawn(3, 2), "b": drawn(4)}
    torch.save(tensors, file, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"before 1\.6, which is not read: .*torch\.save\(torch\.load\(") as caught:
        open_torch_file(file)
    recipe = str(caught.value).partition("installed, ")[2].partition(" makes")[0]
    code = recipe.replace('"OLD"', repr(str(file))).replace('"NEW"', repr(str(tmp_path / "new.pth")))
    exec(code, {"torch": torch})  # what the message says works
    assert_read(tmp_path / "new.pth", tensors)


# -- Meta's model -------------------------------------------------------------------------------------------------

D, H, LAYERS, V, EPS = 64, 8, 3, 96, 1e-5


class MetaModel:
    """LLaMA as Meta's papers and code have it: rotary pairs are neighbours, taken as complex numbers. float64."""

    def __init__(self, kv_heads: int, theta: float, scaled: bool, seed: int):
        rng, K, F = np.random.default_rng(seed), D // H, 192
        self.kv_heads, self.theta, self.scaled, self.K = kv_heads, theta, scaled, K

        def matrix(rows: int, columns: int) -> Any:
            spikes = np.where(rng.random((rows, columns)) < 0.05, 5, 1)
            return torch.tensor(rng.standard_normal((rows, columns)) * spikes / np.sqrt(columns), dtype=torch.float32)

        def norm() -> Any:
            return torch.tensor(1 + 0.2 * rng.standard_normal(D), dtype=torch.float32)

        self.weights = {"tok_embeddings.weight": matrix(V, D), "norm.weight": norm(), "output.weight": matrix(V, D)}
        for i in range(LAYERS):
            self.weights |= {
                f"layers.{i}.attention.wq.weight": matrix(D, D),
                f"layers.{i}.attention.wk.weight": matrix(kv_heads * K, D),
                f"layers.{i}.attention.wv.weight": matrix(kv_heads * K, D),
                f"layers.{i}.attention.wo.weight": matrix(D, D),
                f"layers.{i}.feed_forward.w1.weight": matrix(F, D),
                f"layers.{i}.feed_forward.w2.weight": matrix(D, F),
                f"layers.{i}.feed_forward.w3.weight": matrix(F, D),
                f"layers.{i}.attention_norm.weight": norm(),
                f"layers.{i}.ffn_norm.weight": norm(),
            }

    def frequencies(self) -> Any:
        freqs = 1 / self.theta ** (torch.arange(0, self.K, 2, dtype=torch.float64) / self.K)
        if not self.scaled:
            return freqs
        wavelengths = 2 * np.pi / freqs  # Llama 3.1: long ones stretched by 8, those between 2048 and 8192 smoothly
        smooth = ((8192 / wavelengths - 1) / (4 - 1)).clamp(0, 1)
        return (1 - smooth) * freqs / 8 + smooth * freqs

    def rotate(self, x: Any) -> Any:
        """x: (T, heads, K)."""
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], self.K // 2, 2))
        angles = torch.outer(torch.arange(len(x), dtype=torch.float64), self.frequencies())
        turned = pairs * torch.polar(torch.ones_like(angles), angles)[:, None]
        return torch.view_as_real(turned).reshape(x.shape)

    def logits(self, ids: list[int]) -> Any:
        w = {name: tensor.double() for name, tensor in self.weights.items()}

        def rms(x: Any, name: str) -> Any:
            return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + EPS) * w[name]

        x, T = w["tok_embeddings.weight"][ids], len(ids)
        hidden = torch.full((T, T), -torch.inf, dtype=torch.float64).triu(1)
        for i in range(LAYERS):
            h = rms(x, f"layers.{i}.attention_norm.weight")
            q, k, v = (
                (h @ w[f"layers.{i}.attention.{name}.weight"].T).reshape(T, -1, self.K) for name in ("wq", "wk", "wv")
            )
            q, k = self.rotate(q), self.rotate(k)
            k, v = (heads.repeat_interleave(H // self.kv_heads, dim=1) for heads in (k, v))
            scores = torch.einsum("thk,shk->hts", q, k) / self.K**0.5 + hidden
            mixed = torch.einsum("hts,shk->thk", scores.softmax(-1), v).reshape(T, D)
            x = x + mixed @ w[f"layers.{i}.attention.wo.weight"].T
            h = rms(x, f"layers.{i}.ffn_norm.weight")
            gate, up = (h @ w[f"layers.{i}.feed_forward.{name}.weight"].T for name in ("w1", "w3"))
            x = x + (torch.nn.functional.silu(gate) * up) @ w[f"layers.{i}.feed_forward.w2.weight"].T
        return rms(x, "norm.weight") @ w["output.weight"].T

    def save(self, folder: Path, shards: int, llama3: bool, dtype: Any) -> None:
        """As fairscale's parallel layers hold them: ColumnParallelLinear has some rows, RowParallelLinear some columns,
        ParallelEmbedding some columns, VocabParallelEmbedding (Llama 3) some rows."""
        for rank in range(shards):
            part = OrderedDict()
            for name, tensor in self.weights.items():
                layer = name.split(".")[-2]
                if layer in ("wk", "wv") and self.kv_heads < shards:  # each head in several processes
                    piece = tensor.split(self.K)[rank * self.kv_heads // shards]
                elif layer in ("wq", "wk", "wv", "w1", "w3", "output") or (layer == "tok_embeddings" and llama3):
                    piece = tensor.chunk(shards, dim=0)[rank]
                elif layer in ("wo", "w2", "tok_embeddings"):
                    piece = tensor.chunk(shards, dim=1)[rank]
                else:
                    piece = tensor
                part[name] = piece.to(dtype).clone()
            if not llama3:
                part["rope.freqs"] = self.frequencies().to(dtype)
            torch.save(part, folder / f"consolidated.{rank:02}.pth")
        params = {"dim": D, "n_layers": LAYERS, "n_heads": H, "multiple_of": 64, "norm_eps": EPS, "vocab_size": -1}
        params |= {"n_kv_heads": self.kv_heads} if self.kv_heads < H else {}
        params |= {"rope_theta": self.theta, "vocab_size": V} if llama3 else {}
        params |= {"use_scaled_rope": True} if self.scaled else {}
        (folder / "params.json").write_text(json.dumps(params))


IDS = [1, *range(7, 90, 2), 3, 3, 80]


@pytest.mark.parametrize("shards", [1, 2, 4, 8])
@pytest.mark.parametrize("kv_heads", [8, 4, 2, 1])
@pytest.mark.parametrize("generation", ["llama 2", "llama 3", "llama 3.1"])
def test_the_logits_of_metas_model(shards: int, kv_heads: int, generation: str, tmp_path: Path) -> None:
    """In float64, ours are the original's to 1e-10 of their size: both sum some hundred products through three layers,
    each rounded at 1e-16, and attention passes on errors of scores enlarged. In float32, which rounds at 6e-8, the
    same sums come to 1e-5: on both engines."""
    llama3, scaled = generation != "llama 2", generation == "llama 3.1"
    # theta so small that the frequencies stretch over all wavelengths, of which 3.1 changes the long ones
    model = MetaModel(kv_heads, 5e5 if llama3 else 1e4, scaled, seed=shards + kv_heads)
    model.save(tmp_path, shards, llama3, torch.float32)
    expected = model.logits(IDS).numpy()
    scale = np.abs(expected).max()
    exact = LlamaForCausalLM.from_pretrained(tmp_path, dtype="float64")([IDS]).logits[0]
    assert np.abs(exact - expected).max() <= 1e-10 * scale
    for engine in ("numpy", "numba") if shards in (1, 4) else ("numpy",):
        ours = LlamaForCausalLM.from_pretrained(tmp_path, engine=engine, dtype="float32")([IDS]).logits[0]
        assert np.abs(ours - expected).max() <= 1e-5 * scale
    if scaled and shards == 1:  # that the scaling counts
        model.scaled = False
        assert np.abs(model.logits(IDS).numpy() - expected).max() > 1e-4 * scale


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_in_parts(dtype: Any, tmp_path: Path) -> None:
    model = MetaModel(4, 1e4, False, seed=5)
    model.weights = {name: tensor.to(dtype).float() for name, tensor in model.weights.items()}
    model.save(tmp_path, 2, False, dtype)
    opened = LlamaForCausalLM.from_pretrained(tmp_path, dtype="float64")
    assert opened.config.torch_dtype == str(dtype).removeprefix("torch.")
    expected = model.logits(IDS).numpy()
    assert np.abs(opened([IDS]).logits[0] - expected).max() <= 1e-10 * np.abs(expected).max()  # as above


def test_a_checkpoint_of_training(tmp_path: Path) -> None:
    """As llama2.c's train.py saves one: compiled, with an optimizer that has made a step, and a tensor of a loss."""
    config = tiny_config(hidden_size=24, intermediate_size=80)
    weights = random_weights(config, 43)
    model = torch.nn.Module()
    for name, array in meta_weights(weights, config).items():
        part = model
        for step in name.split(".")[:-1]:
            if step not in dict(part.named_children()):
                part.add_module(step, torch.nn.Module())
            part = part.get_submodule(step)
        part.weight = torch.nn.Parameter(torch.tensor(array))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0)
    loss = sum((parameter**2).mean() for parameter in model.parameters())
    loss.backward()
    optimizer.step()
    args = {"dim": 24, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 37, "multiple_of": 20,
            "max_seq_len": 32, "dropout": 0.0}  # fmt: skip
    state = {f"_orig_mod.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save(
        {"model": state, "optimizer": optimizer.state_dict(), "model_args": args, "iter_num": 1,
         "best_val_loss": loss.detach(), "config": {"compile": True}},
        tmp_path / "ckpt.pt",
    )  # fmt: skip
    opened = open_checkpoint(tmp_path)
    assert (opened.config.head_dim, opened.config.max_position_embeddings) == (6, 32)
    for name, array in weights.items():
        np.testing.assert_array_equal(opened.tensors[name].read(np.float32), array)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    with pytest.raises(ValueError, match="it is the state of an optimizer"):
        open_checkpoint(tmp_path / "optimizer.pt")
