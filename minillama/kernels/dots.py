"""Products of bytes, four of them added to a sum in every lane, by the instructions that the CPU has for it.

All forms give the same integers.

x86 without VNNI has an instruction that multiplies unsigned by signed bytes and adds two neighbours, in 16 bits, where
the sum may not fit: 2 x 255 x 127 does not. Numbers of four bits are safe: 15 x 128 x 2 is 3,840, and eight such sums,
those of a group of 32 columns, are at most 30,720. Of numbers of five bits four sums fit, of six bits two, and then
they are widened. A number of eight bits is taken as 16 h + l, and a group has one sum of 16 bits for each half, which
are widened and joined at the end.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba.core import config

from minillama.kernels.llvm import ARM, FEATURES, I16, I32, constant, join, like, part, special, target_features

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
    for needed, form, bits in (
        ("avx512vnni", "vpdpbusd", 512), ("avxvnni", "vpdpbusd", 256),
        ("avx512bw", "pmaddubsw", 512), ("avx2", "pmaddubsw", 256),
    ):  # fmt: skip
        if needed in FEATURES:
            return form, bits
    return "", 512


DOT, DOT_BITS = _dot_form()


def dot(b: Any, sums: Any, unsigned: Any, signed: Any, small: bool = False) -> Any:
    """sums[i] + the products of bytes 4 i .. 4 i + 3, in every lane i. small: no unsigned byte is above 127."""
    multiply = _dot_of_signed if DOT == "sdot" and small else _DOTS[DOT]
    lanes = sums.type.count
    count, parts = min(DOT_BITS // 32, lanes), []
    for lane in range(0, lanes, count):
        values = (part(b, sums, lane, count), *(part(b, v, 4 * lane, 4 * count) for v in (unsigned, signed)))
        parts.append(multiply(b, *values))
    while len(parts) > 1:
        parts = [join(b, *pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


class Group:
    """What becomes of `sums` when the products of a group of columns are added, four columns at a time.

    bits: of the numbers of the weights, which are unsigned.
    """

    def __init__(self, b: Any, sums: Any, bits: int):
        self.b, self.sums, self.bits = b, sums, bits
        self.pairs: dict[int, Any] = {}  # sums of 16 bits, by what they are to be multiplied by
        self.room = self.most = 8 if bits in (4, 8) else 32767 // (2 * (2**bits - 1) * 128)  # sums that fit

    def add(self, stored: Any, fours: Any) -> None:
        """Bytes of weights, unsigned, times four activations a lane, signed."""
        b = self.b
        if DOT != "pmaddubsw":
            self.sums = dot(b, self.sums, stored, fours, small=self.bits < 8)
            return
        if self.room == 0:
            self.total()
        self.room -= 1
        fifteen, four = (constant(b, stored.type, value) for value in (15, 4))
        parts = {1: stored} if self.bits < 8 else {1: b.and_(stored, fifteen), 16: b.lshr(stored, four)}
        for factor, small in parts.items():
            products = in_parts(b, _pmaddubsw, small, fours)
            self.pairs[factor] = b.add(self.pairs[factor], products) if factor in self.pairs else products

    def total(self) -> Any:
        """The sums, with all that was added."""
        b = self.b
        for factor, pairs in self.pairs.items():
            self.sums = b.add(self.sums, in_parts(b, _pmaddwd, pairs, constant(b, pairs.type, factor)))
        self.pairs, self.room = {}, self.most
        return self.sums


def in_parts(b: Any, multiply: Any, x: Any, y: Any) -> Any:
    """multiply(x, y), on as many bits at once as the CPU has."""
    count = DOT_BITS // x.type.element.width
    if x.type.count <= count:
        return multiply(b, x, y)
    parts = [multiply(b, part(b, x, i, count), part(b, y, i, count)) for i in range(0, x.type.count, count)]
    while len(parts) > 1:
        parts = [join(b, *pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _pmaddubsw(b: Any, unsigned: Any, signed: Any) -> Any:
    name = "x86.avx512.pmaddubs.w.512" if unsigned.type.count == 64 else "x86.avx2.pmadd.ub.sw"
    return special(b, name, ir.VectorType(I16, unsigned.type.count // 2), unsigned, signed)


def _pmaddwd(b: Any, x: Any, y: Any) -> Any:
    name = "x86.avx512.pmaddw.d.512" if x.type.count == 32 else "x86.avx2.pmadd.wd"
    return special(b, name, ir.VectorType(I32, x.type.count // 2), x, y)


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
