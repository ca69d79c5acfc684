"""LoRA adapters in GGUF files, merged by --lora as those of peft are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.convert import main as convert
from minillama.weights import open_checkpoint
from minillama.weights.gguf_model import gguf_name
from minillama.weights.names import EMBED_TOKENS, LM_HEAD, halves_to_interleaved, layer_name
from tests.bad import Capture, assert_refused, assert_runs
from tests.ggufs import KINDS, Info, gguf_bytes, info, model_tensors, random_matrix
from tests.tokenizer.test_from_pieces import of_the_tales
from tests.weights.test_gguf_vocabulary import metadata_of

ALPHA, RANK = 5.0, 3
SAYS = {"general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora", "adapter.lora.alpha": ALPHA}
Q, K, DOWN = layer_name(1, "q_proj"), layer_name(0, "k_proj"), layer_name(0, "down_proj")
SHAPES = {Q: (96, 64), K: (48, 64), DOWN: (64, 96), EMBED_TOKENS: (4096, 64)}
# float32 rounds at 6e-8, and so do the product of rank 3 and the sum; both here and in the formula
FLOAT32 = 5e-7


def sides(name: str) -> tuple[Array, Array]:
    """A and B of a matrix, rows as Hugging Face has them."""
    rng = np.random.default_rng(len(name))
    rows, columns = SHAPES[name]
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((RANK, columns), (rows, RANK)))
    return a, b


def adapter(name: str) -> list[Info]:
    """As convert_lora_to_gguf.py writes it: rows of q and k in Meta's order; of the embedding both transposed."""
    a, b = sides(name)
    if name == EMBED_TOKENS:
        a, b = b, np.ascontiguousarray(a.T)
    elif name in (Q, K):
        b = halves_to_interleaved(b, 4 if name == Q else 2)
    return [info(f"{gguf_name(name)}.lora_a", a), info(f"{gguf_name(name)}.lora_b", b)]


def write(file: Path, tensors: list[Info], **settings: Any) -> Path:
    said = SAYS | {key.replace("__", "."): value for key, value in settings.items()}
    file.write_bytes(gguf_bytes({key: value for key, value in said.items() if value is not None}, tensors))
    return file


def base(folder: Path, kind: str = "F32") -> Path:
    (folder / "base.gguf").write_bytes(gguf_bytes(metadata_of(of_the_tales()), model_tensors(kind=kind, vocab=4096)))
    return folder / "base.gguf"


@pytest.mark.parametrize(("alpha", "scale"), [(ALPHA, ALPHA / RANK), (0.0, 1.0), (None, 1.0)])
@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_0", "Q5_1"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_merged_matrix_is_what_the_formula_says(
    name: str, kind: str, alpha: float | None, scale: float, tmp_path: Path
) -> None:
    """Of quantized weights too: what they stand for, and the adapter, in float32."""
    file = write(tmp_path / "lora.gguf", adapter(name), adapter__lora__alpha=alpha)
    plain, merged = open_checkpoint(base(tmp_path, kind)), open_checkpoint(tmp_path / "base.gguf", lora=[file])
    a, b = sides(name)
    expected = plain.tensors[name].read(np.float32) + scale * (b @ a)
    found = merged.tensors[name].read(np.float32)
    assert np.abs(found - expected).max() <= FLOAT32 * np.abs(expected).max()
    assert (merged.tensors[LM_HEAD] is merged.tensors[EMBED_TOKENS]) == merged.config.tie_word_embeddings is True
    changed = [other for other in plain.tensors if merged.tensors[other].dtype != plain.tensors[other].dtype]
    assert set(changed) <= {name, LM_HEAD}


def test_an_adapter_in_blocks(tmp_path: Path) -> None:
    """Of --outtype q8_0, with a rank of 32."""
    rng = np.random.default_rng(3)
    a, b = random_matrix(rng, (32, 64), "Q8_0"), random_matrix(rng, (96, 32), "Q8_0")
    name = "blk.1.attn_q.weight"
    file = write(tmp_path / "lora.gguf", [info(f"{name}.lora_a", a, "Q8_0"), info(f"{name}.lora_b", b, "Q8_0")])
    change = open_checkpoint(base(tmp_path), lora=[file]).tensors[Q].read(np.float64)
    change -= open_checkpoint(tmp_path / "base.gguf").tensors[Q].read(np.float64)
    scales, whole = ([x.reshape(-1, 34)[:, part] for x in (a, b)] for part in (slice(2), slice(2, None)))
    floats = [
        np.ascontiguousarray(s).view("<f2").astype(float) * w.view("i1") for s, w in zip(scales, whole, strict=True)
    ]
    product = ALPHA / 32 * floats[1].reshape(96, 32) @ floats[0].reshape(-1, 64)
    assert np.abs(halves_to_interleaved(change, 4) - product).max() < 1e-5 * np.abs(product).max()  # float32 sums


