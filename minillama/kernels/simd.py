"""A small SIMD vocabulary for Numba: vectors of 16 numbers as values, and what kernels do with them.

Numba compiles plain loops over float32 well, and loops over int8 or packed nibbles badly: it widens every product to
64 bits. Here a vector is a Numba type whose data model is an LLVM vector, and each function below is a few lines of
LLVM that the compiler lowers to what the CPU has: sixteen lanes are one AVX-512 register, two of AVX2, four of NEON.

    Vectors    f32x16, i32x16 and u8x64. `+ - * /` work lane by lane, and so do the functions named after what they do.
    Blocks     tuples of vectors, which live in registers: a matrix product keeps a block of sums there. A block of W
               weight rows times R activation rows is a tuple of W * R, and `rows` says R where it is needed.
    Arrays     one-dimensional and contiguous; an index counts numbers, not bytes. Numba has no 16-bit floats, so their
               bits travel as integers: int16 for float16, uint16 for bfloat16.
    Threads    fetch_add and wait_for, with which threads share out the work of one pass and wait for each other.

Nothing here checks an index.
"""

from __future__ import annotations

import ctypes
import hashlib
import operator
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils, config
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, models, overload, register_model

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


def _target_features() -> str:
    """The features of the CPU that Numba compiles for: the host's, unless NUMBA_CPU_NAME or _FEATURES say otherwise."""
    if config.CPU_FEATURES is not None:
        return str(config.CPU_FEATURES)
    return "" if config.CPU_NAME else str(get_host_cpu_features())


FEATURES = frozenset(name[1:] for name in _target_features().split(",") if name.startswith("+"))
# The four-wide product of bytes, where the CPU has it: 512 bits at once (AVX-512 VNNI), 256 (AVX-VNNI), or not at all
DOT_BITS = 512 if "avx512vnni" in FEATURES else 256 if "avxvnni" in FEATURES else 0
# Conversions of float16: every x86 with AVX2 has them, and all ARM of 64 bits
HALF_IN_HARDWARE = "f16c" in FEATURES or platform.machine().lower() in ("arm64", "aarch64")


class Vector(types.Type):
    """A vector of `lanes` numbers of one kind."""

    def __init__(self, kind: str, lanes: int):
        self.kind, self.lanes = kind, lanes
        super().__init__(name=f"{kind}x{lanes}")


f32x16, i32x16, u8x64 = Vector("f32", 16), Vector("i32", 16), Vector("u8", 64)

_I1, _I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
_FLOAT, _HALF = ir.FloatType(), ir.HalfType()
_KINDS = {"f32": _FLOAT, "i32": _I32, "u8": _I8}
_F, _I, _B = (ir.VectorType(_KINDS[v.kind], v.lanes) for v in (f32x16, i32x16, u8x64))

# What the numbers of an array are, by its type
_STORED = {types.float32: "f32", types.int16: "f16", types.uint16: "bf16"}


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector):
        super().__init__(manager, kind, ir.VectorType(_KINDS[kind.kind], kind.lanes))


# -- pieces of LLVM -----------------------------------------------------------------------------------------------


def _repeat(b: Any, scalar: Any, lanes: int = LANES) -> Any:
    """A vector with the same number in every lane."""
    kind = ir.VectorType(scalar.type, lanes)
    undefined = ir.Constant(kind, ir.Undefined)
    one = b.insert_element(undefined, scalar, _I32(0))
    return b.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))


def _pointer(context: Any, b: Any, kind: Any, array: Any, index: Any, what: Any) -> Any:
    """The address of array[index], as that of a `what`."""
    data = context.make_array(kind)(context, b, array).data
    return b.bitcast(b.gep(data, [index]), what.as_pointer())


def _load(b: Any, pointer: Any, align: int) -> Any:
    value = b.load(pointer)
    value.align = align  # of one number, not of the vector
    return value


def _at(b: Any, pointer: Any, offset: int) -> Any:
    return b.gep(pointer, [_I64(offset)])


def _call(b: Any, name: str, *values: Any) -> Any:
    """A function that LLVM has for vectors."""
    function = ir.FunctionType(_F, [_F] * len(values))
    return b.call(cgutils.get_or_insert_function(b.module, function, f"llvm.{name}.v16f32"), values)


