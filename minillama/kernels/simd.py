"""A small SIMD vocabulary for Numba: vectors of 16 numbers as values.

Numba compiles plain loops over float32 well, and loops over int8 or packed nibbles badly: it widens every product to
64 bits. Here a vector is a Numba type, and each function below is a few lines of LLVM that the compiler lowers to what
the CPU has: sixteen lanes are one AVX-512 register, two of AVX2, four of NEON.

    Vectors    16 float32 numbers. `+ - * /` work lane by lane, and so do the functions named after what they do.
    Blocks     tuples of vectors, see blocks.py.
    Arrays     one-dimensional and contiguous; an index counts numbers, not bytes. Numba has no 16-bit floats, so their
               bits travel as integers: int16 for float16, uint16 for bfloat16.

Nothing here checks an index.
"""

from __future__ import annotations

import math
import operator
from typing import Any

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from minillama.kernels import llvm
from minillama.kernels.llvm import LANES, f32x16

ABOVE_87 = -86.99999237060547  # the float32 next to -87, above it


@intrinsic
def splat(typing: Any, x: Any) -> Any:
    """A number in every lane."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return llvm.repeat(b, args[0])

    return (f32x16(types.float32), build) if isinstance(x, types.Number) else None


@intrinsic
def load(typing: Any, a: Any, i: Any) -> Any:
    """a[i : i + 16] as float32, from float32, float16 bits (int16) or bfloat16 bits (uint16); exact."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return llvm.floats(context, b, signature.args[0], *args)

    return f32x16(a, types.int64), build


@intrinsic
def store(typing: Any, a: Any, i: Any, x: Any) -> Any:
    """a[i : i + 16] = x, rounded to the nearest number of the array's kind (to even where two are as near)."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        array, index, value = args
        kind, align = signature.args[0], 2
        if llvm.STORED[kind.dtype] == "f32":
            align = 4
        else:
            value = (llvm.narrow_half if llvm.STORED[kind.dtype] == "f16" else llvm.narrow_bfloat16)(b, value)
        b.store(value, llvm.pointer(context, b, kind, array, index, value.type), align=align)
        return context.get_dummy_value()

    return types.void(a, types.int64, f32x16), build


@intrinsic
def prefetch(typing: Any, a: Any, i: Any, ahead: Any) -> Any:
    """Have the memory `ahead` bytes behind a[i] on its way into the caches. Any address will do."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        place = llvm.pointer(context, b, signature.args[0], args[0], args[1], llvm.I8)
        llvm.fetch(b, b.gep(place, [args[2]]))
        return context.get_dummy_value()

    return types.void(a, types.int64, types.int64), build


@intrinsic
def put(typing: Any, a: Any, i: Any, x: Any) -> Any:
    """a[i] = x, one number, rounded as `store` rounds; what is too large for float16 becomes its largest, but for what
    is infinite: that has to show."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        array, index, value = args
        kind = signature.args[0]
        stored = llvm.STORED[kind.dtype]
        if stored == "f16":
            for sign, limit, none in ((">", 65504.0, math.inf), ("<", -65504.0, -math.inf)):
                beyond = b.fcmp_ordered(sign, value, llvm.FLOAT(limit))
                beyond = b.and_(beyond, b.fcmp_ordered("!=", value, llvm.FLOAT(none)))
                value = b.select(beyond, llvm.FLOAT(limit), value)
            value = llvm.narrow_half(b, value)
        elif stored == "bf16":
            value = llvm.narrow_bfloat16(b, value)
        b.store(value, llvm.pointer(context, b, kind, array, index, value.type))
        return context.get_dummy_value()

    return types.void(a, types.int64, types.float32), build


@intrinsic
def fma(typing: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z, rounded once."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return llvm.call(b, "fma", *args)

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
        return llvm.call(b, "fabs", *args)

    return f32x16(f32x16), build


@intrinsic
def nearest(typing: Any, x: Any) -> Any:
    """The nearest whole number, the even one of two."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return llvm.call(b, "roundeven", *args)

    return f32x16(f32x16), build