def test_the_commands_merge_it(tmp_path: Path, capfd: Capture) -> None:
    file, folder = write(tmp_path / "lora.gguf", adapter(Q) + adapter(K)), base(tmp_path)
    assert convert([str(folder), str(tmp_path / "merged"), "--lora", str(file)]) == 0

    def ids(*arguments: object) -> Any:
        asked = ["--max-new-tokens", 8, "--prompt", "A fox", "--json", "--weights", *arguments]
        return json.loads(assert_runs(capfd, asked))["ids"]

    assert ids(tmp_path / "merged") == ids(folder, "--lora", file) != ids(folder)


def test_norms_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    norm = info("blk.0.attn_norm.weight", np.full(64, 9, np.float32))
    file = write(tmp_path / "lora.gguf", [*adapter(Q), norm])
    merged, plain = open_checkpoint(base(tmp_path), lora=[file]), open_checkpoint(tmp_path / "base.gguf")
    name = layer_name(0, "input_norm")
    np.testing.assert_array_equal(merged.tensors[name].read(np.float32), plain.tensors[name].read(np.float32))
    assert "(blk.0.attn_norm.weight ...) are left out, as llama.cpp does" in caplog.text


def shaped(*shapes: tuple[int, ...]) -> list[Info]:
    return [Info(f"blk.1.attn_q.weight.lora_{side}", shape, KINDS["F32"], bytes(4 * int(np.prod(shape))))
            for side, shape in zip("ab", shapes, strict=False)]  # fmt: skip


REFUSED: dict[str, tuple[list[Info], dict[str, Any], str]] = {
    "a model": (model_tensors(), {"general__type": "model", "adapter__type": None}, "it is not a LoRA adapter: name"),
    "another adapter": (adapter(Q), {"adapter__type": "ia3"}, "it is not a LoRA adapter"),
    "another architecture": (adapter(Q), {"general__architecture": "qwen2"}, "for a model of the architecture 'qwen2'"),
    "an activated one": (adapter(Q), {"adapter__alora__invocation_tokens": [1, 2]}, "it is an activated LoRA, which"),
    "alpha nan": (adapter(Q), {"adapter__lora__alpha": float("nan")}, "its adapter.lora.alpha is nan"),
    "alpha of a text": (adapter(Q), {"adapter__lora__alpha": "5"}, "alpha must be of type float"),
    "nothing": ([], {}, "it adapts nothing"),
    "a weight": ([*adapter(Q), model_tensors()[0]], {}, "it has the tensor token_embd.weight, which is of no LoRA"),
    "no B": (adapter(DOWN)[:1], {}, "down_proj.weight has lora_a and not one A and one B"),
    "a layer too many": ([Info(i.name.replace("blk.0", "blk.7"), *i[1:]) for i in adapter(DOWN)], {},
                         "it adapts model.layers.7.mlp.down_proj.weight, which the model has not"),
    "vectors": (shaped((64,), (96,)), {}, "is (64,) and (96,), and not two matrices"),
    "two ranks": (shaped((3, 64), (96, 2)), {}, "A (3, 64) and B (96, 2) of rank 3 do not make"),
    "another width": (shaped((3, 32), (96, 3)), {}, "A (3, 32) and B (96, 3) of rank 3 do not make"),
    "other heads": (shaped((3, 64), (90, 3)), {}, "has 90 rows, and the model 4 heads of 24"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_merged(name: str, tmp_path: Path, capfd: Capture) -> None:
    tensors, settings, words = REFUSED[name]
    file = write(tmp_path / "lora.gguf", tensors, **settings)
    assert_refused(capfd, ["--weights", base(tmp_path), "--lora", file], file, words)


def test_an_adapter_that_is_not_there(tmp_path: Path, capfd: Capture) -> None:
    assert_refused(capfd, ["--weights", base(tmp_path), "--lora", tmp_path / "no.gguf"], tmp_path / "no.gguf")
