"""llama2.c's .bin files: each version against the same model as arrays, and files that are none."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.llama import LlamaForCausalLM
from minillama.weights import open_checkpoint
from minillama.weights.llama2c import is_llama2c
from minillama.weights.names import EMBED_TOKENS, LM_HEAD, layer_name
from tests.bad import Capture, assert_refused
from tests.tiny import assert_close, random_ids, random_weights, tiny_config
from tests.weights.llama2c_files import dequantized, exported

GROUP = 8  # numbers to a scale; 20 columns of down_proj are no multiple of it, so groups run over the ends of its rows


def config_of(**overrides: object) -> LlamaConfig:
    return tiny_config(head_dim=4, bos_token_id=1, eos_token_id=2, **overrides)


def logits(model: LlamaForCausalLM) -> Array:
    return model(random_ids(71, 2, 5)).logits


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
def test_each_version_has_the_models_logits(version: int, tied: bool, tmp_path: Path) -> None:
    config = config_of(tie_word_embeddings=tied)
    weights = random_weights(config, 70)
    (tmp_path / "model.bin").write_bytes(exported(config, weights, version, GROUP))
    if version == 2:
        weights = {name: dequantized(w, GROUP) if w.ndim == 2 else w for name, w in weights.items()}
    expected = LlamaForCausalLM(config, weights, dtype="float64")
    assert_close(logits(LlamaForCausalLM.from_pretrained(tmp_path / "model.bin", dtype="float64")), logits(expected))
    checkpoint = open_checkpoint(tmp_path)  # the folder means the one file that is in it
    assert checkpoint.config == config
    for name, tensor in checkpoint.tensors.items():
        w = weights[EMBED_TOKENS if tied and name == LM_HEAD else name]
        rows = np.array([[w.shape[0] - 1, 0], [3, 3]])
        # Exact: nothing is computed but, of version 2, the same one product of float32
        np.testing.assert_array_equal(tensor.stored(), w)
        np.testing.assert_array_equal(tensor.read(np.float64), w)
        np.testing.assert_array_equal(tensor.read(np.float32, rows), w[rows])


def test_the_compiled_engine_runs_it(tmp_path: Path) -> None:
    config = config_of()
    (tmp_path / "model.bin").write_bytes(exported(config, random_weights(config, 70)))
    numpy, numba = (LlamaForCausalLM.from_pretrained(tmp_path, engine=engine) for engine in ("numpy", "numba"))
    # float32 rounds at 6e-8; sums of 20 terms and a softmax of scores up to 100 make that 1e-5 of the largest number
    assert np.abs(logits(numpy) - logits(numba)).max() <= 1e-5 * np.abs(logits(numpy)).max()


def test_what_belongs_to_torch_is_told_apart_by_its_first_bytes(tmp_path: Path) -> None:
    config = config_of()
    kinds = {
        "zip": (b"PK\x03\x04" + bytes(100), False, False),
        "pickle": (b"\x80\x02\x8a\x0a" + bytes(100), False, False),
        "export 0": (exported(config, random_weights(config)), True, True),
        "export 1": (exported(config, random_weights(config), 1), True, True),
        "dim 640": (struct.pack("<7i", 640, 1, 1, 1, 1, 1, 1), True, True),  # begins as a pickle does
        "tokenizer": (struct.pack("<ifi", 27, 0.0, 5) + b"<unk>" + bytes(100), True, False),
        "text": (b"version https://git-lfs.github.com/spec/v1\n", True, False),
        "empty": (b"", True, False),
    }
    for kind, (contents, perhaps, certainly) in kinds.items():
        (tmp_path / "x.bin").write_bytes(contents)
        assert (is_llama2c(tmp_path / "x.bin"), is_llama2c(tmp_path / "x.bin", True)) == (perhaps, certainly), kind
    assert is_llama2c(tmp_path / "absent.bin")  # opening it says so
    assert not is_llama2c(tmp_path / "absent.bin", certainly=True)


def test_a_folder_with_a_tokenizer_beside_it(tmp_path: Path) -> None:
    config = config_of()
    (tmp_path / "stories.bin").write_bytes(exported(config, random_weights(config)))
    (tmp_path / "tokenizer.bin").write_bytes(struct.pack("<ifi", 27, 0.0, 5) + b"<unk>" + bytes(100))
    assert open_checkpoint(tmp_path).tensors.keys() >= {EMBED_TOKENS, layer_name(1, "q_proj")}


def test_more_layers_than_any_model_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = config_of()
    (tmp_path / "x.bin").write_bytes(exported(config, random_weights(config)))
    monkeypatch.setattr("minillama.weights.llama2c.MAX_LAYERS", 1)
    with pytest.raises(ValueError, match="it has 2 layers, more than the 1 allowed"):
        open_checkpoint(tmp_path / "x.bin")


Change = Callable[[bytes], bytes]


def sized(place: int, value: int, start: int = 0) -> Change:
    """One of the seven sizes of the header set otherwise."""
    at = start + 4 * place
    return lambda file: file[:at] + struct.pack("<i", value) + file[at + 4 :]


BAD: dict[str, tuple[int, Change, str]] = {
    "0 bytes": (0, lambda file: b"", "it has 0 bytes, too few for a header"),
    "27 bytes": (0, lambda file: file[:27], "it has 27 bytes, too few for a header"),
    "28 bytes": (0, lambda file: file[:28], "and it has 28"),
    "1 byte short": (0, lambda file: file[:-1], "its header asks for"),
    "1 byte more": (0, lambda file: file + b"\0", "its header asks for"),
    "the file twice": (0, lambda file: file * 2, "its header asks for"),
    "head tied that is there": (0, sized(5, 37), "its header asks for"),
    "dim 0": (0, sized(0, 0), "hidden_size must be at least 1, not 0"),
    "dim -16": (0, sized(0, -16), "hidden_size must be at least 1, not -16"),
    "dim 17": (0, sized(0, 17), "num_attention_heads"),
    "dim 2^31 - 8": (0, sized(0, 2**31 - 8), "its header asks for"),
    "hidden_dim 2^31 - 1": (0, sized(1, 2**31 - 1), "its header asks for"),
    "0 layers": (0, sized(2, 0), "num_hidden_layers must be at least 1, not 0"),
    "2^31 - 1 layers": (0, sized(2, 2**31 - 1), "its header asks for"),
    "0 heads": (0, sized(3, 0), "num_attention_heads must be at least 1, not 0"),
    "3 heads of 16": (0, sized(3, 3), "hidden_size"),
    "16 heads of 1": (0, sized(3, 16), "head_dim must be even, not 1"),
    "0 key/value heads": (0, sized(4, 0), "num_key_value_heads must be at least 1, not 0"),
    "3 key/value heads of 4": (0, sized(4, 3), "is not a multiple of num_key_value_heads 3"),
    "vocab 0": (0, sized(5, 0), "vocab_size must be at least 1, not 0"),
    "vocab -2^31": (0, sized(5, -(2**31)), "vocab_size must be below 2^31"),
    "context 0": (0, sized(6, 0), "max_position_embeddings must be at least 1, not 0"),
    "context 2^31 - 1": (0, sized(6, 2**31 - 1), "its header asks for"),
    # 13 billion weights: in C's 32-bit integers n_layers * dim * dim overflowed and its size could seem right
    "sizes of 13B": (0, lambda file: struct.pack("<7i", 5120, 13824, 40, 40, 40, 32000, 2048) + file[28:],
                     "asks for 51409145884 bytes"),
    "a Git LFS pointer": (0, lambda file: b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
    "a web page": (0, lambda file: b"<!DOCTYPE html><title>404 not found</title>", "it is a web page"),
    "header of version 1 cut": (1, lambda file: file[:255], "it has 255 bytes, too few for a header of 256"),
    "version 0 with the magic number": (1, sized(1, 0), "it is of version 0, and 0, 1 and 2 are known"),
    "version 3": (1, sized(1, 3), "it is of version 3"),
    "version -1": (1, sized(1, -1), "it is of version -1"),
    "version 1, vocab -37": (1, sized(5, -37, 8), "its vocab_size -37"),
    "version 1, shared_classifier 2": (1, lambda file: file[:36] + b"\2" + file[37:], "shared_classifier is 2"),
    "version 1, cut": (1, lambda file: file[:-4], "its header asks for"),
    "group 0": (2, lambda file: file[:37] + bytes(4) + file[41:], "its group size is 0"),
    "group -8": (2, lambda file: file[:37] + struct.pack("<i", -8) + file[41:], "its group size is -8"),
    "group 7": (2, lambda file: file[:37] + struct.pack("<i", 7) + file[41:], "cannot be cut in groups of 7"),
    "group 16": (2, lambda file: file[:37] + struct.pack("<i", 16) + file[41:], "its header asks for"),
    "scales that are numbers": (2, lambda file: file[:256] + bytes([0x81]) * (len(file) - 256), "its scales are not"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_a_sentence(name: str, tmp_path: Path, capfd: Capture) -> None:
    version, change, message = BAD[name]
    config = config_of()
    path = tmp_path / "model.bin"
    path.write_bytes(change(exported(config, random_weights(config), version, GROUP)))
    assert_refused(capfd, ["--weights", path], path, "is not a sound llama2.c file", message, "export it again")


def test_two_exports_in_a_folder_are_not_chosen_between(tmp_path: Path, capfd: Capture) -> None:
    config = config_of()
    for name in ("a.bin", "b.bin"):
        (tmp_path / name).write_bytes(exported(config, random_weights(config)))
    assert_refused(capfd, ["--weights", tmp_path], tmp_path, "a.bin, b.bin: name one of them")
