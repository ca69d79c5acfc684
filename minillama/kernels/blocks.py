"""Products of matrices in registers: blocks of vectors, which simd.py has one at a time.

A block is a tuple of vectors that the compiler keeps in registers. One of W weight rows times R activation rows is a
tuple of W * R, and `rows` says R where it is needed: block[m, r] is its vector m * R + r. Vectors have 16 lanes, or 8
where "half" says so.

AVX2 has sixteen registers of 256 bits, which do not hold a block of whole vectors. A product that needs many sums goes
through its columns twice there, once for the lower 8 lanes of every vector and once for the upper ones (of a tile, the
first 8 rows of weights and then the others). Lanes do not touch each other, and each adds up in the same order, so the
bits are the same as on every CPU.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minillama.kernels import llvm
from minillama.kernels.llvm import LANES, f32x8, f32x16

HALF = 8  # lanes


def _zeros(vector: Any) -> Any:
    @intrinsic
    def zeros(typing: Any, n: Any) -> Any:
        """A block of n vectors of zeros."""
        count = llvm.literal(n)
        if count is None:
            return None

        def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
            return ir.Constant(ir.ArrayType(ir.VectorType(llvm.FLOAT, vector.lanes), count), None)

        return llvm.block_of(count, vector)(n), build

    return zeros


zeros, half_zeros = _zeros(f32x16), _zeros(f32x8)


@intrinsic
def outer(typing: Any, sums: Any, w: Any, i: Any, w_step: Any, a: Any, j: Any, rows: Any) -> Any:
    """sums[m, r] += w[i + m * w_step : + lanes] * a[j + 16 r : + lanes], a product in every lane of the sums."""
    R = llvm.literal(rows)
    if R is None:
        return None

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        block, weights, i, step, activations, j = args[:6]
        kinds, lanes = signature.args, sums.dtype.lanes
        xs = [llvm.floats(context, b, kinds[4], activations, b.add(j, llvm.I64(LANES * r)), lanes) for r in range(R)]
        for m in range(sums.count // R):
            row = llvm.floats(context, b, kinds[1], weights, b.add(i, b.mul(step, llvm.I64(m))), lanes)
            for r in range(R):
                place = m * R + r
                block = b.insert_value(block, llvm.call(b, "fma", row, xs[r], b.extract_value(block, place)), place)
        return block

    return sums(sums, w, types.int64, types.int64, a, types.int64, rows), build


@intrinsic
def add_scaled(typing: Any, sums: Any, xs: Any, a: Any, j: Any, step: Any) -> Any:
    """sums[m, r] += xs[m] * a[j + r * step], the same number in all lanes. xs: a block, or one vector."""
    stride = llvm.literal(step)
    if stride is None:
        return None

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        block, xs, activations, j, _ = args
        kind = signature.args[1]
        vectors = [xs] if kind == f32x16 else [b.extract_value(xs, m) for m in range(kind.count)]
        pointer = llvm.pointer(context, b, signature.args[2], activations, j, llvm.FLOAT)
        rows = sums.count // len(vectors)
        for r in range(rows):
            factor = llvm.repeat(b, llvm.load_from(b, llvm.offset(b, pointer, r * stride), 4))
            for m, vector in enumerate(vectors):
                place = m * rows + r
                block = b.insert_value(block, llvm.call(b, "fma", vector, factor, b.extract_value(block, place)), place)
        return block

    return sums(sums, xs, a, types.int64, step), build


@intrinsic
def store_block(typing: Any, out: Any, i: Any, m_step: Any, r_step: Any, block: Any, rows: Any) -> Any:
    """out[i + m * m_step + r * r_step : + lanes] = block[m, r]"""
    R = llvm.literal(rows)
    if R is None:
        return None

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        array, i, m_step, r_step, values = args[:5]
        for place in range(block.count):
            index = b.add(i, b.add(b.mul(m_step, llvm.I64(place // R)), b.mul(r_step, llvm.I64(place % R))))
            value = b.extract_value(values, place)
            pointer = llvm.pointer(context, b, signature.args[0], array, index, value.type)
            b.store(value, pointer, align=4)
        return context.get_dummy_value()

    return types.void(out, types.int64, types.int64, types.int64, block, rows), build


def _load_block(vector: Any) -> Any:
    @intrinsic
    def load_block(typing: Any, a: Any, i: Any, step: Any, n: Any) -> Any:
        """A block of n vectors, a[i + r * step : + lanes]."""
        count = llvm.literal(n)
        if count is None:
            return None

        def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
            array, i, step, _ = args
            block = ir.Constant(ir.ArrayType(ir.VectorType(llvm.FLOAT, vector.lanes), count), ir.Undefined)
            for r in range(count):
                index = b.add(i, b.mul(step, llvm.I64(r)))
                value = llvm.floats(context, b, signature.args[0], array, index, vector.lanes)
                block = b.insert_value(block, value, r)
            return block

        return llvm.block_of(count, vector)(a, types.int64, types.int64, n), build

    return load_block


load_block, load_half = _load_block(f32x16), _load_block(f32x8)


@intrinsic
def store_sums(typing: Any, out: Any, i: Any, m_step: Any, r_step: Any, block: Any, rows: Any) -> Any:
    """out[i + m * m_step + r * r_step] = sum_of(block[m, r]), to the bit."""
    R = llvm.literal(rows)
    if R is None:
        return None

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        array, i, m_step, r_step, values = args[:5]
        vectors = [b.extract_value(values, place) for place in range(block.count)]
        size = max(n for n in (1, 2, 4, 8, 16) if block.count % n == 0)  # that are folded together
        totals = [_fold_all(b, vectors[first : first + size]) for first in range(0, block.count, size)]
        for place in range(block.count):
            index = b.add(i, b.add(b.mul(m_step, llvm.I64(place // R)), b.mul(r_step, llvm.I64(place % R))))
            pointer = llvm.pointer(context, b, signature.args[0], array, index, llvm.FLOAT)
            total = b.extract_element(totals[place // size], llvm.I32(place % size))
            b.store(total, pointer, align=4)
        return context.get_dummy_value()

    return types.void(out, types.int64, types.int64, types.int64, block, rows), build


def _fold_all(b: Any, vectors: list[Any]) -> Any:
    """The sums of several vectors, a power of 2 of them, as one: each is halved as in fold, two of them side by side in
    one register."""
    length = LANES  # of the part of a register that belongs to one of the vectors
    while length > 1:
        length //= 2
        pairs = list(zip(vectors[::2], vectors[1::2], strict=True)) if len(vectors) > 1 else [(vectors[0],) * 2]
        lanes = len(pairs[0]) * vectors[0].type.count if len(vectors) > 1 else vectors[0].type.count
        starts = range(0, lanes, 2 * length)
        halves = [[start + half * length + n for start in starts for n in range(length)] for half in range(2)]
        low, high = (ir.Constant(ir.VectorType(llvm.I32, len(half)), half) for half in halves)
        vectors = [b.fadd(b.shuffle_vector(x, y, low), b.shuffle_vector(x, y, high)) for x, y in pairs]
    return vectors[0]
