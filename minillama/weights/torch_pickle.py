"""The pickle in a PyTorch file, read by a machine that can make plain values and tensors, and nothing else.

A pickle is a program. Python's own reader looks up and calls what the program names, which is how a file of weights
runs code. This machine knows the opcodes that a dictionary of tensors needs (they are those of Python's pickletools),
and of names only those in GLOBALS, which stand for themselves: nothing is imported, and nothing of the file is called.
What it makes is flat data, whose every storage, offset, size and stride has been checked against the file.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from minillama.messages import shown
from minillama.weights.formats import STORAGE
from minillama.weights.torch_names import GLOBALS, Global, Storage, Strided, strided

MAX_OPCODES = 1_000_000  # a tensor takes about 25
MAX_TEXT = 1 << 20  # bytes of one string


def read_pickle(data: bytes, sizes: Mapping[str, int]) -> Any:
    """What the pickle makes: dictionaries, lists, tuples, numbers, texts, None and Strided tensors, in any nesting.

    sizes: bytes of every storage by its key. ValueError for whatever a file of tensors does not have.
    """
    return _Machine(data, sizes).run()


class ForeignError(ValueError):
    """A file that may be sound and holds more than tensors: another copy of it would not help."""


class _Machine:
    def __init__(self, data: bytes, sizes: Mapping[str, int]):
        self.data, self.at, self.sizes = data, 0, sizes
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # what was on the stack when each mark was set
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        if self.take(1) != b"\x80" or not 2 <= self.number(1) <= 5:
            raise ValueError("its pickle is of no protocol from 2 to 5")
        for _ in range(MAX_OPCODES):
            opcode = self.take(1)
            if opcode == b".":
                break
            step = _STEPS.get(opcode)
            if step is None:
                raise ValueError(f"its pickle has the opcode {shown(opcode)}, which no tensor needs")
            step(self)
        else:
            raise ValueError(f"its pickle has more than {MAX_OPCODES} opcodes")
        if self.below or len(self.stack) != 1:
            raise ValueError("its pickle makes no value, or more than one")
        if self.at != len(self.data):
            raise ValueError("its pickle has bytes after its end")
        return self.stack[0]

    # -- bytes ------------------------------------------------------------------------------------------------

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise ValueError("its pickle is cut short")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, count: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(count), "little", signed=signed)

    def text(self, count: int) -> str:
        if count > MAX_TEXT:
            raise ValueError(f"its pickle has a text of {count} bytes, more than the {MAX_TEXT} allowed")
        try:
            return self.take(count).decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError("its pickle has a text that is not UTF-8") from None

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, self.at + 1000)
        if end < 0:
            raise ValueError("its pickle has a name without an end")
        return self.text(end + 1 - self.at)[:-1]

    # -- the stack --------------------------------------------------------------------------------------------

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise ValueError("its pickle takes from an empty stack")
        return self.stack.pop()

    def pop_several(self, count: int) -> tuple[Any, ...]:
        return tuple(self.pop() for _ in range(count))[::-1]

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise ValueError(f"its pickle adds to what is no {kind.__name__}")
        return self.stack[-1]

    def mark(self) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        if not self.below:
            raise ValueError("its pickle goes back to a mark that is not there")
        items, self.stack = self.stack, self.below.pop()
        return items

    def put(self, place: int) -> None:
        value = self.pop()
        self.memo[place] = value
        self.push(value)

    def get(self, place: int) -> None:
        if place not in self.memo:
            raise ValueError(f"its pickle looks for value {place}, which was not kept")
        self.push(self.memo[place])

    # -- what values are made of ------------------------------------------------------------------------------

    def long(self) -> None:
        count = self.number(1)
        if count > 9:  # 64 bits and a sign
            raise ValueError("its pickle has a number of more than 64 bits")
        self.push(self.number(count, signed=True))

    def extend(self, items: list[Any] | tuple[Any, ...]) -> None:
        self.top(list).extend(items)

    def set_items(self, items: list[Any] | tuple[Any, ...]) -> None:
        target = self.top(dict)
        if len(items) % 2:
            raise ValueError("its pickle has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Of other types a hash may take long, or go too deep
            if type(key) is not str and not (type(key) is int and abs(key) < 1 << 32):
                raise ValueError(f"its pickle has a dictionary with a {type(key).__name__} as a key")
            if key in target:
                raise ValueError(f"its pickle has the name {_shown(str(key))} twice")
            target[key] = value

    def look_up(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise ValueError("its pickle uses something other than text as a name")
        full = f"{module}.{name}"
        if full not in GLOBALS:
            raise ForeignError(
                f"its pickle names {_shown(full)}, which is not part of a tensor and could run code where "
                "it is loaded (nothing was run; model.state_dict(), saved alone, has tensors only)"
            )
        self.push(GLOBALS[full])

    def build(self) -> None:
        state = self.pop()  # the attributes of an OrderedDict, such as the versions that modules have
        self.top(dict)
        if type(state) is not dict:
            raise ValueError("its pickle changes a dictionary by what is none")

    # -- tensors ----------------------------------------------------------------------------------------------

    def storage(self) -> None:
        match self.pop():
            case ("storage", Global(name, dtype), str(key), str(), int(count)) if name.endswith("Storage"):
                pass
            case _:
                raise ValueError("its pickle refers to something else than a storage")
        if key not in self.sizes:
            raise ValueError(f"it has no storage {_shown(key)}, which its pickle refers to")
        nbytes = count * (STORAGE[dtype].itemsize if dtype else 1)
        if nbytes != self.sizes[key]:
            raise ValueError(f"storage {key} has {self.sizes[key]} bytes, and its pickle says {nbytes}")
        self.push(Storage(key, dtype, nbytes))

    def reduce(self) -> None:
        function, args = self.pop_several(2)
        match function, args:
            case Global("collections.OrderedDict"), ():
                self.push({})
            case Global("torch.Size"), (tuple() as sides,):
                self.push(sides)
            case Global("torch._utils._rebuild_parameter"), (Strided() as tensor, _, _):
                self.push(tensor)
            case Global("torch._utils._rebuild_tensor_v2"), (
                Storage(_, str(dtype)) as storage,
                start,
                shape,
                steps,
                _,
                _,
            ):
                self.push(strided(storage, dtype, start, shape, steps))
            case Global("torch._utils._rebuild_tensor_v3"), (
                Storage() as storage,
                start,
                shape,
                steps,
                _,
                _,
                Global(_, str(dtype)),
            ):
                self.push(strided(storage, dtype, start, shape, steps))
            case _:
                name = function.name if type(function) is Global else f"a {type(function).__name__}"
                raise ValueError(
                    f"its pickle calls {name} with what it does not take, such as a tensor of another kind"
                )


def _shown(text: str) -> str:
    return ascii(text)[1:-1][:100]


_STEPS: dict[bytes, Callable[[_Machine], object]] = {
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"K": lambda m: m.push(m.number(1)),
    b"M": lambda m: m.push(m.number(2)),
    b"J": lambda m: m.push(m.number(4, signed=True)),
    b"\x8a": _Machine.long,
    b"G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    b"X": lambda m: m.push(m.text(m.number(4))),
    b"\x8c": lambda m: m.push(m.text(m.number(1))),
    b"\x95": lambda m: m.take(8),  # how long a frame is, which only matters to who reads from a stream
    b"(": _Machine.mark,
    b")": lambda m: m.push(()),
    b"t": lambda m: m.push(tuple(m.pop_mark())),
    b"\x85": lambda m: m.push(m.pop_several(1)),
    b"\x86": lambda m: m.push(m.pop_several(2)),
    b"\x87": lambda m: m.push(m.pop_several(3)),
    b"]": lambda m: m.push([]),
    b"a": lambda m: m.extend(m.pop_several(1)),
    b"e": lambda m: m.extend(m.pop_mark()),
    b"}": lambda m: m.push({}),
    b"s": lambda m: m.set_items(m.pop_several(2)),
    b"u": lambda m: m.set_items(m.pop_mark()),
    b"q": lambda m: m.put(m.number(1)),
    b"r": lambda m: m.put(m.number(4)),
    b"\x94": lambda m: m.put(len(m.memo)),
    b"h": lambda m: m.get(m.number(1)),
    b"j": lambda m: m.get(m.number(4)),
    b"c": lambda m: m.look_up(m.line(), m.line()),
    b"\x93": lambda m: m.look_up(*m.pop_several(2)),
    b"Q": _Machine.storage,
    b"R": _Machine.reduce,
    b"b": _Machine.build,
}
