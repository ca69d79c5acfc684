"""The container: what a sound file says, and every way to be unsound."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minillama.weights.gguf_file import field, read_gguf, shortest
from tests.ggufs import ARRAY, F32, SETTINGS, STRING, U8, U64, Info, gguf_bytes, info, model_tensors, text

ONE = info("a", np.arange(64, dtype=np.float32).reshape(2, 32))


def write(folder: Path, data: bytes) -> Path:
    file = folder / "model.gguf"
    file.write_bytes(data)
    return file


@pytest.mark.parametrize("version", [2, 3])
def test_what_a_file_says(version: int, tmp_path: Path) -> None:
    metadata: dict[str, Any] = {
        "u32": 7, "f32": 0.5, "yes": True, "text": "né\0", "texts": ["", "a", "né"], "whole": [1, -2],
        "real": [0.5, 3.0], "none": [], "u64": struct.pack("<IQ", U64, 1 << 63),
        "bytes": struct.pack("<IIQ3B", ARRAY, U8, 3, 1, 2, 255),
    }  # fmt: skip
    tensors = [ONE, info("b", np.arange(6, dtype=np.float16).reshape(1, 2, 3), "F16")]
    found = read_gguf(write(tmp_path, gguf_bytes(metadata, tensors, version=version)))
    arrays = {key for key, value in found.metadata.items() if isinstance(value, np.ndarray)}
    assert {key: found.metadata[key] for key in metadata.keys() - arrays} == {
        "u32": 7, "f32": 0.5, "yes": True, "text": "né\0", "texts": ["", "a", "né"], "u64": 1 << 63
    }  # fmt: skip
    assert {key: found.metadata[key].tolist() for key in arrays} == {
        "whole": [1, -2], "real": [0.5, 3.0], "none": [], "bytes": [1, 2, 255]
    }  # fmt: skip
    assert {name: tensor[:2] for name, tensor in found.tensors.items()} == {
        "a": ("F32", (2, 32)),
        "b": ("F16", (1, 2, 3)),
    }
    for tensor in tensors:
        described = found.tensors[tensor.name]
        assert found.file.path.read_bytes()[described.offset :].startswith(tensor.data)


@pytest.mark.parametrize("alignment", [8, 32, 256])
def test_data_begin_where_the_alignment_says(alignment: int, tmp_path: Path) -> None:
    data = gguf_bytes({"general.alignment": alignment}, [ONE, ONE._replace(name="b")], alignment=alignment)
    found = read_gguf(write(tmp_path, data))
    assert [tensor.offset % alignment for tensor in found.tensors.values()] == [0, 0]
    assert data[found.tensors["b"].offset :].startswith(ONE.data)


HUGE = (1 << 64) - 1
UNSOUND = {
    "nothing": (b"", "begins with b'' and not with b'GGUF'"),
    "three bytes": (b"GGU", "begins with b'GGU'"),
    "another magic": (gguf_bytes({}, [ONE], magic=b"GGML"), "begins with b'GGML'"),
    "a web page": (b"<!doctype html>" * 9, "begins with b'<!do'"),
    "version 1": (gguf_bytes({}, [ONE], version=1), "version 1, and 2 and 3 are read"),
    "version 0": (gguf_bytes({}, [ONE], version=0), "version 0, and 2"),
    "version 4": (gguf_bytes({}, [ONE], version=4), "version 4, and 2"),
    "big endian": (gguf_bytes({}, [ONE], version=3 << 24), "big endian"),
    "many pairs": (gguf_bytes({"a": 1}, [ONE], pairs=HUGE), f"{HUGE} pairs of metadata, which do not fit"),
    "pairs that fit by 64 bits": (gguf_bytes({"a": 1}, [ONE], pairs=(1 << 64) // 13 + 1), "do not fit"),
    "one pair too many": (gguf_bytes({"a": 1}, [ONE], pairs=2), "the metadata a twice"),  # as a tensor is called
    "many tensors": (gguf_bytes({}, [ONE], count=1 << 60), "tensors, which do not fit"),
    "one tensor too many": (gguf_bytes({}, [ONE], count=2), "impossible tensor name"),
    "a key twice": (gguf_bytes([("a", 1), ("a", 1)], [ONE]), "the metadata a twice"),
    "a tensor twice": (gguf_bytes({}, [ONE, ONE]), "the tensor a twice"),
    "no key": (gguf_bytes({"": 1}, [ONE]), "impossible metadata key ''"),
    "a key of bytes": (gguf_bytes([(b"\xff\xfe", 1)], [ONE]), "a metadata key is not UTF-8"),
    "a key with a newline": (gguf_bytes({"a\nb": 1}, [ONE]), r"impossible metadata key 'a\\nb'"),
    "a long key": (gguf_bytes({"k" * 65536: 1}, [ONE]), "impossible metadata key 'kkk"),
    "a long name": (gguf_bytes({}, [ONE._replace(name="n" * 65)]), "impossible tensor name 'nnn"),
    "no name": (gguf_bytes({}, [ONE._replace(name="")]), "impossible tensor name ''"),
    "a long text": (gguf_bytes({"a": struct.pack("<IQ", STRING, HUGE)}, [ONE]), f"needs {HUGE} bytes, and"),
    "a text of bytes": (gguf_bytes({"a": struct.pack("<I", STRING) + text(b"\xff")}, [ONE]), "metadata a is not UTF-8"),
    "an unknown type": (gguf_bytes({"a": struct.pack("<IQ", 13, 0)}, [ONE]), "metadata a is of the unknown type 13"),
    "an array of an unknown type": (gguf_bytes({"a": struct.pack("<IIQ", ARRAY, 99, 0)}, [ONE]), "the unknown type 99"),
    "an array of arrays": (gguf_bytes({"a": struct.pack("<IIQ", ARRAY, ARRAY, 0)}, [ONE]), "an array of arrays"),
    "a long array": (gguf_bytes({"a": struct.pack("<IIQ", ARRAY, F32, 1 << 62)}, [ONE]), f"needs {1 << 64} bytes"),
    "a long array of texts": (
        gguf_bytes({"a": struct.pack("<IIQ", ARRAY, STRING, 1 << 61)}, [ONE]), "texts in a, which do not fit"),
    "a long text in an array": (
        gguf_bytes({"a": struct.pack("<IIQQ", ARRAY, STRING, 1, 1 << 63)}, [ONE]), "needs 9223372036854775808 bytes"),
    "no dimensions": (gguf_bytes({}, [Info("a", (), 0, b"")]), "0 dimensions, and may have 1 to 4"),
    "five dimensions": (gguf_bytes({}, [Info("a", (1,) * 5, 0, b"")]), "5 dimensions"),
    "no rows": (gguf_bytes({}, [Info("a", (0, 32), 0, b"")]), r"shape \(0, 32\), impossible in F32"),
    "no columns": (gguf_bytes({}, [Info("a", (32, 0), 8, b"")]), r"shape \(32, 0\), impossible in Q8_0"),
    "part of a block": (gguf_bytes({}, [Info("a", (2, 48), 8, bytes(1 << 12))]), r"\(2, 48\), impossible in Q8_0"),
    "part of a large block": (gguf_bytes({}, [Info("a", (8, 32), 12, bytes(144))]), r"\(8, 32\), impossible in Q4_K"),
    "an unknown format": (gguf_bytes({}, [Info("a", (2, 32), 99, bytes(256))]), "in the format number 99, which is"),
    "a format that is not read": (gguf_bytes({}, [Info("a", (1, 256), 11, bytes(256))]), "in the format Q3_K, which"),
    "a product beyond 64 bits": (gguf_bytes({}, [Info("a", (1 << 33, 1 << 33), 0, bytes(64))]), "cut short: the"),
    "a product of 0 in 64 bits": (gguf_bytes({}, [Info("a", (1 << 62, 4), 0, bytes(64))]), "cut short: the tensor a"),
    "sizes of 64 bits": (gguf_bytes({}, [Info("a", (HUGE,) * 4, 0, bytes(64))]), "cut short: the tensor a"),
    "a far offset": (gguf_bytes({}, [ONE._replace(offset=1 << 20)]), "cut short: the tensor a ends at"),
    "an offset beyond 64 bits": (gguf_bytes({}, [ONE._replace(offset=HUGE - 31)]), "cut short: the tensor a ends at"),
    "an unaligned offset": (gguf_bytes({}, [ONE._replace(offset=16)]), "at 16, and not at a multiple"),
    "tensors on each other": (gguf_bytes({}, [ONE, ONE._replace(name="b", offset=224)]), "tensor b overlaps"),
    "tensors at the same place": (gguf_bytes({}, [ONE, ONE._replace(name="b", offset=0)]), "overlaps that of another"),
    "one byte short": (gguf_bytes({}, [ONE])[:-1], "cut short: the tensor a"),
    "alignment 0": (gguf_bytes({"general.alignment": 0}, [ONE]), "alignment is 0, and must be a power of two"),
    "alignment 24": (gguf_bytes({"general.alignment": 24}, [ONE]), "alignment is 24"),
    "a text as alignment": (gguf_bytes({"general.alignment": "32"}, [ONE]), "alignment is '32'"),
    "alignment 2^63": (gguf_bytes({"general.alignment": struct.pack("<IQ", U64, 1 << 63)}, [ONE]), "a power of two"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSOUND)
def test_unsound_files_are_refused(name: str, tmp_path: Path) -> None:
    data, words = UNSOUND[name]
    with pytest.raises(ValueError, match=words) as caught:
        read_gguf(write(tmp_path, data))
    assert str(caught.value).startswith(f"{tmp_path / 'model.gguf'} cannot be read as GGUF: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    metadata = {"a": 1, "b": "text", "c": ["x", "yz"], "d": [1, 2, 3], "e": 0.5}
    data = gguf_bytes(metadata, [ONE, info("b", np.ones((1, 34), np.uint8), "Q8_0")])
    assert read_gguf(write(tmp_path, data)).tensors.keys() == {"a", "b"}
    for length in range(len(data)):
        with pytest.raises(ValueError, match=r"cut short|do not fit|begins with"):
            read_gguf(write(tmp_path, data[:length]))


@given(data=st.data())
def test_a_file_with_other_bytes_is_read_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Some bytes of the header are others: nothing but ValueError may come of it, and no large piece of memory."""
    sound = gguf_bytes(SETTINGS | {"c": ["x", "yz"], "d": [1, 2, 3]}, model_tensors())
    spoiled = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, 1600))
        spoiled[place : place + 1] = data.draw(st.binary(min_size=0, max_size=9) | st.just(b"\xff" * 8))
    file = write(tmp_path_factory.mktemp("spoiled"), bytes(spoiled))
    tracemalloc.start()
    try:
        read_gguf(file)
    except ValueError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8 * len(sound)  # a text of Python takes some 50 bytes and has at least 8 in the file


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot be opened: No such file"):
        read_gguf(tmp_path / "absent.gguf")


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [("32", int, "must be of type int, not a text of 2"), (True, int, "of type int, not True"), (1, float, "not 1"),
     (0.5, int, "not 0.5"), (np.ones(99), int, "of type int, not array"), (None, str, "metadata have no a")],
)  # fmt: skip
def test_fields_of_the_wrong_type(value: Any, kind: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        field({} if value is None else {"a": value}, "a", kind)
    assert field({}, "a", int, 3) == 3


@pytest.mark.parametrize("number", [1e-5, 1e-6, 5e5, 1e4, 0.1, 8.0, 130000.0])
def test_numbers_as_somebody_wrote_them(number: float) -> None:
    assert shortest(float(np.float32(number))) == number
