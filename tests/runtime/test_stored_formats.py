"""Every format that weights are stored in, run in every format that can be asked for: the same matrices, the same text
as the NumPy engine. Nothing is sampled: all stored x all asked, for single matrices and for whole models."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama import convert
from minillama.arrays import Array
from minillama.layout import COMPRESSED, MADE, PACKED, QUANTIZED
from minillama.llama import LlamaForCausalLM
from minillama.runtime.model import FastModel
from minillama.runtime.packing import STORED, Packed, pack, packed, row_width
from minillama.weights import open_checkpoint
from minillama.weights.compressed import CompressedTensor
from minillama.weights.formats import narrow, widen
from minillama.weights.gguf_blocks import BLOCKS
from minillama.weights.gguf_file import read_gguf
from minillama.weights.gguf_tensors import tensor_of
from minillama.weights.mixed import matrix_forms, stored_format
from minillama.weights.names import EMBED_TOKENS, LM_HEAD
from minillama.weights.quantized import QuantizedTensor
from minillama.weights.safetensors import ArrayTensor, Tensor, open_safetensors
from tests.ggufs import SETTINGS, gguf_bytes, info, random_matrix
from tests.runtime.beside import FORMS, NumpyRounded, assert_near
from tests.tiny import random_ids, spiky, write_safetensors

ASKED = ("f32", "f16", "bf16", COMPRESSED, *MADE)
GGUF_KINDS = [block.name for block in BLOCKS.values() if block.name not in ("F64", "BF16")]
SHAPE = (37, 256)  # rows that fill neither a tile nor a vector, and one block of the formats called K


def in_gguf(folder: Path, kind: str, heads: int | None = None) -> Tensor:
    stored = random_matrix(np.random.default_rng(5), (36 if heads else SHAPE[0], SHAPE[1]), kind)
    (folder / "x.gguf").write_bytes(gguf_bytes({}, [info("x", stored, kind)]))
    gguf = read_gguf(folder / "x.gguf")
    return tensor_of(gguf.file, gguf.tensors["x"], heads)


def matrix() -> Array:
    return spiky(np.random.default_rng(6), *SHAPE).astype(np.float32)


def in_safetensors(folder: Path, dtype: str) -> Tensor:
    array = narrow(matrix(), dtype) if dtype != "F64" else matrix().astype(np.float64)
    write_safetensors(folder / "x.safetensors", {"w": array})
    return open_safetensors(folder / "x.safetensors")[0]["w"]


STORED_AS: dict[str, Callable[[Path], Tensor]] = {
    **{f"gguf {kind}": lambda folder, kind=kind: in_gguf(folder, kind) for kind in GGUF_KINDS},
    **{f"gguf {kind}, heads": lambda folder, kind=kind: in_gguf(folder, kind, 6) for kind in GGUF_KINDS},
    **{f"file {dtype}": lambda folder, dtype=dtype: in_safetensors(folder, dtype)
       for dtype in ("F64", "F32", "F16", "BF16")},
    **{f"kept {form}": lambda folder, form=form: packed(ArrayTensor(matrix()), form) for form in (COMPRESSED, *MADE)},
    "arrays": lambda folder: ArrayTensor(matrix()),
}  # fmt: skip


def unpacked(matrix: Packed, shape: tuple[int, ...], form: str) -> Array:
    """The numbers that kernels read, float32."""
    n_out, size = shape
    if form in QUANTIZED:
        numbers, scales = matrix.numbers.view(np.uint8), matrix.scales.view(np.float16)
        return QuantizedTensor(form, (n_out, size), numbers, scales).read(np.float32)
    if form == COMPRESSED:
        return CompressedTensor((n_out, size), *matrix).read(np.float32)
    stored = matrix.numbers.view(np.float16) if form == "f16" else matrix.numbers
    return widen(stored, STORED[form], np.float32).reshape(-1, row_width(size, form))[:n_out, :size]


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("stored", STORED_AS)
def test_kernels_read_the_numbers_that_are_stored(stored: str, asked: str, tmp_path: Path) -> None:
    tensor = STORED_AS[stored](tmp_path)
    floats = tensor.read(np.float32)
    in_it = tensor.dtype == asked.upper()
    if asked in PACKED and not in_it:
        tensor = packed(tensor, asked)
    ours = unpacked(pack(tensor, asked), tensor.shape, asked)
    if asked in QUANTIZED:
        # Rounded to whole numbers, of which the scale is a 127th of a group's largest or, found by a search, about an
        # 8th; twice that rounding is a sixteenth of the largest number that any group has
        assert np.abs(ours - floats).max() <= (0.01 if asked == "q8_0" else 0.15) * np.abs(floats).max()
        if in_it:
            np.testing.assert_array_equal(ours, floats)  # its very numbers
    else:
        name = STORED.get(asked, "BF16")
        np.testing.assert_array_equal(ours, widen(narrow(floats, name), name, np.float32))


@pytest.mark.parametrize("form", ASKED)
def test_a_buffer_of_another_size_than_its_matrix_is_refused(form: str) -> None:
    """Before a kernel gets it, which would read past its end."""
    tensor = packed(ArrayTensor(matrix()), form) if form in PACKED else ArrayTensor(matrix())
    if form in STORED:
        tensor.dtype, tensor.array = STORED[form], narrow(matrix(), STORED[form])[:-1]  # type: ignore[union-attr]
        tensor.shape = SHAPE
    else:
        tensor.shape = (SHAPE[0] + 16, SHAPE[1])
    with pytest.raises(ValueError, match=rf"not a {form} matrix of {tensor.shape[0]} x 256$"):
        pack(tensor, form)


# -- whole models -------------------------------------------------------------------------------------------------

WIDE = {
    "embedding_length": 256, "feed_forward_length": 256, "attention.head_count": 4, "attention.head_count_kv": 2,
    "attention.key_length": 64, "attention.value_length": 64, "rope.dimension_count": 64,
}  # fmt: skip
SHAPES = {
    "attn_q": (256, 256), "attn_k": (128, 256), "attn_v": (128, 256), "attn_output": (256, 256),
    "ffn_gate": (256, 256), "ffn_up": (256, 256), "ffn_down": (256, 256),
}  # fmt: skip
VOCAB = 40
# The kind of most matrices, then of those that differ
MIXTURES = {kind: (kind, {}) for kind in GGUF_KINDS} | {
    "F16, a head in Q8_0": ("F16", {"output": "Q8_0"}),
    "Q8_0, a head in F16": ("Q8_0", {"output": "F16"}),
    "F16, some in Q8_0 and Q4_0": ("F16", {"ffn_down": "Q8_0", "attn_v": "Q4_0"}),
    "Q4_0, a head in Q6_K": ("Q4_0", {"output": "Q6_K", "token_embd": "Q6_K"}),
    "Q4_0, a head in Q8_0": ("Q4_0", {"output": "Q8_0"}),
    "Q4_K, some in Q6_K": ("Q4_K", {"output": "Q6_K", "attn_v": "Q6_K", "ffn_down": "Q6_K"}),
}
MIXTURES["Q5_0, many kinds"] = ("Q5_0", {"output": "Q6_K", "attn_q": "Q4_1", "attn_v": "Q8_0"})
KEPT = ("f32", "f16", "bf16", "bf16z", "q8_0", "q4_0")


def gguf_of(folder: Path, kind: str, others: dict[str, str]) -> Path:
    rng = np.random.default_rng(7)
    shapes = {"token_embd": (VOCAB, 256), "output": (VOCAB, 256)}
    shapes |= {f"blk.{layer}.{name}": shape for layer in range(2) for name, shape in SHAPES.items()}
    tensors = []
    for name, shape in shapes.items():
        own = others.get(name.split(".")[-1], kind)
        tensors.append(info(f"{name}.weight", random_matrix(rng, shape, own), own))
    norms = ["output_norm", *(f"blk.{layer}.{name}_norm" for layer in range(2) for name in ("attn", "ffn"))]
    tensors += [info(f"{name}.weight", rng.normal(1, 0.2, 256).astype(np.float32)) for name in norms]
    settings = SETTINGS | {f"llama.{key}": value for key, value in WIDE.items()} | {"llama.vocab_size": VOCAB}
    (folder / "model.gguf").write_bytes(gguf_bytes(settings, tensors))
    return folder / "model.gguf"


def stored_models(folder: Path) -> dict[str, Path]:
    """Files by what their matrices are stored in."""
    made: dict[str, Path] = {}
    for name, (kind, others) in MIXTURES.items():
        (folder / name).mkdir()
        made[name] = gguf_of(folder / name, kind, others)
    for form in KEPT:
        made[f"a folder in {form}"] = folder / form
        assert convert.main([str(made["F32"]), str(folder / form), "--dtype", form]) == 0
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return stored_models(tmp_path_factory.mktemp("stored"))


class Reference(NumpyRounded):
    """The NumPy engine on the numbers that each matrix has in its format, read from the file by itself."""

    def __init__(self, file: Path, form: str):
        self.form = form
        model = LlamaForCausalLM.from_pretrained(file, engine="numpy", dtype="float64")
        forms = matrix_forms(form, model.weights.tensors)
        for name, own in forms.items():
            floats = ArrayTensor(model.weights.tensors[name].read(np.float32))
            kept = own in QUANTIZED and model.weights.tensors[name].dtype == own.upper()
            model.weights.replace(name, floats if kept else in_form(floats, own))
        self.engine = model.new_engine()


def in_form(floats: ArrayTensor, form: str) -> Tensor:
    if form in PACKED:
        return ArrayTensor(packed(floats, form).read(np.float32))
    return ArrayTensor(widen(narrow(floats.array, STORED[form]), STORED[form], np.float32))


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("stored", [*MIXTURES, *(f"a folder in {form}" for form in KEPT)])
def test_whole_models_like_numpy(stored: str, asked: str, files: dict[str, Path]) -> None:
    model = LlamaForCausalLM.from_pretrained(
        files[stored], engine="numba", dtype=asked, cache_dtype=FORMS[asked], threads=1
    )
    ours, theirs = model.new_engine(), Reference(files[stored], asked)
    rows = [(random_ids(8 + row, length) % VOCAB).tolist() for row, length in enumerate((5, 2))]
    assert_near(asked, ours.prefill(rows), theirs.prefill(rows))
    assert_near(asked, ours.decode(np.array([3, 1])), theirs.decode(np.array([3, 1])))


@pytest.mark.parametrize("stored", MIXTURES)
def test_the_format_that_is_taken_by_itself(
    stored: str, files: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """The one that most numbers are in. Beside it every matrix in whole numbers keeps its own, and nothing is told."""
    form = stored.partition(",")[0].lower()
    with caplog.at_level(logging.WARNING):
        model = LlamaForCausalLM.from_pretrained(files[stored], engine="numba", cache_dtype=FORMS.get(form, "f16"))
    assert (model.form, caplog.messages) == (form, [])
    ours, theirs = model.new_engine(), Reference(files[stored], form)
    if form in QUANTIZED:
        kept = {name: stored_format(tensor) for name, tensor in open_checkpoint(files[stored]).tensors.items()}
        for name in matrix_forms(form, model.weights.tensors):
            assert model.weights.tensors[name].dtype == (kept[name] if kept[name].lower() in QUANTIZED else "Q8_0")
    rows = [(random_ids(8 + row, length) % VOCAB).tolist() for row, length in enumerate((5, 2))]
    assert_near(form, ours.prefill(rows), theirs.prefill(rows))
    assert_near(form, ours.decode(np.array([3, 1])), theirs.decode(np.array([3, 1])))


@pytest.mark.parametrize("stored", ["Q4_K, some in Q6_K", "Q5_0, many kinds"])
def test_mixed_formats_give_the_same_bits_alone_and_together(stored: str, files: dict[str, Path]) -> None:
    """Over threads, batches and how a prompt is cut, as every format by itself does."""
    one, two = (LlamaForCausalLM.from_pretrained(files[stored], engine="numba", threads=threads) for threads in (1, 2))
    ids = random_ids(3, 21) % VOCAB
    whole = one(ids[None]).logits[0]
    np.testing.assert_array_equal(two(ids[None]).logits[0], whole)
    np.testing.assert_array_equal(two(np.stack([ids, ids[::-1]])).logits[0], whole)
    past, parts = None, []
    for part in (ids[:1], ids[1:13], ids[13:14], ids[14:]):
        out = two(part[None], past_key_values=past)
        past = out.past_key_values
        parts.append(out.logits[0])
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_mixtures_go_into_folders_and_back_byte_for_byte(tmp_path: Path) -> None:
    kinds = {"output": "Q6_K", "attn_v": "Q5_K", "ffn_down": "Q5_0", "attn_k": "Q4_1", "token_embd": "Q6_K"}
    file, back = gguf_of(tmp_path, "Q4_K", kinds), tmp_path / "back.gguf"
    assert convert.main([str(file), str(tmp_path / "kept")]) == 0
    assert convert.main(["--check", str(tmp_path / "kept")]) == 0  # packed scales are not read as float16
    assert convert.main([str(tmp_path / "kept"), str(back)]) == 0
    ours, theirs = read_gguf(back), read_gguf(file)
    assert ours.tensors.keys() == theirs.tensors.keys()
    for name, described in theirs.tensors.items():
        found = ours.tensors[name]
        assert (found.kind, found.shape) == (described.kind, described.shape)
        block = next(block for block in BLOCKS.values() if block.name == found.kind)
        size = int(np.prod(found.shape)) // block.size * block.nbytes
        stored = [path.read_bytes()[at.offset :][:size] for path, at in ((back, found), (file, described))]
        assert stored[0] == stored[1]


# -- a head of more bits than the layers --------------------------------------------------------------------------


@pytest.mark.parametrize(("head", "kept"), [("Q6_K", "q6_k"), ("Q8_0", "q8_0"), ("F16", "q8_0"), ("Q4_1", "q4_1")])
def test_a_head_of_more_bits_than_the_layers_keeps_them(head: str, kept: str, tmp_path: Path) -> None:
    file = gguf_of(tmp_path, "Q4_0", {"output": head})
    forms = matrix_forms("q4_0", open_checkpoint(file).tensors)
    assert forms.pop(LM_HEAD) == kept
    assert {*forms.values()} == {"q4_0"}
    assert EMBED_TOKENS not in forms


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "F16"])
def test_a_head_like_the_layers_gets_what_is_asked_for(kind: str, tmp_path: Path) -> None:
    forms = matrix_forms("q4_0", open_checkpoint(gguf_of(tmp_path, kind, {})).tensors)
    assert {*forms.values()} == {"q4_0"}


def test_logits_of_a_head_in_six_bits_over_layers_in_four(tmp_path: Path) -> None:
    """The head alone, beside what four bits would make of it."""
    file = gguf_of(tmp_path, "Q4_0", {"output": "Q6_K"})
    model = LlamaForCausalLM.from_pretrained(file, engine="numba", dtype="q4_0", cache_dtype="f16")
    exact = LlamaForCausalLM.from_pretrained(file, engine="numpy", dtype="float64")
    hidden = spiky(np.random.default_rng(9), 3, 256).astype(np.float32)
    head = exact.weights.tensors[LM_HEAD]
    wanted = hidden @ head.read(np.float64).T
    fast = model.new_engine().model
    assert isinstance(fast, FastModel)
    assert fast.tensors[LM_HEAD].dtype == "Q6_K"
    off = np.abs(fast.lm_logits(hidden) - wanted).max() / np.abs(wanted).max()
    in_four = np.abs(hidden @ packed(head, "q4_0").read(np.float64).T - wanted).max() / np.abs(wanted).max()
    assert off < 0.015 < in_four / 3  # activations in 8 bits, half a 127th of a group's largest each, make about 1 %


@pytest.mark.parametrize("way", ["convert", "generate"])
def test_the_head_stays_so_in_a_folder(way: str, tmp_path: Path) -> None:
    file, out = gguf_of(tmp_path, "Q4_0", {"output": "Q6_K"}), tmp_path / "kept"
    if way == "convert":
        assert convert.main([str(file), str(out), "--dtype", "q4_0"]) == 0
    else:
        LlamaForCausalLM.from_pretrained(file, engine="numba", dtype="q4_0", cache_dtype="f16").save_pretrained(out)
    tensors: dict[str, Any] = dict(open_checkpoint(out).tensors)
    assert tensors.pop(LM_HEAD).dtype == "Q6_K"
    assert {tensor.dtype for name, tensor in tensors.items() if name in matrix_forms("q4_0", tensors)} == {"Q4_0"}
    again = LlamaForCausalLM.from_pretrained(out, engine="numba", dtype="q4_0", cache_dtype="f16")
    first = LlamaForCausalLM.from_pretrained(file, engine="numba", dtype="q4_0", cache_dtype="f16")
    np.testing.assert_array_equal(again([[1, 5, 3]]).logits, first([[1, 5, 3]]).logits)
