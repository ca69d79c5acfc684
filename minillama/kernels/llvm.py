"""Pieces of LLVM that the vocabulary of vectors is made of: simd.py, blocks.py and threads.py are for kernels to use.

A vector is a Numba type whose data model is an LLVM vector. Functions here take LLVM's instruction builder `b` and its
values, and return what they built. Nothing checks an index.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import models, register_model

LANES = 16


def _sources() -> str:
    """A digest of the files that kernels are compiled from.

    Numba keeps compiled code for as long as the file of the function is unchanged, whatever that calls. So only those
    functions are kept that are called from outside, and each holds this digest in its closure, which Numba compares.
    """
    here = Path(__file__)
    files = [*sorted(here.parent.glob("*.py")), here.parents[1] / "layout.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


SOURCES = _sources()


def target_features() -> str:
    """The features of the CPU that Numba compiles for: the host's, unless NUMBA_CPU_NAME or _FEATURES say otherwise."""
    if config.CPU_FEATURES is not None:
        return str(config.CPU_FEATURES)
    return "" if config.CPU_NAME else str(get_host_cpu_features())


FEATURES = frozenset(name[1:] for name in target_features().split(",") if name.startswith("+"))
# A block of sums must fit the registers: 32 of 16 lanes with AVX-512, a quarter of that with AVX2 and on ARM. Sizes for
# ARM are those that compile well there; none has been measured
WIDE = "avx512f" in FEATURES
HALVES = "avx2" in FEATURES and not WIDE  # blocks of half vectors, see blocks.py
# What one activation row reads of memory is faster the more streams there are where Intel's cores follow them, up to 8;
# AMD's, of Zen 5, are faster with 2 to 4. Others have not been measured
MANY_STREAMS = WIDE and not (config.CPU_NAME or binding.get_host_cpu_name()).startswith("znver")
ARM = platform.machine().lower() in ("arm64", "aarch64")
HALF_IN_HARDWARE = "f16c" in FEATURES or ARM  # conversions of float16: every x86 with AVX2 has them, and all of ARM


def inner(function: Callable[..., Any]) -> Any:
    """Compile a function that kernels alone call: without the code by which Python and C would call it, which is a
    quarter of what compiling takes. A call from Python ends the process.

    Compiled code knows a function by its name, the types of its arguments, and a number that counts up in each process
    anew. Functions that one factory makes differ in neither of the first two, and of two kernels, one of which was
    compiled in another process and kept, each could then run the other's. So the name says what the factory was given.
    """
    function.__qualname__ = named(function)
    return njit(no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)


def named(value: Any) -> str:
    """A name of a function that tells it from others that the same factory makes; of anything else, what it is."""
    value = getattr(value, "py_func", getattr(value, "_defn", value))  # of what is compiled, and of an intrinsic
    if not hasattr(value, "__qualname__"):
        return repr(value)
    name = re.sub(r"__made_of_\w+$", "", value.__qualname__)
    given = [named(cell.cell_contents) for cell in getattr(value, "__closure__", None) or ()]
    digest = hashlib.sha256("\n".join(given).encode()).hexdigest()[:16]
    return f"{name}__made_of_{digest}" if given else name


class Vector(types.Type):
    """A vector of `lanes` numbers of one kind."""

    def __init__(self, kind: str, lanes: int):
        self.kind, self.lanes = kind, lanes
        super().__init__(name=f"{kind}x{lanes}")


f32x16, i32x16, u8x64 = Vector("f32", 16), Vector("i32", 16), Vector("u8", 64)
f32x8 = Vector("f32", 8)

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
FLOAT, HALF = ir.FloatType(), ir.HalfType()
_KINDS = {"f32": FLOAT, "i32": I32, "u8": I8}
FLOATS, INTS, BYTES = (ir.VectorType(_KINDS[v.kind], v.lanes) for v in (f32x16, i32x16, u8x64))
HALF_FLOATS = ir.VectorType(FLOAT, f32x8.lanes)