def _widen_half(b: Any, bits: Any, kind: Any) -> Any:
    """float16 bits as float32, exactly; `kind`: float32, or a vector of them."""
    if HALF_IN_HARDWARE:
        return b.fpext(b.bitcast(bits, _like(kind, _HALF)), kind)
    # The exponent and fraction, moved into place, are a float32 that is 2^-112 times as large
    whole = _like(kind, _I32)
    bits = b.zext(bits, whole)
    sign = b.shl(b.and_(bits, _all(b, whole, 0x8000)), _all(b, whole, 16))
    rest = b.and_(bits, _all(b, whole, 0x7FFF))
    size = b.bitcast(b.fmul(b.bitcast(b.shl(rest, _all(b, whole, 13)), kind), _all(b, kind, 2.0**112)), whole)
    beyond = b.icmp_unsigned(">=", rest, _all(b, whole, 0x7C00))  # infinite, or no number
    size = b.select(beyond, b.or_(size, _all(b, whole, 0x7F800000)), size)
    return b.bitcast(b.or_(size, sign), kind)


def _narrow_half(b: Any, x: Any) -> Any:
    """The bits of the nearest float16, to even where two are as near."""
    kind = x.type
    if HALF_IN_HARDWARE:
        return b.bitcast(b.fptrunc(x, _like(kind, _HALF)), _like(kind, _I16))
    whole = _like(kind, _I32)
    bits = b.bitcast(x, whole)
    sign = b.and_(b.lshr(bits, _all(b, whole, 16)), _all(b, whole, 0x8000))
    size = b.and_(bits, _all(b, whole, 0x7FFFFFFF))
    odd = b.and_(b.lshr(size, _all(b, whole, 13)), _all(b, whole, 1))
    normal = b.lshr(b.add(b.add(size, odd), _all(b, whole, 0xFFF - (112 << 23))), _all(b, whole, 13))
    # Below 2^-14, adding 1/2 leaves the fraction's last bit where float16 has its own
    half = _all(b, kind, 0.5)
    small = b.sub(b.bitcast(b.fadd(b.bitcast(size, kind), half), whole), b.bitcast(half, whole))
    no_number = b.icmp_unsigned(">", size, _all(b, whole, 0x7F800000))
    large = b.select(no_number, _all(b, whole, 0x7E00), _all(b, whole, 0x7C00))
    made = b.select(b.icmp_unsigned("<", size, _all(b, whole, 0x38800000)), small, normal)
    made = b.select(b.icmp_unsigned(">=", size, _all(b, whole, 0x47800000)), large, made)
    return b.trunc(b.or_(made, sign), _like(kind, _I16))


def _narrow_bfloat16(b: Any, x: Any) -> Any:
    """The bits of the nearest bfloat16, to even where two are as near; what is no number stays none."""
    whole = _like(x.type, _I32)
    bits = b.bitcast(x, whole)
    top = b.lshr(bits, _all(b, whole, 16))
    rounded = b.add(bits, b.add(b.and_(top, _all(b, whole, 1)), _all(b, whole, 0x7FFF)))
    rounded = b.lshr(rounded, _all(b, whole, 16))
    made = b.select(b.fcmp_unordered("uno", x, x), b.or_(top, _all(b, whole, 0x40)), rounded)
    return b.trunc(made, _like(x.type, _I16))


def _like(kind: Any, scalar: Any) -> Any:
    """`scalar`, or a vector of as many as `kind` has."""
    return ir.VectorType(scalar, kind.count) if isinstance(kind, ir.VectorType) else scalar


def _all(b: Any, kind: Any, value: float) -> Any:
    """A constant, in every lane if `kind` is a vector."""
    if not isinstance(kind, ir.VectorType):
        return kind(value)
    return _repeat(b, kind.element(value), kind.count)


def _floats(context: Any, b: Any, kind: Any, array: Any, index: Any) -> Any:
    """16 numbers of an array, widened to float32; exact."""
    stored = _STORED[kind.dtype]
    if stored == "f32":
        return _load(b, _pointer(context, b, kind, array, index, _F), 4)
    bits = _load(b, _pointer(context, b, kind, array, index, ir.VectorType(_I16, LANES)), 2)
    if stored == "f16":
        return _widen_half(b, bits, _F)
    return b.bitcast(b.shl(b.zext(bits, _I), _repeat(b, _I32(16))), _F)  # bfloat16 is the upper half of a float32


