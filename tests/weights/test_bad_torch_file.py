"""PyTorch files that are cut, forged, hostile, or no PyTorch files at all."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minillama.weights.torch_file import open_torch_file
from tests.bad import CONFIG, Capture, assert_refused, checkpoint, random_tensors
from tests.weights.torch_files import (
    MARK,
    ORDERED,
    PERSID,
    REDUCE,
    V2,
    Raw,
    View,
    called,
    named,
    opcodes,
    pickled,
    torch_bytes,
    torch_save,
    zipped,
)

NUMBERS = np.arange(24, dtype=np.float32)
STORAGE = {"0": NUMBERS.tobytes()}
NOT_RUN = "which is not part of a tensor and could run code where it is loaded (nothing was run"


def with_pickle(code: bytes) -> bytes:
    return torch_bytes(code, STORAGE)


def holding(value: Any) -> bytes:
    return with_pickle(pickled(value))


def view(offset: Any = 0, shape: Any = (24,), strides: Any = (1,), kind: str = "Float", count: int = 24) -> View:
    return View("0", kind, count, offset, shape, strides)


def code(*parts: bytes) -> bytes:
    """A pickle of these opcodes, whose result is what they leave."""
    return with_pickle(b"\x80\x02" + b"".join(parts) + b".")


def stored(pid: Any) -> bytes:
    """A tensor whose storage has this persistent id."""
    return holding({"a": called(*V2, Raw(opcodes(pid) + PERSID), 0, (24,), (1,), False, {})})


class Evil:
    """What a pickler writes as a call of any function."""

    def __init__(self, function: Callable[..., Any], *args: Any):
        self.call = function, args

    def __reduce__(self) -> Any:
        return self.call


def evil(function: Callable[..., Any], *args: Any, protocol: int = 2) -> bytes:
    return with_pickle(pickle.dumps({"a": Evil(function, *args)}, protocol))


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return out.getvalue()


FLOAT = named("torch", "FloatStorage")
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)  # how torch.save began before 1.6

# -- what would run code ------------------------------------------------------------------------------------------

GADGETS: dict[str, tuple[bytes, str]] = {
    "os.system": (holding({"a": called("os", "system", "touch pwned")}), "names os.system"),
    "posix.system by a pickler": (evil(os.system, "touch pwned"), "system, which"),
    "by STACK_GLOBAL": (evil(os.system, "touch pwned", protocol=4), "system, which"),
    "subprocess": (holding({"a": called("subprocess", "Popen", ["touch", "pwned"])}), "names subprocess.Popen"),
    "eval": (holding({"a": called("builtins", "eval", "open('pwned', 'w')")}), "names builtins.eval"),
    "exec by its old name": (holding({"a": called("__builtin__", "exec", "1")}), "names __builtin__.exec"),
    "getattr": (holding({"a": called("builtins", "getattr", 1, "real")}), "names builtins.getattr"),
    "importlib": (holding({"a": called("importlib", "import_module", "antigravity")}), "names importlib.import_module"),
    "numpy": (holding({"a": called("numpy", "load", "x.npy", None, True)}), "names numpy.load"),
    "numpy's runstring": (holding({"a": called("numpy.testing._private.utils", "runstring", "1", {})}), "runstring"),
    "numpy's reconstruct": (
        holding({"a": called("numpy.core.multiarray", "_reconstruct", named("numpy", "ndarray"), (0,), "b")}),
        "names numpy.core.multiarray._reconstruct",
    ),
    "torch.load": (holding({"a": called("torch", "load", "other.pth")}), "names torch.load"),
    "torch.hub": (holding({"a": called("torch.hub", "load", "a/b")}), "names torch.hub.load"),
    "torch's own module by an alias": (holding({"a": called("torch.serialization", "os.system", "1")}), "os.system"),
    "a dotted name below what is allowed": (holding({"a": called("collections", "OrderedDict.__init__")}), "__init__"),
    "a dotted path to what is allowed": (
        holding({"a": called("torch", "_utils._rebuild_tensor", 1)}),
        "_rebuild_tensor,",
    ),
    "a whole model": (holding(called("torch.nn.modules.linear", "Linear")), "names torch.nn.modules.linear.Linear"),
    "a name with a control character": (holding({"a": called("os\x1b[2J", "x")}), r"names os\x1b[2J.x"),
    "a name of a kilobyte": (code(b"c" + b"x" * 2000 + b"\ny\n"), "a name without an end"),
    "a name of 900 letters": (code(b"c" + b"x" * 900 + b"\ny\n"), "names xxx"),
    "a name that is a number": (code(opcodes(1), opcodes(2), b"\x93"), "uses something other than text as a name"),
    "INST": (code(MARK, b"ios\nsystem\n"), "has the opcode b'i', which no tensor needs"),
    "OBJ": (code(MARK, named("torch", "Size"), b"o"), "has the opcode b'o'"),
    "NEWOBJ": (code(named("collections", "OrderedDict"), b")\x81"), r"has the opcode b'\x81'"),
    "NEWOBJ_EX": (code(named("collections", "OrderedDict"), b")}\x92"), r"has the opcode b'\x92'"),
    "EXT1": (code(b"\x82\x01"), r"has the opcode b'\x82'"),
    "EXT4": (code(b"\x84\x01\0\0\0"), r"has the opcode b'\x84'"),
    "PERSID": (code(b"P0\n"), "has the opcode b'P'"),
    "a buffer from outside": (code(b"\x97"), r"has the opcode b'\x97'"),
    "bytes": (code(b"C\x01a"), "has the opcode b'C'"),
    "a reduce of what is no function": (holding({"a": Raw(opcodes("x") + b")R")}), "calls a str with what it does not"),
    "a reduce of a storage type": (
        holding({"a": Raw(FLOAT + b")R")}),
        "calls torch.FloatStorage with what it does not",
    ),
    "a reduce without a tuple": (holding({"a": Raw(named("torch", "Size") + b"]R")}), "calls torch.Size with what"),
    "an OrderedDict of items": (
        holding(called("collections", "OrderedDict", [["a", 1]])),
        "calls collections.OrderedDict",
    ),
    "a hook": (holding({"a": called(*V2, 1, 0, (1,), (1,), False, named("os", "system"))}), "names os.system"),
    "a build of a tensor": (holding({"a": Raw(opcodes(view()) + opcodes({"b": 1}) + b"b")}), "adds to what is no dict"),
    "a build by what is none": (holding(Raw(ORDERED + opcodes("b") + b"b")), "changes a dictionary by what is none"),
}

# -- pickles that are none ----------------------------------------------------------------------------------------

PICKLES: dict[str, tuple[bytes, str]] = {
    "empty": (with_pickle(b""), "its pickle is cut short"),
    "no protocol": (with_pickle(b"}."), "is of no protocol from 2 to 5"),
    "protocol 0": (with_pickle(b"\x80\x00N."), "is of no protocol from 2 to 5"),
    "protocol 6": (with_pickle(b"\x80\x06N."), "is of no protocol from 2 to 5"),
    "protocol twice": (code(b"\x80\x02N"), r"has the opcode b'\x80'"),
    "cut short": (with_pickle(pickled({"a": view()})[:-4]), "its pickle is cut short"),
    "without an end": (with_pickle(pickled({"a": view()})[:-1]), "its pickle is cut short"),
    "bytes after its end": (with_pickle(pickled({"a": view()}) + b"."), "has bytes after its end"),
    "nothing made": (code(), "makes no value, or more than one"),
    "two values": (code(b"NN"), "makes no value, or more than one"),
    "a mark left": (code(b"(N"), "makes no value, or more than one"),
    "an empty stack": (code(b"R"), "takes from an empty stack"),
    "below a mark": (code(b"N(\x85"), "takes from an empty stack"),
    "no mark": (code(b"Nt"), "goes back to a mark that is not there"),
    "a key without a value": (code(b"}(Nu"), "has a key without a value"),
    "setting items of a list": (code(b"]NNs"), "adds to what is no dict"),
    "appending to a dictionary": (code(b"}Na"), "adds to what is no list"),
    "appending to nothing": (code(b"(Ne"), "adds to what is no list"),
    "a value that was not kept": (code(b"h\x05"), "looks for value 5, which was not kept"),
    "keeping nothing": (code(b"q\x05"), "takes from an empty stack"),
    "a text longer than the file": (code(b"X\xff\xff\xff\xff"), "a text of 4294967295 bytes, more than"),
    "a text that is cut": (code(b"X\xff\x00\x00\x00a"), "its pickle is cut short"),
    "a text that is not UTF-8": (code(b"X\x02\x00\x00\x00\xff\xfe"), "a text that is not UTF-8"),
    "a lone surrogate": (code(b"X\x03\x00\x00\x00\xed\xa0\x80"), "a text that is not UTF-8"),
    "a number of 2000 bits": (code(b"\x8a\xff" + b"\x01" * 255), "a number of more than 64 bits"),
    "a key that is a tuple": (holding({(): 1}), "a dictionary with a tuple as a key"),
    "a key that is a list": (code(b"}]Ns"), "a dictionary with a list as a key"),
    "a key nested without end": (code(b"})" + b"\x85" * 500_000 + b"Ns"), "a dictionary with a tuple as a key"),
    "a key that is a tensor": (code(b"}", opcodes(view()), b"Ns"), "a dictionary with a Strided as a key"),
    "a key beyond 32 bits": (holding({2**40: 1}), "a dictionary with a int as a key"),
    "a name twice": (code(b"}", opcodes("a"), b"Ns", opcodes("a"), b"Ns"), "has the name a twice"),
    "a dictionary in itself": (code(b"}q\x00", opcodes("a"), b"h\x00s"), "0 dictionaries of tensors"),
    "a list in itself": (code(b"]q\x00h\x00a"), "it holds a list, not a dictionary of tensors"),
    "a dictionary in itself, with a tensor": (
        code(b"}q\x00", opcodes("a"), opcodes(view()), b"s", opcodes("b"), b"h\x00s"),
        "2 dictionaries of tensors, and which are the weights is not clear",
    ),
    "nested without end": (code(b"]" * 500_000 + b"a" * 499_999), "it holds a list, not a dictionary of tensors"),
    "a million opcodes": (code(b"N" * 1_000_001), "more than 1000000 opcodes"),
    "a million marks": (code(b"(" * 1_000_001), "more than 1000000 opcodes"),
    "a tree that doubles": (
        code(b")q\x00", *(b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(200))),
        "makes no value, or more than one",
    ),
    "a list of tensors": (holding([view()]), "it holds a list, not a dictionary of tensors"),
    "one tensor": (holding(view()), "it holds a Strided, not a dictionary of tensors"),
    "no tensors": (holding({"a": 1}), "0 dictionaries of tensors"),
    "two models": (holding({"generator": {"a": view()}, "judge": {"a": view()}}), "2 dictionaries of tensors"),
    "two usual names": (holding({"model": {"a": view()}, "state_dict": {"a": view()}}), "2 dictionaries of tensors"),
    "a tensor without a name": (holding({"": view()}), "has the impossible tensor name ''"),
    "a tensor whose name is a number": (holding({7: view()}), "has the impossible tensor name 7"),
    "a name of two lines": (holding({"a\nb": view()}), r"has the impossible tensor name 'a\nb'"),
    "a name of a megabyte": (holding({"a" * 10**6: view()}), "has the impossible tensor name 'aaa"),
}

# -- tensors that cannot be ---------------------------------------------------------------------------------------

IMPOSSIBLE = "a tensor of storage 0 has an impossible offset, shape or stride"
OVERLAP = "a tensor of storage 0 has numbers that overlap each other"
BEYOND = "a tensor of storage 0 reaches beyond its 24 numbers"
TENSORS: dict[str, tuple[bytes, str]] = {
    "negative stride": (holding({"a": view(23, (24,), (-1,))}), IMPOSSIBLE),
    "negative offset": (holding({"a": view(-1)}), IMPOSSIBLE),
    "negative side": (holding({"a": view(0, (-4, -6), (6, 1))}), IMPOSSIBLE),
    "side true": (holding({"a": view(0, (True, 24), (24, 1))}), IMPOSSIBLE),
    "fractional side": (holding({"a": view(0, (24.0,), (1,))}), IMPOSSIBLE),
    "fractional offset": (holding({"a": view(0.0)}), IMPOSSIBLE),
    "shape that is a list": (holding({"a": view(0, [24], (1,))}), IMPOSSIBLE),
    "shape that is a tensor": (holding({"a": view(0, view(), (1,))}), IMPOSSIBLE),
    "a stride too few": (holding({"a": view(0, (4, 6), (1,))}), IMPOSSIBLE),
    "33 sides": (holding({"a": view(0, (1,) * 33, (1,) * 33)}), IMPOSSIBLE),
    "a hundred thousand sides": (holding({"a": view(0, (1,) * 10**5, (1,) * 10**5)}), IMPOSSIBLE),
    "side 2^63": (holding({"a": view(0, (2**63,), (0,))}), IMPOSSIBLE),
    "stride 0": (holding({"a": view(0, (24,), (0,))}), OVERLAP),
    "a number without end": (holding({"a": view(0, (2**40, 2**40), (0, 0))}), OVERLAP),
    "overlapping rows": (holding({"a": view(0, (4, 6), (3, 1))}), OVERLAP),
    "equal strides": (holding({"a": view(0, (3, 3), (1, 1))}), OVERLAP),
    "reaching beyond": (holding({"a": view(1)}), BEYOND),
    "offset beyond": (holding({"a": view(2**62, (1,), (1,))}), BEYOND),
    "nothing, beyond": (holding({"a": view(25, (0,), (1,))}), BEYOND),
    "stride beyond": (holding({"a": view(0, (2, 6), (19, 1))}), BEYOND),
    "products that overflow 64 bits": (holding({"a": view(0, (2**32, 2**32), (2**32, 1))}), BEYOND),
    "stride 2^62": (holding({"a": view(0, (2, 2), (2**62, 1))}), BEYOND),
    "fewer bytes than it says": (holding({"a": view(count=25)}), "storage 0 has 96 bytes, and its pickle says 100"),
    "more bytes than it says": (holding({"a": view(count=23)}), "storage 0 has 96 bytes, and its pickle says 92"),
    "a negative count": (holding({"a": view(count=-24)}), "storage 0 has 96 bytes, and its pickle says -96"),
    "a huge count": (holding({"a": view(count=2**62)}), "storage 0 has 96 bytes, and its pickle says 184467440737"),
    "wider numbers": (holding({"a": view(kind="Double")}), "storage 0 has 96 bytes, and its pickle says 192"),
    "a storage of complex numbers": (holding({"a": view(kind="ComplexFloat")}), "names torch.ComplexFloatStorage"),
    "a storage of quantized numbers": (holding({"a": view(kind="QInt8")}), "names torch.QInt8Storage"),
    "a storage that is not there": (stored(("storage", FLOAT, "1", "cpu", 24)), "has no storage 1, which its pickle"),
    "a storage outside": (stored(("storage", FLOAT, "../data/0", "cpu", 24)), "has no storage ../data/0, which"),
    "a storage by a number": (stored(("storage", FLOAT, 0, "cpu", 24)), "refers to something else than a storage"),
    "a storage by a path": (stored(("storage", FLOAT, "/etc/passwd", "cpu", 24)), "has no storage /etc/passwd"),
    "another kind of reference": (stored(("module", FLOAT, "0", "cpu", 24)), "refers to something else"),
    "a reference that is a text": (stored("0"), "refers to something else than a storage"),
    "a reference of four parts": (stored(("storage", FLOAT, "0", "cpu")), "refers to something else than a storage"),
    "a reference without a type": (stored(("storage", "FloatStorage", "0", "cpu", 24)), "refers to something else"),
    "a type that is a function": (stored(("storage", named(*V2), "0", "cpu", 24)), "refers to something else"),
    "a type that is a tensor's": (stored(("storage", named("torch", "float32"), "0", "cpu", 24)), "something else"),
    "a reference in a reference": (
        stored(Raw(opcodes(("storage", FLOAT, "0", "cpu", 24)) + PERSID)),
        "refers to something else than a storage",
    ),
    "a storage that is none": (
        holding({"a": called(*V2, "0", 0, (24,), (1,), False, {})}),
        "calls torch._utils._rebuild",
    ),
    "too few arguments": (holding({"a": called(*V2, 1, 2)}), "calls torch._utils._rebuild_tensor_v2 with what it does"),
    "numbers to be negated when read": (
        holding({"a": Raw(opcodes(view()).replace(ORDERED + b"tR", ORDERED + opcodes({"neg": True}) + b"tR"))}),
        "calls torch._utils._rebuild_tensor_v2 with what it does not take, such as a tensor of another kind",
    ),
    "a parameter of no tensor": (
        holding({"a": called("torch._utils", "_rebuild_parameter", {}, True, {})}),
        "calls torch._utils._rebuild_parameter with what it does not take",
    ),
    "a sparse tensor": (holding({"a": called("torch._utils", "_rebuild_sparse_tensor", 1)}), "_rebuild_sparse_tensor"),
}

# -- zip archives -------------------------------------------------------------------------------------------------

SOUND = torch_bytes(pickled({"a": view()}), STORAGE)
PKL, DATA = "archive/data.pkl", "archive/data/0"
MEMBERS = {PKL: pickled({"a": view()}), DATA: STORAGE["0"]}
LOCAL, CENTRAL, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"


def patched(signature: bytes, number: int, offset: int, value: bytes, file: bytes = SOUND) -> bytes:
    """The file with bytes after the signature of a record changed; number: which of those records."""
    at = -1
    for _ in range(number + 1):
        at = file.index(signature, at + 1)
    return file[: at + offset] + value + file[at + offset + len(value) :]


def word(value: int) -> bytes:
    return struct.pack("<I", value)


def quoted_name(name: str) -> bytes:
    """An archive with a member of this name, which zipfile would not write."""
    return zipped(MEMBERS | {"archive/" + "x" * (len(name.encode()) - 8): b"1"}).replace(
        b"archive/" + b"x" * (len(name.encode()) - 8), name.encode()
    )


def encrypted() -> bytes:
    return patched(CENTRAL, 1, 8, b"\x01\x00", patched(LOCAL, 1, 6, b"\x01\x00"))


def sizes_64(extra: bytes) -> bytes:
    """The size of a member in a record of 64 bits, as the directory has it."""
    at = SOUND.rindex(CENTRAL)
    entry = bytearray(SOUND[at : SOUND.index(END)])
    entry[24:28] = word(0xFFFFFFFF)
    entry[30:32] = struct.pack("<H", len(extra))
    end = bytearray(SOUND[SOUND.index(END) :])
    end[12:16] = word(struct.unpack("<I", end[12:16])[0] + len(extra))
    return SOUND[:at] + bytes(entry) + extra + bytes(end)


MARKED = "the header of its member archive/data.pkl and the directory disagree"
ZIPS: dict[str, tuple[bytes, str]] = {
    "compressed": (zipped(MEMBERS, zipfile.ZIP_DEFLATED), "is compressed, which PyTorch never does"),
    "a zip bomb": (
        zipped({PKL: MEMBERS[PKL], DATA: bytes(5_000_000)}, zipfile.ZIP_DEFLATED),
        "is compressed, which PyTorch never does",
    ),
    "a bomb of LZMA": (zipped({PKL: MEMBERS[PKL], DATA: bytes(9**7)}, zipfile.ZIP_LZMA), "is compressed"),
    "encrypted": (encrypted(), "is encrypted"),
    "duplicate pickles": (zipped([(PKL, MEMBERS[PKL]), (PKL, b"x"), (DATA, STORAGE["0"])]), f"the member {PKL} twice"),
    "duplicate storages": (zipped([*MEMBERS.items(), (DATA, bytes(96))]), f"has the member {DATA} twice"),
    "two archives in one": (zipped(MEMBERS | {"b/data.pkl": b"N."}), "has 2 members FOLDER/data.pkl instead of one"),
    "no pickle": (zipped({DATA: STORAGE["0"]}), "has 0 members FOLDER/data.pkl instead of one"),
    "a pickle without a folder": (zipped({"data.pkl": MEMBERS[PKL]}), "has 0 members FOLDER/data.pkl"),
    "no members": (zipped({}), "no zip archive (22 bytes), as torch.save writes"),
    "TorchScript": (zipped(MEMBERS | {"archive/constants.pkl": b"N."}), "it is a TorchScript program"),
    "a member that climbs": (quoted_name("archive/../../x"), "a member with the impossible name 'archive/../../x'"),
    "a member that climbs in Windows": (quoted_name("archive\\..\\..\\x"), "a member with the impossible name"),
    "an absolute member": (quoted_name("/etc/passwd/x"), "a member with the impossible name '/etc/passwd/x'"),
    "a member of a drive": (quoted_name("C:/archive/x"), "a member with the impossible name 'C:/archive/x'"),
    "a member that is a folder": (quoted_name("archive/data/"), "a member with the impossible name"),
    "a member with a control character": (quoted_name("archive/\x07x"), "a member with the impossible name"),
    "bytes after its end": (SOUND + b"\0", "it is cut short, or has bytes after its end"),
    "a comment": (SOUND[:-2] + b"\x01\x00x", "it is cut short, or has bytes after its end"),
    "one byte short": (SOUND[:-1], "it is cut short, or has bytes after its end"),
    "cut in half": (SOUND[: len(SOUND) // 2], "it is cut short, or has bytes after its end"),
    "a few bytes": (SOUND[:10], "it is cut short, or its directory points outside it"),
    "one byte gone from the middle": (SOUND[:60] + SOUND[61:], "its directory is not where it says"),
    "something before it": (LOCAL + SOUND, "its directory is not where it says"),
    "a directory beyond the file": (patched(END, 0, 16, word(2**32 - 2)), "its directory is not where it says"),
    "a directory of 4 GB": (patched(END, 0, 12, word(2**32 - 2)), "more than the 100000 members allowed"),
    "more members than there are": (patched(END, 0, 10, b"\x05\x00"), "its directory is cut short"),
    "fewer members than there are": (patched(END, 0, 10, b"\x03\x00"), "longer than its members are many"),
    "a second disk": (patched(END, 0, 4, b"\x01\x00"), "it is cut into several disks"),
    "a member on another disk": (patched(CENTRAL, 0, 34, b"\x01\x00"), "its directory is damaged"),
    "a name beyond the directory": (patched(CENTRAL, 3, 28, b"\xff\xff"), "its directory is damaged"),
    "an entry with another signature": (patched(CENTRAL, 1, 0, b"PK\1\1"), "its directory is damaged"),
    "a member beyond the file": (patched(CENTRAL, 0, 42, word(2**32 - 2)), "its directory points outside it"),
    "a member in the directory": (patched(CENTRAL, 0, 42, word(SOUND.index(CENTRAL))), MARKED),
    "a size beyond the members": (
        patched(CENTRAL, 3, 20, word(500) * 2, patched(LOCAL, 3, 18, word(500) * 2)),
        "reaches beyond the members' part of the file",
    ),
    "two members in one place": (
        patched(CENTRAL, 2, 20, word(96 + 40) * 2, patched(LOCAL, 2, 18, word(96 + 40) * 2)),
        "overlaps another",
    ),
    "another name in the header": (patched(LOCAL, 0, 30, b"brchive"), MARKED),
    "another length of the name": (patched(LOCAL, 0, 26, b"\x01\x00"), MARKED),
    "another size in the header": (patched(LOCAL, 0, 22, word(1)), MARKED),
    "another stored size in the header": (patched(LOCAL, 0, 18, word(1)), MARKED),
    "compressed by its header": (patched(LOCAL, 0, 8, b"\x08\x00"), MARKED),
    "encrypted by its header": (patched(LOCAL, 0, 6, b"\x01\x00"), MARKED),
    "no signature in the header": (patched(LOCAL, 1, 0, b"PK\3\3"), "and the directory disagree"),
    "sizes to come, in the header only": (patched(LOCAL, 0, 6, b"\x08\x00"), MARKED),
    "a size of 64 bits that is missing": (sizes_64(b""), "a size in its directory is missing"),
    "a size of 64 bits that is short": (sizes_64(b"\x01\x00\x04\x00abcd"), "a size in its directory is missing"),
    "a size of 64 bits, of 2^64 - 1": (sizes_64(b"\x01\x00\x08\x00" + b"\xff" * 8), "is compressed"),
    "a byte order of neither kind": (
        torch_bytes(pickled({"a": view()}), STORAGE, more={"byteorder": b"middle"}),
        "its byteorder is b'middle', neither little nor big",
    ),
    "a byte order of a megabyte": (
        torch_bytes(pickled({"a": view()}), STORAGE, more={"byteorder": b"little" * 10**5}),
        "neither little nor big",
    ),
}

# -- other files --------------------------------------------------------------------------------------------------

OTHERS: dict[str, tuple[bytes, str]] = {
    "0 bytes": (b"", "it is no zip archive (0 bytes)"),
    "1 byte": (b"P", "it is no zip archive (1 bytes)"),
    "the format before 1.6": (LEGACY + bytes(600), "in the format of PyTorch before 1.6, which is not read: where PyT"),
    "a plain pickle": (pickle.dumps({"a": [1.0]}, 4), "in the format of PyTorch before 1.6"),
    "the tar format": (tarred(), "in the format of PyTorch before 0.1, which is not read"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 13\n", "a Git LFS pointer"),
    "HTML error page": (b"\n<!DOCTYPE html><html><h1>404</h1></html>", "it is a web page, not weights"),
    "GGUF": (b"GGUF\x03\0\0\0" + bytes(100), "its metadata have no general.architecture"),
    "plain error text": (b"Entry not found", "it is no zip archive (15 bytes), as torch.save writes since version 1.6"),
    "a Word document": (zipped({"word/document.xml": b"<x/>"}), "has 0 members FOLDER/data.pkl instead of one"),
}
BAD = GADGETS | PICKLES | TENSORS | ZIPS | OTHERS


@pytest.mark.parametrize("case", BAD)
def test_bad_file(case: str, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    contents, words = BAD[case]
    monkeypatch.chdir(tmp_path)
    folder = checkpoint(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    file = folder / "pytorch_model.bin"
    file.write_bytes(contents)
    modules = set(sys.modules)
    assert_refused(capfd, ["--weights", folder], file, words, *([NOT_RUN] if words.startswith("names ") else []))
    assert not (tmp_path / "pwned").exists()
    assert not {"antigravity", "torch"} & (set(sys.modules) - modules)


def test_all_gadgets_say_that_nothing_was_run(tmp_path: Path) -> None:
    said = 0
    for contents, _ in GADGETS.values():
        (tmp_path / "a.pth").write_bytes(contents)
        with pytest.raises(ValueError, match=r"is not a sound PyTorch file|cannot be read: its pickle") as caught:
            open_torch_file(tmp_path / "a.pth")
        said += NOT_RUN in str(caught.value)
    assert said >= 20


def test_the_cases_start_from_a_file_that_is_sound(tmp_path: Path) -> None:
    for contents in (SOUND, zipped(MEMBERS), sizes_64(b"\x01\x00\x08\x00" + (2).to_bytes(8, "little"))):
        (tmp_path / "a.pth").write_bytes(contents)
        tensor = open_torch_file(tmp_path / "a.pth")["a"]
        np.testing.assert_array_equal(tensor.stored(), NUMBERS)


HUNGRY = {
    "lists and lists": code(b"]" * 300_000),
    "dictionaries and dictionaries": code(b"}" * 300_000),
    "one dictionary under many names": code(
        b"}(",
        *(opcodes(f"{n}") + b"N" for n in range(20_000)),
        b"uq\x00",
        b"}(",
        *(opcodes(f"{n}") + b"h\x00" for n in range(20_000)),
        b"u",
    ),
    "one shape for many tensors": code(
        opcodes((1,) * 10**5), b"q\x00",
        *(called(*V2, Raw(opcodes(("storage", FLOAT, "0", "cpu", 24)) + PERSID), 0, Raw(b"h\x00"), Raw(b"h\x00"), 1, {})
          for _ in range(2000)),
    ),
    "a directory of one member many times": zipped([(PKL, b"N.")] * 1000),
    "names that hash alike": code(b"}(", *(opcodes(n << 31) + b"N" for n in range(1000)), b"u"),
}  # fmt: skip


@pytest.mark.parametrize("case", HUNGRY)
def test_memory_and_time_are_bounded(case: str, tmp_path: Path) -> None:
    """A pickle of a byte a value makes Python objects of 56 or 64 bytes each, with 8 more for their place: 100 times
    the file, and a megabyte for all else."""
    file = tmp_path / "a.pth"
    file.write_bytes(HUNGRY[case])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="is not a sound PyTorch file"):
            open_torch_file(file)
        assert tracemalloc.get_traced_memory()[1] < 100 * file.stat().st_size + 2**20
    finally:
        tracemalloc.stop()


def test_weights_that_are_integers(tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    tensors = random_tensors(CONFIG)
    name = "model.norm.weight"
    torch_save(tensors | {name: tensors[name].astype(np.int32)}, folder / "pytorch_model.bin")
    assert_refused(capfd, ["--weights", folder], f"1 not stored as one of F64, F32, F16, BF16: {name} (I32)")


def test_a_shard_that_is_hostile(tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch_save(random_tensors(CONFIG), folder / "consolidated.00.pth")
    (folder / "consolidated.00.pth").write_bytes(GADGETS["os.system"][0])
    assert_refused(capfd, ["--weights", folder], folder / "consolidated.00.pth", "names os.system", NOT_RUN)


@pytest.mark.parametrize("member", [PKL, "archive/constants.pkl"])
def test_what_holds_more_than_tensors_is_not_to_be_got_again(member: str, tmp_path: Path) -> None:
    """Training checkpoints hold their arguments, such as an argparse.Namespace: the file is sound."""
    file = tmp_path / "model.pt"
    pickle = code(b"cargparse\nNamespace\n") if member == PKL else zipped(MEMBERS | {member: b"N."})
    file.write_bytes(pickle)
    with pytest.raises(ValueError, match=r"model\.pt cannot be read: .*model\.state_dict\(\)") as caught:
        open_torch_file(file)
    assert "again" not in str(caught.value)


# -- indexes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shard", "words"),
    [
        ("../secret.bin", "which is not in the same folder: it cannot be trusted"),
        ("/etc/passwd.bin", "which is not in the same folder: it cannot be trusted"),
        ("pytorch_model-00002-of-00002.bin", "is missing, and pytorch_model.bin.index.json names it"),
        ("model.safetensors", "is no .bin file"),
    ],
)
def test_an_index_that_names_the_wrong_files(shard: str, words: str, tmp_path: Path, capfd: Capture) -> None:
    folder = checkpoint(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    index = folder / "pytorch_model.bin.index.json"
    torch_save(random_tensors(CONFIG), folder / "pytorch_model-00001-of-00002.bin")
    names = dict.fromkeys(random_tensors(CONFIG), "pytorch_model-00001-of-00002.bin")
    index.write_text(json.dumps({"weight_map": names | {"model.norm.weight": shard}}))
    if shard == "model.safetensors":
        (folder / "other.safetensors").rename(folder / shard)
        assert_refused(capfd, ["--weights", index], index, words)
    else:
        assert_refused(capfd, ["--weights", folder], words)


def test_the_opcodes_of_a_reduce_are_those_of_python(tmp_path: Path) -> None:
    """That the writer of these tests makes what Python's reader would run: else they show nothing."""
    assert pickle.loads(pickled({"a": called("operator", "add", 1, 2), "b": [1, (2.5, None), True]})) == {
        "a": 3,
        "b": [1, (2.5, None), True],
    }
    assert REDUCE in called("os", "system", "x")