# What the numbers of an array are, by its type
STORED = {types.float32: "f32", types.int16: "f16", types.uint16: "bf16"}


def form_of(kind: Any) -> str:
    """The number format of the weights in an array, by the type of its elements. Bytes of whole numbers are in a record
    whose only field has the format's name."""
    if isinstance(kind, types.Record):
        return str(next(iter(kind.fields)))
    return STORED.get(kind, "bf16z")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector):
        super().__init__(manager, kind, ir.VectorType(_KINDS[kind.kind], kind.lanes))


def repeat(b: Any, scalar: Any, lanes: int = LANES) -> Any:
    """A vector with the same number in every lane."""
    kind = ir.VectorType(scalar.type, lanes)
    undefined = ir.Constant(kind, ir.Undefined)
    one = b.insert_element(undefined, scalar, I32(0))
    return b.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def pointer(context: Any, b: Any, kind: Any, array: Any, index: Any, what: Any) -> Any:
    """The address of array[index], as that of a `what`."""
    data = context.make_array(kind)(context, b, array).data
    return b.bitcast(b.gep(data, [index]), what.as_pointer())


def load_from(b: Any, place: Any, align: int) -> Any:
    """What is at an address. align: of one number, not of the vector."""
    value = b.load(place)
    value.align = align
    return value


def offset(b: Any, place: Any, count: int) -> Any:
    """The address of the number that is so many further."""
    return b.gep(place, [I64(count)])


def call(b: Any, name: str, *values: Any) -> Any:
    """A function that LLVM has for vectors of float32."""
    kind = values[0].type
    function = ir.FunctionType(kind, [kind] * len(values))
    return b.call(cgutils.get_or_insert_function(b.module, function, f"llvm.{name}.v{kind.count}f32"), values)


def special(b: Any, name: str, result: Any, *values: Any) -> Any:
    """An instruction that one kind of CPU has. LLVM ends the process where it is asked for on another."""
    function = ir.FunctionType(result, [value.type for value in values])
    return b.call(cgutils.get_or_insert_function(b.module, function, f"llvm.{name}"), values)


