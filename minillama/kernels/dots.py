"""The product of four bytes with four others, added to a sum: in 16 lanes, by the instruction that the CPU has for it.

All forms give the same integers.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba.core import config

from minillama.kernels.llvm import ARM, FEATURES, I16, I32, LANES, constant, join, like, part, special, target_features

_PRODUCTS = """
declare i32 @llvm.vector.reduce.add.v16i32(<16 x i32>)
define i32 @products(<16 x i8> %a, <16 x i8> %b) {
    %x = EXTENDED <16 x i8> %a to <16 x i32>
    %y = sext <16 x i8> %b to <16 x i32>
    %xy = mul <16 x i32> %x, %y
    %sum = call i32 @llvm.vector.reduce.add.v16i32(<16 x i32> %xy)
    ret i32 %sum
}"""


def arm_dot(cpu: str, features: str) -> str:
    """The four-wide product of bytes that this kind of 64-bit ARM has: "usdot", "sdot", or "addlp", which all have.

    A name like neoverse-n1 implies it, lists of features leave it out, and LLVM ends the process when it is to use one
    that is not there. So LLVM is given sums of products, and what it makes of them tells.
    """
    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    machine = binding.Target.from_triple("aarch64").create_target_machine(cpu=cpu, features=features)
    for name, extended in (("usdot", "zext"), ("sdot", "sext")):
        if name in machine.emit_assembly(binding.parse_assembly(_PRODUCTS.replace("EXTENDED", extended))):
            return name
    return "addlp"


def _dot_form() -> tuple[str, int]:
    """By which instruction bytes are multiplied, and on how many bits at once; "" where the CPU has none for it."""
    if ARM:
        return arm_dot(config.CPU_NAME or binding.get_host_cpu_name(), target_features()), 128
    return ("vpdpbusd", 512) if "avx512vnni" in FEATURES else ("vpdpbusd", 256) if "avxvnni" in FEATURES else ("", 512)


DOT, DOT_BITS = _dot_form()


def dot(b: Any, sums: Any, unsigned: Any, signed: Any, small: bool = False) -> Any:
    """sums[i] + the products of bytes 4 i .. 4 i + 3, for 16 lanes i. small: no unsigned byte is above 127."""
    multiply = _dot_of_signed if DOT == "sdot" and small else _DOTS[DOT]
    count, parts = DOT_BITS // 32, []
    for lane in range(0, LANES, count):
        values = (part(b, sums, lane, count), *(part(b, v, 4 * lane, 4 * count) for v in (unsigned, signed)))
        parts.append(multiply(b, *values))
    while len(parts) > 1:
        parts = [join(b, *pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _dot_anywhere(b: Any, sums: Any, unsigned: Any, signed: Any) -> Any:
    # Products of a byte with a signed byte fit 16 bits; adding them in pairs as 32 bits is one instruction on most CPUs
    wide = like(unsigned.type, I16)
    x, y = b.zext(unsigned, wide), b.sext(signed, wide)
    products = []
    for place in range(4):
        lanes = ir.Constant(like(sums.type, I32), list(range(place, wide.count, 4)))
        one, other = (b.sext(b.shuffle_vector(v, v, lanes), sums.type) for v in (x, y))
        products.append(b.mul(one, other))
    return b.add(sums, b.add(b.add(products[0], products[1]), b.add(products[2], products[3])))


def _dot_by_vpdpbusd(b: Any, sums: Any, unsigned: Any, signed: Any) -> Any:
    # LLVM before 22 has them as numbers of 32 bits, and later ones understand
    fours = [b.bitcast(v, sums.type) for v in (unsigned, signed)]
    return special(b, f"x86.avx512.vpdpbusd.{DOT_BITS}", sums.type, sums, *fours)


def _dot_by_usdot(b: Any, sums: Any, unsigned: Any, signed: Any) -> Any:
    return special(b, "aarch64.neon.usdot.v4i32.v16i8", sums.type, sums, unsigned, signed)


def _dot_of_signed(b: Any, sums: Any, one: Any, other: Any) -> Any:
    return special(b, "aarch64.neon.sdot.v4i32.v16i8", sums.type, sums, one, other)


def _dot_by_sdot(b: Any, sums: Any, unsigned: Any, signed: Any) -> Any:
    # u y = (u - 128) y - (-128) y, of which the second part is the same for all vectors beside one y
    least = constant(b, signed.type, -128)
    more = _dot_of_signed(b, constant(b, sums.type, 0), least, signed)
    return b.sub(_dot_of_signed(b, sums, b.xor(unsigned, least), signed), more)


def _dot_by_addlp(b: Any, sums: Any, unsigned: Any, signed: Any) -> Any:
    # Products fit 16 bits; neighbours are added as 32 bits, and then neighbours of those
    wide = like(unsigned.type, I16)
    products = b.mul(b.zext(unsigned, wide), b.sext(signed, wide))
    halves = [part(b, products, start, 8) for start in (0, 8)]
    pairs = [special(b, "aarch64.neon.saddlp.v4i32.v8i16", sums.type, half) for half in halves]
    return b.add(sums, special(b, "aarch64.neon.addp.v4i32", sums.type, *pairs))


_DOTS = {
    "": _dot_anywhere,
    "vpdpbusd": _dot_by_vpdpbusd,
    "usdot": _dot_by_usdot,
    "sdot": _dot_by_sdot,
    "addlp": _dot_by_addlp,
}
