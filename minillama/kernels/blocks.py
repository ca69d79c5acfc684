"""Products of matrices in registers: blocks of vectors, which simd.py has one at a time.

A block is a tuple of vectors that the compiler keeps in registers. One of W weight rows times R activation rows is a
tuple of W * R, and `rows` says R where it is needed: block[m, r] is its vector m * R + r. Vectors have 16 lanes, or 8
where "half" says so, see halves.py.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minillama.kernels import dots, llvm
from minillama.kernels.llvm import LANES, f32x8, f32x16, i32x16


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
def splat_ints(typing: Any, a: Any, j: Any, n: Any, rows: Any) -> Any:
    """A block of n integer vectors, for `rows` rows: a[j + r] in all lanes of every vector of row r."""
    count, R = llvm.literal(n), llvm.literal(rows)
    if count is None or R is None:
        return None

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        pointer = llvm.pointer(context, b, signature.args[0], args[0], args[1], llvm.I32)
        vectors = [llvm.repeat(b, llvm.load_from(b, llvm.offset(b, pointer, r), 4)) for r in range(R)]
        block = ir.Constant(ir.ArrayType(llvm.INTS, count), ir.Undefined)
        for place in range(count):
            block = b.insert_value(block, vectors[place % R], place)
        return block

    return llvm.block_of(count, i32x16)(a, types.int64, n, rows), build


@intrinsic
def dot_group(typing: Any, ints: Any, w: Any, i: Any, w_step: Any, a: Any, j: Any, rows: Any) -> Any:
    """ints[m, r] += the products of a group of 32 columns: of 16 weight rows from w[i + m * w_step] on, four columns of
    each in 64 bytes, with `rows` activation rows from a[j] on, four columns of each in 4 bytes.

    Weights in an array of uint8 are a byte each, unsigned (kernels/quantize.py says with which offset). In an array of
    int8 they are half a byte each: the low halves are those of columns 0 .. 15, the high halves of 16 .. 31.
    """
    R = llvm.literal(rows)
    if R is None:
        return None
    nibbles = w.dtype is types.int8
    steps = 4 if nibbles else 8

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        block, weights, i, step, activations, j = args[:6]
        pointer = llvm.pointer(context, b, signature.args[4], activations, j, llvm.I32)

        def four_columns(place: int) -> Any:  # of an activation row, beside each weight row
            return llvm.repeat(b, llvm.load_from(b, llvm.offset(b, pointer, place), 4))

        groups = [dots.Group(b, b.extract_value(block, place), nibbles) for place in range(ints.count)]
        for k in range(steps):
            fours = {
                place: [b.bitcast(four_columns(place * R + r), llvm.BYTES) for r in range(R)]
                for place in ((k, k + 4) if nibbles else (k,))
            }
            for m in range(ints.count // R):
                index = b.add(i, b.add(b.mul(step, llvm.I64(m)), llvm.I64(64 * k)))
                stored = llvm.load_from(b, llvm.pointer(context, b, signature.args[1], weights, index, llvm.BYTES), 1)
                for vector, place in dots.parts_of(b, stored, k, nibbles):
                    for r in range(R):
                        groups[m * R + r].add(vector, fours[place][r])
        for place, group in enumerate(groups):
            block = b.insert_value(block, group.total(), place)
        return block

    return ints(ints, w, types.int64, types.int64, a, types.int64, rows), build


@intrinsic
def add_products(typing: Any, sums: Any, ints: Any, scales: Any, i: Any, s_step: Any, s: Any, j: Any, rows: Any) -> Any:
    """sums[m, r] += ints[m, r] * (scales[i + m * s_step : + 16] * s[j + r]), the scales of 16 weight rows and of one
    activation row."""
    R = llvm.literal(rows)
    if R is None:
        return None

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        block, products, weights, i, step, activations, j = args[:7]
        pointer = llvm.pointer(context, b, signature.args[5], activations, j, llvm.FLOAT)
        factors = [llvm.repeat(b, llvm.load_from(b, llvm.offset(b, pointer, r), 4)) for r in range(R)]
        for m in range(sums.count // R):
            row = llvm.floats(context, b, signature.args[2], weights, b.add(i, b.mul(step, llvm.I64(m))))
            for r in range(R):
                place = m * R + r
                product = b.sitofp(b.extract_value(products, place), llvm.FLOATS)
                value = llvm.call(b, "fma", product, b.fmul(row, factors[r]), b.extract_value(block, place))
                block = b.insert_value(block, value, place)
        return block

    return sums(sums, ints, scales, types.int64, types.int64, s, types.int64, rows), build


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