def fetch(b: Any, place: Any) -> None:
    """Ask for what is at an address: to read it, from the nearest cache, as data."""
    kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
    b.call(cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0"), [place, I32(0), I32(3), I32(1)])


def widen_half(b: Any, bits: Any, kind: Any) -> Any:
    """float16 bits as float32, exactly; `kind`: float32, or a vector of them."""
    if HALF_IN_HARDWARE:
        return b.fpext(b.bitcast(bits, like(kind, HALF)), kind)
    # The exponent and fraction, moved into place, are a float32 that is 2^-112 times as large
    whole = like(kind, I32)
    bits = b.zext(bits, whole)
    sign = b.shl(b.and_(bits, constant(b, whole, 0x8000)), constant(b, whole, 16))
    rest = b.and_(bits, constant(b, whole, 0x7FFF))
    size = b.bitcast(b.fmul(b.bitcast(b.shl(rest, constant(b, whole, 13)), kind), constant(b, kind, 2.0**112)), whole)
    beyond = b.icmp_unsigned(">=", rest, constant(b, whole, 0x7C00))  # infinite, or no number
    size = b.select(beyond, b.or_(size, constant(b, whole, 0x7F800000)), size)
    return b.bitcast(b.or_(size, sign), kind)


def narrow_half(b: Any, x: Any) -> Any:
    """The bits of the nearest float16, to even where two are as near."""
    kind = x.type
    if HALF_IN_HARDWARE:
        return b.bitcast(b.fptrunc(x, like(kind, HALF)), like(kind, I16))
    whole = like(kind, I32)
    bits = b.bitcast(x, whole)
    sign = b.and_(b.lshr(bits, constant(b, whole, 16)), constant(b, whole, 0x8000))
    size = b.and_(bits, constant(b, whole, 0x7FFFFFFF))
    odd = b.and_(b.lshr(size, constant(b, whole, 13)), constant(b, whole, 1))
    normal = b.lshr(b.add(b.add(size, odd), constant(b, whole, 0xFFF - (112 << 23))), constant(b, whole, 13))
    # Below 2^-14, adding 1/2 leaves the fraction's last bit where float16 has its own
    half = constant(b, kind, 0.5)
    small = b.sub(b.bitcast(b.fadd(b.bitcast(size, kind), half), whole), b.bitcast(half, whole))
    no_number = b.icmp_unsigned(">", size, constant(b, whole, 0x7F800000))
    large = b.select(no_number, constant(b, whole, 0x7E00), constant(b, whole, 0x7C00))
    made = b.select(b.icmp_unsigned("<", size, constant(b, whole, 0x38800000)), small, normal)
    made = b.select(b.icmp_unsigned(">=", size, constant(b, whole, 0x47800000)), large, made)
    return b.trunc(b.or_(made, sign), like(kind, I16))


def narrow_bfloat16(b: Any, x: Any) -> Any:
    """The bits of the nearest bfloat16, to even where two are as near; what is no number stays none."""
    whole = like(x.type, I32)
    bits = b.bitcast(x, whole)
    top = b.lshr(bits, constant(b, whole, 16))
    rounded = b.add(bits, b.add(b.and_(top, constant(b, whole, 1)), constant(b, whole, 0x7FFF)))
    rounded = b.lshr(rounded, constant(b, whole, 16))
    made = b.select(b.fcmp_unordered("uno", x, x), b.or_(top, constant(b, whole, 0x40)), rounded)
    return b.trunc(made, like(x.type, I16))


def like(kind: Any, scalar: Any) -> Any:
    """`scalar`, or a vector of as many as `kind` has."""
    return ir.VectorType(scalar, kind.count) if isinstance(kind, ir.VectorType) else scalar


def constant(b: Any, kind: Any, value: float) -> Any:
    """A constant, in every lane if `kind` is a vector."""
    if not isinstance(kind, ir.VectorType):
        return kind(value)
    return repeat(b, kind.element(value), kind.count)


def floats(context: Any, b: Any, kind: Any, array: Any, index: Any, lanes: int = LANES) -> Any:
    """16 numbers of an array, or another number of them, widened to float32; exact."""
    stored, vector = STORED[kind.dtype], ir.VectorType(FLOAT, lanes)
    if stored == "f32":
        return load_from(b, pointer(context, b, kind, array, index, vector), 4)
    bits = load_from(b, pointer(context, b, kind, array, index, ir.VectorType(I16, lanes)), 2)
    if stored == "f16":
        return widen_half(b, bits, vector)
    whole = b.zext(bits, ir.VectorType(I32, lanes))
    return b.bitcast(b.shl(whole, constant(b, whole.type, 16)), vector)  # bfloat16 is the upper half of a float32


def part(b: Any, vector: Any, start: int, count: int) -> Any:
    lanes = ir.Constant(ir.VectorType(I32, count), list(range(start, start + count)))
    return b.shuffle_vector(vector, vector, lanes)


def join(b: Any, x: Any, y: Any) -> Any:
    lanes = ir.Constant(ir.VectorType(I32, 2 * x.type.count), list(range(2 * x.type.count)))
    return b.shuffle_vector(x, y, lanes)


def block_of(count: int, vector: Vector = f32x16) -> Any:
    return types.UniTuple(vector, count)


def literal(value: Any) -> int | None:
    return getattr(value, "literal_value", None)


def fold(b: Any, vector: Any, combine: Callable[[Any, Any], Any]) -> Any:
    """One lane of all: halves are combined with halves until one is left."""
    count = vector.type.count
    while count > 1:
        count //= 2
        vector = combine(part(b, vector, 0, count), part(b, vector, count, count))
    return b.extract_element(vector, I32(0))
