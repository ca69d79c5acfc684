"""Products with weights that are whole numbers with scales: a group of 32 columns of some tiles, in any of the formats
of minillama.layout, by some rows of activations.

All formats have one rule, whatever the CPU. The whole numbers of a group are multiplied and added up exactly; the
result is made a float32, multiplied by the scale of the weights times that of the activations, and added. Then, where
there are minima, the minimum times the scaled sum of the activations is added. Groups come in their order; of q6_k,
which has a scale for every 16 columns, their halves do.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minillama.kernels import dots, llvm
from minillama.layout import GROUP, TILE, WHOLE, Whole

LINE = 4 * TILE  # bytes of a word of all rows of a tile
PLACES = types.UniTuple(types.int64, 5)
X = types.UniTuple(types.int64, 3)


@intrinsic
def address(typing: Any, a: Any, i: Any) -> Any:
    """Where a[i] is."""

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        array, index = args
        return b.ptrtoint(llvm.pointer(context, b, signature.args[0], array, index, llvm.I8), llvm.I64)

    return types.int64(a, types.int64), build


@intrinsic
def add_group(typing: Any, sums: Any, like: Any, places: Any, g: Any, x: Any, rows: Any) -> Any:
    """sums[m, r] += the product of group g of a block of columns: of tile m of the weights, in the format of `like`,
    and of row r of the activations. A vector of sums has the lanes of a tile, or of a half of it.

    places: addresses of the numbers and of the scales of the block in the first tile, and how many bytes further those
    of the next are; the first row of the tile that is wanted, 0 or 8. They come in the order of Places. x: addresses of
    the activations' numbers (four columns of each row in 4 bytes), of their scales, and of the terms that this format
    needs, each of `rows` rows.
    """
    R = llvm.literal(rows)
    if R is None:
        return None
    form, lanes = WHOLE[llvm.form_of(like.dtype)], sums.dtype.lanes

    def build(context: Any, b: Any, signature: Any, args: Any) -> Any:
        block, _, places, g, x, _ = args
        group = _Group(b, form, lanes, Places(*(b.extract_value(places, n) for n in range(5))), g)
        activations = _Activations(b, lanes, R, *(b.extract_value(x, n) for n in range(3)))
        return group.times(activations, block, sums.count // R)

    return sums(sums, like, PLACES, types.int64, X, rows), build


class Places(NamedTuple):
    """Where tiles are; see add_group."""

    numbers: Any
    step: Any
    scales: Any
    scales_step: Any
    first: Any


class _Memory:
    """Vectors of so many lanes at addresses."""

    def __init__(self, b: Any, lanes: int):
        self.b, self.lanes = b, lanes
        self.ints, self.floats = (ir.VectorType(kind, lanes) for kind in (llvm.I32, llvm.FLOAT))
        self.bytes = ir.VectorType(llvm.I8, 4 * lanes)

    def at(self, place: Any, kind: Any, align: int) -> Any:
        return llvm.load_from(self.b, self.b.inttoptr(place, kind.as_pointer()), align)

    def add(self, *places: Any) -> Any:
        total = places[0]
        for place in places[1:]:
            total = self.b.add(total, llvm.I64(place) if isinstance(place, int) else place)
        return total

    def repeated(self, value: Any) -> Any:
        return llvm.repeat(self.b, value, self.lanes)


class _Activations(_Memory):
    """A group of columns of R rows of activations."""

    def __init__(self, b: Any, lanes: int, rows: int, numbers: Any, scales: Any, terms: Any):
        super().__init__(b, lanes)
        self.rows, self._numbers, self._scales, self._terms = rows, numbers, scales, terms

    def four_columns(self, k: int) -> list[Any]:
        """Columns 4 k .. 4 k + 3 of every row, as bytes beside each weight row."""
        places = (self.add(self._numbers, 4 * (k * self.rows + r)) for r in range(self.rows))
        return [self.b.bitcast(self.repeated(self.at(place, llvm.I32, 4)), self.bytes) for place in places]

    def scales(self) -> list[Any]:
        return [self.repeated(self.at(self.add(self._scales, 4 * r), llvm.FLOAT, 4)) for r in range(self.rows)]

    def term(self, number: int, kind: Any) -> list[Any]:
        """One of the terms of every row, in all lanes."""
        places = (self.add(self._terms, 4 * (number * self.rows + r)) for r in range(self.rows))
        return [self.repeated(self.at(place, kind, 4)) for place in places]


class _Group(_Memory):
    """A group of columns of some tiles."""

    def __init__(self, b: Any, form: Whole, lanes: int, places: Places, g: Any):
        super().__init__(b, lanes)
        self.form, self.places, self.g = form, places, g

    def times(self, x: _Activations, block: Any, tiles: int) -> Any:
        """The block of sums, with the products added."""
        form, rows = self.form, x.rows
        parts = len(form.terms)  # the halves of a group of q6_k have scales of their own
        for part in range(parts):
            starts = x.term(part, llvm.I32) if form.offset else [ir.Constant(self.ints, None)] * rows
            groups = [[dots.Group(self.b, start, form.bits) for start in starts] for _ in range(tiles)]
            for k in self._steps(part, parts):
                fours = x.four_columns(k)
                for m in range(tiles):
                    numbers = self._numbers(m, k)
                    for group, four in zip(groups[m], fours, strict=True):
                        group.add(numbers, four)
            for m in range(tiles):
                scale, minimum = self._scale_and_minimum(m, part)
                products = [group.total() for group in groups[m]]
                block = self._added(block, m * rows, products, scale, x.scales())
                if minimum is not None:
                    for r, total in enumerate(x.term(0, llvm.FLOAT)):
                        block = self._fma_into(block, m * rows + r, minimum, total)
        return block

    def _steps(self, part: int, parts: int) -> list[int]:
        """The steps of four columns that belong to a part, those of the same bytes one after the other."""
        if parts == 1 and self.form.block == GROUP and self.form.bits < 8:
            return [k + half for k in range(4) for half in (0, 4)]
        return list(range(8 // parts * part, 8 // parts * (part + 1)))

    def _added(self, block: Any, place: int, products: list[Any], scale: Any, scales: list[Any]) -> Any:
        for r, (product, of_row) in enumerate(zip(products, scales, strict=True)):
            factor = self.b.fmul(scale, of_row)
            block = self._fma_into(block, place + r, self.b.sitofp(product, self.floats), factor)
        return block

    def _fma_into(self, block: Any, place: int, x: Any, y: Any) -> Any:
        total = llvm.call(self.b, "fma", x, y, self.b.extract_value(block, place))
        return self.b.insert_value(block, total, place)

    # -- numbers ------------------------------------------------------------------------------------------------

    def _numbers(self, m: int, k: int) -> Any:
        """Columns 4 k .. 4 k + 3 of the group, unsigned bytes, of each row of tile m."""
        form = self.form
        if form.bits == 8:
            return self._line(m, LINE * k)
        if form.block == GROUP:
            low = self._bits(self._line(m, LINE * (k % 4)), 4 * (k // 4), 15)
            return self._with_upper(low, self._line(m, 4 * LINE), k, 1) if form.bits == 5 else low
        b, g = self.b, self.g
        if form.bits == 6:
            half, quarter = b.lshr(g, llvm.I64(2)), b.and_(g, llvm.I64(3))
            two, one = b.lshr(quarter, llvm.I64(1)), b.and_(g, llvm.I64(1))
            eights = b.add(b.shl(half, llvm.I64(1)), one)
            upper = self._line(m, 32 * LINE + LINE * k, b.mul(half, llvm.I64(8 * LINE)))
        else:
            eights, two = b.lshr(g, llvm.I64(1)), b.and_(g, llvm.I64(1))
        low = self._bits(self._line(m, LINE * k, b.mul(eights, llvm.I64(8 * LINE))), b.shl(two, llvm.I64(2)), 15)
        if form.bits == 5:
            return self._with_upper(low, self._line(m, 32 * LINE + LINE * k), g, 1)
        return low if form.bits == 4 else self._with_upper(low, upper, b.shl(quarter, llvm.I64(1)), 3)

    def _line(self, m: int, place: int, further: Any = None) -> Any:
        """A word of each row of tile m."""
        start = self.add(self.places.numbers, self.b.mul(self.places.step, llvm.I64(m)), place)
        start = self.add(start, self.b.shl(self.places.first, llvm.I64(2)))
        return self.at(start if further is None else self.b.add(start, further), self.bytes, 1)

    def _bits(self, stored: Any, first: Any, mask: int) -> Any:
        """Some bits of each byte, from number `first` on, as a number."""
        b = self.b
        if not isinstance(first, int):
            first = self.repeated(b.trunc(first, llvm.I32))
        elif first:
            first = llvm.constant(b, self.ints, first)
        if not isinstance(first, int):
            stored = b.bitcast(b.lshr(b.bitcast(stored, self.ints), first), self.bytes)
        return b.and_(stored, llvm.constant(b, self.bytes, mask))

    def _with_upper(self, low: Any, stored: Any, first: Any, mask: int) -> Any:
        """Numbers with some bits more, in front of their own four."""
        upper = self.b.bitcast(self._bits(stored, first, mask), self.ints)
        four = llvm.constant(self.b, self.ints, 4)  # no bit leaves its byte
        return self.b.or_(low, self.b.bitcast(self.b.shl(upper, four), self.bytes))

    # -- scales -------------------------------------------------------------------------------------------------

    def _scale_and_minimum(self, m: int, part: int) -> tuple[Any, Any]:
        """Those of a group, or of its half `part`, of each row of tile m; None for the minimum where there is none."""
        b, g, form = self.b, self.g, self.form
        d = self._halves(m, 0)
        if form.block == GROUP:
            return d, self._halves(m, 2 * TILE) if form.scales == 4 else None
        if form.bits == 6:
            place = b.add(b.shl(g, llvm.I64(1)), llvm.I64(part))
            return b.fmul(b.sitofp(self._plane(m, 2 * TILE, place, b.sext), self.floats), d), None
        scales = self._plane(m, 4 * TILE, g, b.zext)
        minima = self._plane(m, 12 * TILE, b.lshr(g, llvm.I64(1)), b.zext)
        minima = b.lshr(minima, self.repeated(b.trunc(b.shl(b.and_(g, llvm.I64(1)), llvm.I64(2)), llvm.I32)))
        lower = b.and_(minima, llvm.constant(b, self.ints, 15))
        upper = b.and_(b.lshr(scales, llvm.constant(b, self.ints, 2)), llvm.constant(b, self.ints, 48))
        scale, minimum = b.and_(scales, llvm.constant(b, self.ints, 63)), b.or_(lower, upper)
        least = b.fmul(b.sitofp(minimum, self.floats), self._halves(m, 2 * TILE))
        return b.fmul(b.sitofp(scale, self.floats), d), b.fneg(least)

    def _scales_of(self, m: int, place: int) -> Any:
        return self.add(self.places.scales, self.b.mul(self.places.scales_step, llvm.I64(m)), place)

    def _halves(self, m: int, place: int) -> Any:
        start = self.add(self._scales_of(m, place), self.b.shl(self.places.first, llvm.I64(1)))
        return llvm.widen_half(self.b, self.at(start, ir.VectorType(llvm.I16, self.lanes), 2), self.floats)

    def _plane(self, m: int, place: int, number: Any, widen: Any) -> Any:
        start = self.add(self._scales_of(m, place), self.places.first, self.b.mul(number, llvm.I64(TILE)))
        return widen(self.at(start, ir.VectorType(llvm.I8, self.lanes), 1), self.ints)
