"""Products of whole numbers by half tiles, for AVX2, whose sixteen registers of 256 bits do not hold a block of whole
vectors.

A product that needs many sums goes through its columns twice, once for the lower 8 lanes of every vector and once for
the upper ones: of a tile, the first 8 rows of weights and then the others. (Floats do so too, see floats.py.) Lanes do
not touch each other, and each adds up in the same order as in blocks.py, so the bits are the same as on every CPU.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minillama.kernels import dots, llvm

HALF = 8  # lanes


@intrinsic
def add_group(
    typing: Any, sums: Any, w: Any, i: Any, scales: Any, si: Any, a: Any, j: Any, s: Any, z: Any, sj: Any
) -> Any:
    """sums[r] += (z[sj + r] + the products of a group of 32 columns) * (scales[si : + 8] * s[sj + r]).

    The products are those of the 8 weight rows whose first columns are at w[i], with as many activation rows as sums
    has, from a[j] on; both as dot_group has them.
    """
    R = sums.count
    nibbles = w.dtype is types.int8

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        block, weights, i, scales, si, activations, j, s, z, sj = args
        kinds = signature.args
        eights = ir.VectorType(llvm.I8, 4 * HALF)
        four = llvm.pointer(context, b, kinds[5], activations, j, llvm.I32)
        offsets = llvm.pointer(context, b, kinds[8], z, sj, llvm.I32)
        factors = llvm.pointer(context, b, kinds[7], s, sj, llvm.FLOAT)

        def repeated(place: Any) -> Any:
            return llvm.repeat(b, llvm.load_from(b, place, 4), HALF)

        groups = [dots.Group(b, repeated(llvm.offset(b, offsets, r)), nibbles) for r in range(R)]
        for k in range(4 if nibbles else 8):
            place = llvm.pointer(context, b, kinds[1], weights, b.add(i, llvm.I64(64 * k)), eights)
            stored = llvm.load_from(b, place, 1)
            for part, column in dots.parts_of(b, stored, k, nibbles):
                for r in range(R):
                    fours = b.bitcast(repeated(llvm.offset(b, four, column * R + r)), eights)
                    groups[r].add(part, fours)
        bits = llvm.pointer(context, b, kinds[3], scales, si, ir.VectorType(llvm.I16, HALF))
        of_rows = llvm.widen_half(b, llvm.load_from(b, bits, 2), llvm.HALF_FLOATS)
        for r in range(R):
            product = b.sitofp(groups[r].total(), llvm.HALF_FLOATS)
            factor = b.fmul(of_rows, repeated(llvm.offset(b, factors, r)))
            block = b.insert_value(block, llvm.call(b, "fma", product, factor, b.extract_value(block, r)), r)
        return block

    ints = types.int64
    return sums(sums, w, ints, scales, ints, a, ints, s, z, ints), build