def _dot(b: Any, sums: Any, unsigned: Any, signed: Any) -> Any:
    """sums[i] + the products of bytes 4 i .. 4 i + 3, for 16 lanes i. All forms give the same integers."""
    if DOT_BITS == 512:
        return b.call(_dot_instruction(b, 512), [sums, unsigned, signed])
    if DOT_BITS == 256:
        halves = []
        for half in range(2):
            low = [_part(b, v, half * v.type.count // 2, v.type.count // 2) for v in (sums, unsigned, signed)]
            halves.append(b.call(_dot_instruction(b, 256), low))
        return b.shuffle_vector(*halves, ir.Constant(ir.VectorType(_I32, 16), list(range(16))))
    # Products of a byte with a signed byte fit 16 bits; adding them in pairs as 32 bits is one instruction on most CPUs
    wide = ir.VectorType(_I16, 64)
    x, y = b.zext(unsigned, wide), b.sext(signed, wide)
    products = []
    for place in range(4):
        lanes = ir.Constant(ir.VectorType(_I32, 16), list(range(place, 64, 4)))
        one, other = (b.sext(b.shuffle_vector(v, v, lanes), _I) for v in (x, y))
        products.append(b.mul(one, other))
    return b.add(sums, b.add(b.add(products[0], products[1]), b.add(products[2], products[3])))


def _part(b: Any, vector: Any, start: int, count: int) -> Any:
    lanes = ir.Constant(ir.VectorType(_I32, count), list(range(start, start + count)))
    return b.shuffle_vector(vector, vector, lanes)


def _dot_instruction(b: Any, bits: int) -> Any:
    sums, bytes_ = ir.VectorType(_I32, bits // 32), ir.VectorType(_I8, bits // 8)
    function = ir.FunctionType(sums, [sums, bytes_, bytes_])
    return cgutils.get_or_insert_function(b.module, function, f"llvm.x86.avx512.vpdpbusd.{bits}")


def _block(count: int, vector: Vector = f32x16) -> Any:
    return types.UniTuple(vector, count)


def _literal(value: Any) -> int | None:
    return getattr(value, "literal_value", None)


# -- vectors ------------------------------------------------------------------------------------------------------


@intrinsic
def splat(typing: Any, x: Any) -> Any:
    """A number in every lane."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return _repeat(b, args[0])

    return (f32x16(types.float32), build) if isinstance(x, types.Number) else None


@intrinsic
def load(typing: Any, a: Any, i: Any) -> Any:
    """a[i : i + 16] as float32, from float32, float16 bits (int16) or bfloat16 bits (uint16); exact."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return _floats(context, b, signature.args[0], *args)

    return f32x16(a, types.int64), build


@intrinsic
def store(typing: Any, a: Any, i: Any, x: Any) -> Any:
    """a[i : i + 16] = x, rounded to the nearest number of the array's kind (to even where two are as near)."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        array, index, value = args
        kind, align = signature.args[0], 2
        if _STORED[kind.dtype] == "f32":
            align = 4
        else:
            value = (_narrow_half if _STORED[kind.dtype] == "f16" else _narrow_bfloat16)(b, value)
        b.store(value, _pointer(context, b, kind, array, index, value.type), align=align)
        return context.get_dummy_value()

    return types.void(a, types.int64, f32x16), build


@intrinsic
def put(typing: Any, a: Any, i: Any, x: Any) -> Any:
    """a[i] = x, one number, rounded as `store` rounds; what is too large for float16 becomes its largest."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        array, index, value = args
        kind = signature.args[0]
        stored = _STORED[kind.dtype]
        if stored == "f16":
            for sign, limit in ((">", 65504.0), ("<", -65504.0)):
                value = b.select(b.fcmp_ordered(sign, value, _FLOAT(limit)), _FLOAT(limit), value)
            value = _narrow_half(b, value)
        elif stored == "bf16":
            value = _narrow_bfloat16(b, value)
        b.store(value, _pointer(context, b, kind, array, index, value.type))
        return context.get_dummy_value()

    return types.void(a, types.int64, types.float32), build


@intrinsic
def fma(typing: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z, rounded once."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return _call(b, "fma", *args)

    return f32x16(f32x16, f32x16, f32x16), build


def _of_two(name: str, method: str) -> Any:
    @intrinsic
    def of_two(typing: Any, x: Any, y: Any) -> Any:
        def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
            return getattr(b, method)(*args)

        return f32x16(f32x16, f32x16), build

    @overload(getattr(operator, name))
    def by_operator(x: Any, y: Any) -> Any:
        def lanes(x: Any, y: Any) -> Any:
            return of_two(x, y)

        return lanes if x is f32x16 and y is f32x16 else None

    return of_two


add, subtract, multiply, divide = (
    _of_two(name, method) for name, method in (("add", "fadd"), ("sub", "fsub"), ("mul", "fmul"), ("truediv", "fdiv"))
)


@intrinsic
def maximum(typing: Any, x: Any, y: Any) -> Any:
    """The larger of two, lane by lane; y where one of them is no number."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return b.select(b.fcmp_ordered(">", *args), *args)

    return f32x16(f32x16, f32x16), build


@intrinsic
def minimum(typing: Any, x: Any, y: Any) -> Any:
    """The smaller of two, lane by lane; y where one of them is no number."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return b.select(b.fcmp_ordered("<", *args), *args)

    return f32x16(f32x16, f32x16), build


@intrinsic
def absolute(typing: Any, x: Any) -> Any:
    """|x|"""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return _call(b, "fabs", *args)

    return f32x16(f32x16), build


@intrinsic
def nearest(typing: Any, x: Any) -> Any:
    """The nearest whole number, the even one of two."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return _call(b, "roundeven", *args)

    return f32x16(f32x16), build


@intrinsic
def sum_of(typing: Any, x: Any) -> Any:
    """The sum of the lanes: halves are added to halves, four times."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return _fold(b, args[0], b.fadd)

    return types.float32(f32x16), build


@intrinsic
def largest(typing: Any, x: Any) -> Any:
    """The largest lane."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        def larger(x: Any, y: Any) -> Any:
            return b.select(b.fcmp_ordered(">", x, y), x, y)

        return _fold(b, args[0], larger)

    return types.float32(f32x16), build


def _fold(b: Any, vector: Any, combine: Callable[[Any, Any], Any]) -> Any:
    count = vector.type.count
    while count > 1:
        count //= 2
        vector = combine(_part(b, vector, 0, count), _part(b, vector, count, count))
    return b.extract_element(vector, _I32(0))


@intrinsic
def first(typing: Any, x: Any, n: Any, other: Any) -> Any:
    """The first n lanes of x, and those of `other` behind them."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        count = b.trunc(args[1], _I32)
        places = ir.Constant(_I, list(range(LANES)))
        return b.select(b.icmp_signed("<", places, _repeat(b, count)), args[0], args[2])

    return f32x16(f32x16, types.int64, f32x16), build


@intrinsic
def where_set(typing: Any, flags: Any, i: Any, x: Any, other: Any) -> Any:
    """x where the bytes flags[i : i + 16] are not 0, and `other` elsewhere."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(_I8, LANES)
        stored = _load(b, _pointer(context, b, signature.args[0], args[0], args[1], kind), 1)
        return b.select(b.icmp_unsigned("!=", stored, _repeat(b, _I8(0))), args[2], args[3])

    return f32x16(flags, types.int64, f32x16, f32x16), build


@intrinsic
def _power_of_two(typing: Any, n: Any) -> Any:
    """2 ** n for whole numbers n in -126 .. 127: n in the place of the exponent."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        exponent = b.add(b.fptosi(args[0], _I), _repeat(b, _I32(127)))
        return b.bitcast(b.shl(exponent, _repeat(b, _I32(23))), _F)

    return f32x16(f32x16), build


@intrinsic
def where_above(typing: Any, x: Any, least: Any, value: Any, other: Any) -> Any:
    """`value` where x > least, and `other` elsewhere."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return b.select(b.fcmp_ordered(">", args[0], args[1]), args[2], args[3])

    return f32x16(f32x16, f32x16, f32x16, f32x16), build


@njit
def exp(x: Any) -> Any:
    """e ** x for x <= 88, lane by lane, within 2.5e-7 of its size; 0 from -87 down, for -inf too.

    x = n ln 2 + r, |r| <= ln 2 / 2: 2 ** n is an exponent, e ** r a polynomial of degree 6 (its Taylor series; the
    first term left out is below 1.2e-7). ln 2 is taken off in two parts, so that n ln 2 is exact to the last bit.
    """
    n = nearest(x * splat(1.4426950408889634))
    r = fma(n, splat(-0.693145751953125), x)
    r = fma(n, splat(-1.428606765330187e-06), r)
    p = fma(r, splat(1 / 720), splat(1 / 120))
    p = fma(p, r, splat(1 / 24))
    p = fma(p, r, splat(1 / 6))
    p = fma(p, r, splat(0.5))
    p = fma(p, r, splat(1.0))
    p = fma(p, r, splat(1.0))
    return where_above(x, splat(-87.0), p * _power_of_two(maximum(n, splat(-126.0))), splat(0.0))


# -- blocks: products of matrices ---------------------------------------------------------------------------------


@intrinsic
def zeros(typing: Any, n: Any) -> Any:
    """A block of n vectors of zeros."""
    count = _literal(n)
    if count is None:
        return None

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(ir.ArrayType(_F, count), None)

    return _block(count)(n), build


@intrinsic
def outer(typing: Any, sums: Any, w: Any, i: Any, w_step: Any, a: Any, j: Any, rows: Any) -> Any:
    """sums[m, r] += w[i + m * w_step : + 16] * a[j + 16 r : + 16], a product in every lane."""
    R = _literal(rows)
    if R is None:
        return None

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        block, weights, i, step, activations, j = args[:6]
        kinds = signature.args
        xs = [_floats(context, b, kinds[4], activations, b.add(j, _I64(LANES * r))) for r in range(R)]
        for m in range(sums.count // R):
            row = _floats(context, b, kinds[1], weights, b.add(i, b.mul(step, _I64(m))))
            for r in range(R):
                place = m * R + r
                block = b.insert_value(block, _call(b, "fma", row, xs[r], b.extract_value(block, place)), place)
        return block

    return sums(sums, w, types.int64, types.int64, a, types.int64, rows), build


@intrinsic
def add_scaled(typing: Any, sums: Any, x: Any, a: Any, j: Any, step: Any) -> Any:
    """sums[r] += x * a[j + r * step], the same number in all lanes."""
    stride = _literal(step)
    if stride is None:
        return None

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        block, vector, activations, j, _ = args
        pointer = _pointer(context, b, signature.args[2], activations, j, _FLOAT)
        for r in range(sums.count):
            factor = _repeat(b, _load(b, _at(b, pointer, r * stride), 4))
            block = b.insert_value(block, _call(b, "fma", vector, factor, b.extract_value(block, r)), r)
        return block

    return sums(sums, f32x16, a, types.int64, step), build


@intrinsic
def splat_ints(typing: Any, a: Any, j: Any, n: Any, rows: Any) -> Any:
    """A block of n integer vectors, for `rows` rows: a[j + r] in all lanes of every vector of row r."""
    count, R = _literal(n), _literal(rows)
    if count is None or R is None:
        return None

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, b, signature.args[0], args[0], args[1], _I32)
        vectors = [_repeat(b, _load(b, _at(b, pointer, r), 4)) for r in range(R)]
        block = ir.Constant(ir.ArrayType(_I, count), ir.Undefined)
        for place in range(count):
            block = b.insert_value(block, vectors[place % R], place)
        return block

    return _block(count, i32x16)(a, types.int64, n, rows), build


@intrinsic
def dot_group(typing: Any, ints: Any, w: Any, i: Any, w_step: Any, a: Any, j: Any, rows: Any) -> Any:
    """ints[m, r] += the products of a group of 32 columns: of 16 weight rows from w[i + m * w_step] on, four columns of
    each in 64 bytes, with `rows` activation rows from a[j] on, four columns of each in 4 bytes.

    Weights in an array of uint8 are a byte each, unsigned (kernels/quantize.py says with which offset). In an array of
    int8 they are half a byte each: the low halves are those of columns 0 .. 15, the high halves of 16 .. 31.
    """
    R = _literal(rows)
    if R is None:
        return None
    nibbles = w.dtype is types.int8
    steps = 4 if nibbles else 8

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        block, weights, i, step, activations, j = args[:6]
        pointer = _pointer(context, b, signature.args[4], activations, j, _I32)
        for k in range(steps):
            fours = [
                [b.bitcast(_repeat(b, _load(b, _at(b, pointer, place * R + r), 4)), _B) for r in range(R)]
                for place in ((k, k + 4) if nibbles else (k,))
            ]
            for m in range(ints.count // R):
                index = b.add(i, b.add(b.mul(step, _I64(m)), _I64(64 * k)))
                stored = _load(b, _pointer(context, b, signature.args[1], weights, index, _B), 1)
                low, high = b.and_(stored, _repeat(b, _I8(15), 64)), b.lshr(stored, _repeat(b, _I8(4), 64))
                for vector, four in zip((low, high) if nibbles else (stored,), fours, strict=True):
                    for r in range(R):
                        place = m * R + r
                        dot = _dot(b, b.extract_value(block, place), vector, four[r])
                        block = b.insert_value(block, dot, place)
        return block

    return ints(ints, w, types.int64, types.int64, a, types.int64, rows), build


@intrinsic
def add_products(typing: Any, sums: Any, ints: Any, scales: Any, i: Any, s_step: Any, s: Any, j: Any, rows: Any) -> Any:
    """sums[m, r] += ints[m, r] * (scales[i + m * s_step : + 16] * s[j + r]), the scales of 16 weight rows and of one
    activation row."""
    R = _literal(rows)
    if R is None:
        return None

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        block, products, weights, i, step, activations, j = args[:7]
        pointer = _pointer(context, b, signature.args[5], activations, j, _FLOAT)
        factors = [_repeat(b, _load(b, _at(b, pointer, r), 4)) for r in range(R)]
        for m in range(sums.count // R):
            row = _floats(context, b, signature.args[2], weights, b.add(i, b.mul(step, _I64(m))))
            for r in range(R):
                place = m * R + r
                product = b.sitofp(b.extract_value(products, place), _F)
                value = _call(b, "fma", product, b.fmul(row, factors[r]), b.extract_value(block, place))
                block = b.insert_value(block, value, place)
        return block

    return sums(sums, ints, scales, types.int64, types.int64, s, types.int64, rows), build


@intrinsic
def store_block(typing: Any, out: Any, i: Any, m_step: Any, r_step: Any, block: Any, rows: Any) -> Any:
    """out[i + m * m_step + r * r_step : + 16] = block[m, r]"""
    R = _literal(rows)
    if R is None:
        return None

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        array, i, m_step, r_step, values = args[:5]
        for place in range(block.count):
            index = b.add(i, b.add(b.mul(m_step, _I64(place // R)), b.mul(r_step, _I64(place % R))))
            pointer = _pointer(context, b, signature.args[0], array, index, _F)
            b.store(b.extract_value(values, place), pointer, align=4)
        return context.get_dummy_value()

    return types.void(out, types.int64, types.int64, types.int64, block, rows), build


@intrinsic
def load_block(typing: Any, a: Any, i: Any, step: Any, n: Any) -> Any:
    """A block of n vectors, a[i + r * step : + 16]."""
    count = _literal(n)
    if count is None:
        return None

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        block = ir.Constant(ir.ArrayType(_F, count), ir.Undefined)
        for r in range(count):
            value = _floats(context, b, signature.args[0], args[0], b.add(args[1], b.mul(args[2], _I64(r))))
            block = b.insert_value(block, value, r)
        return block

    return _block(count)(a, types.int64, types.int64, n), build


@intrinsic
def store_sums(typing: Any, out: Any, i: Any, m_step: Any, r_step: Any, block: Any, rows: Any) -> Any:
    """out[i + m * m_step + r * r_step] = sum_of(block[m, r]), to the bit; the block has 1, 2, 4, 8 or 16 vectors."""
    R = _literal(rows)
    if R is None:
        return None

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        array, i, m_step, r_step, values = args[:5]
        totals = _fold_all(b, [b.extract_value(values, place) for place in range(block.count)])
        for place in range(block.count):
            index = b.add(i, b.add(b.mul(m_step, _I64(place // R)), b.mul(r_step, _I64(place % R))))
            pointer = _pointer(context, b, signature.args[0], array, index, _FLOAT)
            b.store(b.extract_element(totals, _I32(place)), pointer, align=4)
        return context.get_dummy_value()

    return types.void(out, types.int64, types.int64, types.int64, block, rows), build


def _fold_all(b: Any, vectors: list[Any]) -> Any:
    """The sums of several vectors, as one: each is halved as in _fold, two of them side by side in one register."""
    length = LANES  # of the part of a register that belongs to one of the vectors
    while length > 1:
        length //= 2
        pairs = list(zip(vectors[::2], vectors[1::2], strict=True)) if len(vectors) > 1 else [(vectors[0],) * 2]
        lanes = len(pairs[0]) * vectors[0].type.count if len(vectors) > 1 else vectors[0].type.count
        starts = range(0, lanes, 2 * length)
        halves = [[start + half * length + n for start in starts for n in range(length)] for half in range(2)]
        low, high = (ir.Constant(ir.VectorType(_I32, len(half)), half) for half in halves)
        vectors = [b.fadd(b.shuffle_vector(x, y, low), b.shuffle_vector(x, y, high)) for x, y in pairs]
    return vectors[0]


# -- bytes --------------------------------------------------------------------------------------------------------


@intrinsic
def store_bytes(typing: Any, a: Any, i: Any, step: Any, x: Any) -> Any:
    """Sixteen whole numbers in -128 .. 127, four by four at a[i + n * step : + 4]; their sum."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        array, i, step, value = args
        whole = b.fptosi(value, _I)
        fours = b.bitcast(b.trunc(whole, ir.VectorType(_I8, LANES)), ir.VectorType(_I32, 4))
        for n in range(4):
            pointer = _pointer(context, b, signature.args[0], array, b.add(i, b.mul(step, _I64(n))), _I32)
            b.store(b.extract_element(fours, _I32(n)), pointer, align=1)
        return _fold(b, whole, b.add)

    return types.int32(a, types.int64, types.int64, f32x16), build


@intrinsic
def half_bits(typing: Any, x: Any) -> Any:
    """The bits of the float16 nearest to x."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return _narrow_half(b, args[0])

    return types.int16(types.float32), build


@intrinsic
def from_half(typing: Any, bits: Any) -> Any:
    """The float16 with these bits, exactly."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return _widen_half(b, args[0], _FLOAT)

    return types.float32(types.int16), build


# -- memory and threads -------------------------------------------------------------------------------------------


@intrinsic
def at(typing: Any, address: Any, like: Any) -> Any:
    """The numbers at an address, as an array of the kind of `like`. Its length is not known: nothing checks it."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        kind = signature.return_type
        array = context.make_array(kind)(context, b)
        size = context.get_abi_sizeof(context.get_value_type(kind.dtype))
        count = _I64(1 << 40)
        context.populate_array(
            array,
            data=b.inttoptr(args[0], array.data.type),
            shape=cgutils.pack_array(b, [count]),
            strides=cgutils.pack_array(b, [_I64(size)]),
            itemsize=_I64(size),
            meminfo=None,
        )
        return array._getvalue()

    return types.Array(like.dtype, 1, "C")(types.int64, like), build


@intrinsic
def fetch_add(typing: Any, a: Any, i: Any, n: Any) -> Any:
    """What a[i] was before n was added to it, with no other thread in between."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, b, signature.args[0], args[0], args[1], _I64)
        return b.atomic_rmw("add", pointer, args[2], "seq_cst")

    return types.int64(a, types.int64, types.int64), build


@intrinsic
def _look(typing: Any, a: Any, i: Any) -> Any:
    """a[i], as another thread may have left it this moment."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        pointer = _pointer(context, b, signature.args[0], args[0], args[1], _I64)
        return b.load_atomic(pointer, "seq_cst", 8)

    return types.int64(a, types.int64), build


def _yield_address() -> int:
    """Of the system's function by which a thread lets others run."""
    if sys.platform == "win32":
        library, name = ctypes.WinDLL("kernel32"), "SwitchToThread"
    else:
        library, name = ctypes.CDLL(None), "sched_yield"
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0


# By a name of our own, which compiled code that is kept on disk finds again
binding.add_symbol("minillama_yield", _yield_address())


@intrinsic
def let_others_run(typing: Any) -> Any:
    """Give this thread's core to another one that waits for it."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        b.call(cgutils.get_or_insert_function(b.module, ir.FunctionType(_I32, []), "minillama_yield"), [])
        return context.get_dummy_value()

    return types.void(), build


@njit
def wait_for(a: Any, i: int, n: int) -> None:
    """Wait until a[i] is at least n. Threads of one pass run at the same time, so that is soon; unless the machine has
    other work, and one of them has no core at the moment."""
    looks = 0
    while _look(a, i) < n:
        looks += 1
        if looks > 2000:
            let_others_run()