@intrinsic
def sum_of(typing: Any, x: Any) -> Any:
    """The sum of the lanes: halves are added to halves, four times."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return llvm.fold(b, args[0], b.fadd)

    return types.float32(f32x16), build


@intrinsic
def largest(typing: Any, x: Any) -> Any:
    """The largest lane."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        def larger(x: Any, y: Any) -> Any:
            return b.select(b.fcmp_ordered(">", x, y), x, y)

        return llvm.fold(b, args[0], larger)

    return types.float32(f32x16), build


@intrinsic
def first(typing: Any, x: Any, n: Any, other: Any) -> Any:
    """The first n lanes of x, and those of `other` behind them."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        count = b.trunc(args[1], llvm.I32)
        places = ir.Constant(llvm.INTS, list(range(LANES)))
        return b.select(b.icmp_signed("<", places, llvm.repeat(b, count)), args[0], args[2])

    return f32x16(f32x16, types.int64, f32x16), build


@intrinsic
def where_set(typing: Any, flags: Any, i: Any, x: Any, other: Any) -> Any:
    """x where the bytes flags[i : i + 16] are not 0, and `other` elsewhere."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        kind = ir.VectorType(llvm.I8, LANES)
        stored = llvm.load_from(b, llvm.pointer(context, b, signature.args[0], args[0], args[1], kind), 1)
        return b.select(b.icmp_unsigned("!=", stored, llvm.repeat(b, llvm.I8(0))), args[2], args[3])

    return f32x16(flags, types.int64, f32x16, f32x16), build


@intrinsic
def _power_of_two(typing: Any, n: Any) -> Any:
    """2 ** n for whole numbers n in -126 .. 127: n in the place of the exponent."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        exponent = b.add(b.fptosi(args[0], llvm.INTS), llvm.repeat(b, llvm.I32(127)))
        return b.bitcast(b.shl(exponent, llvm.repeat(b, llvm.I32(23))), llvm.FLOATS)

    return f32x16(f32x16), build


@intrinsic
def where_above(typing: Any, x: Any, least: Any, value: Any, other: Any) -> Any:
    """`value` where x > least, and `other` elsewhere."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return b.select(b.fcmp_ordered(">", args[0], args[1]), args[2], args[3])

    return f32x16(f32x16, f32x16, f32x16, f32x16), build


@njit
def exp(x: Any) -> Any:
    """e ** x for x <= 88, lane by lane, within 2.5e-7 of its size; 0 from -87 down, for -inf too. NaN stays NaN.

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
    return where_above(splat(ABOVE_87), x, splat(0.0), p * _power_of_two(maximum(n, splat(-126.0))))


# -- 8 and 16 bits ------------------------------------------------------------------------------------------------


@intrinsic
def store_bytes(typing: Any, a: Any, i: Any, step: Any, x: Any) -> Any:
    """Sixteen whole numbers in -128 .. 127, four by four at a[i + n * step : + 4]; their sum."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        array, i, step, value = args
        whole = b.fptosi(value, llvm.INTS)
        fours = b.bitcast(b.trunc(whole, ir.VectorType(llvm.I8, LANES)), ir.VectorType(llvm.I32, 4))
        for n in range(4):
            pointer = llvm.pointer(context, b, signature.args[0], array, b.add(i, b.mul(step, llvm.I64(n))), llvm.I32)
            b.store(b.extract_element(fours, llvm.I32(n)), pointer, align=1)
        return llvm.fold(b, whole, b.add)

    return types.int32(a, types.int64, types.int64, f32x16), build


@intrinsic
def float_bits(typing: Any, x: Any) -> Any:
    """The bits of a float32, as a whole number."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return b.bitcast(args[0], llvm.I32)

    return types.int32(types.float32), build


@intrinsic
def half_bits(typing: Any, x: Any) -> Any:
    """The bits of the float16 nearest to x."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return llvm.narrow_half(b, args[0])

    return types.int16(types.float32), build


@intrinsic
def from_half(typing: Any, bits: Any) -> Any:
    """The float16 with these bits, exactly."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        return llvm.widen_half(b, args[0], llvm.FLOAT)

    return types.float32(types.int16), build
