"""The zip archive that torch.save writes: its members, checked, and where they lie. Nothing is ever unpacked.

Signatures and fields are those of PKWARE's APPNOTE.TXT: 4.3.7 the header of a member, 4.3.12 the directory, 4.3.14 to
4.3.16 its end, 4.5.3 sizes beyond 32 bits. PyTorch writes all members uncompressed, so that they can be mapped; what
it never writes (compression, encryption, comments, several disks) is refused.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from minillama.weights.magic import ZIP
from minillama.weights.mapped import MappedFile

MAX_MEMBERS = 100_000  # a model has one a storage, some thousands
MAX_NAME = 1000  # bytes
MAX_DIRECTORY = 1 << 26  # bytes
_END, _END_64, _LOCATOR = struct.Struct("<4s4H2IH"), struct.Struct("<4sQ2H2I4Q"), struct.Struct("<4sIQI")
_ENTRY, _LOCAL = struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s5H3I2H")
_FULL_16, _FULL_32 = 0xFFFF, 0xFFFFFFFF  # these say: the number is in the 64-bit record
_ENCRYPTED, _SIZES_LATER = 0x2041, 0x0008  # flags; the second: sizes are in the directory, not in the local header


class Member(NamedTuple):
    """The bytes of a member within the file."""

    offset: int
    size: int


class _Entry(NamedTuple):
    """A line of the directory."""

    name: bytes
    flags: int
    size: int
    header: int  # where the local header is


def read_members(file: MappedFile) -> dict[str, Member]:
    """Every member of the archive by name. ValueError if anything is off: each lies in the file, in one piece and by
    itself, its name leads nowhere else, and its own header agrees with the directory."""
    count, start, directory = _read_end(file)
    members: dict[str, Member] = {}
    spans = []
    position = taken = 0
    for _ in range(count):
        entry, position = _read_entry(directory, position)
        name = _checked_name(entry.name)
        if name in members:
            raise ValueError(f"it has the member {name} twice")
        members[name] = _locate(file, entry, name, start)
        spans.append((entry.header, members[name].offset + entry.size, name))
        taken += spans[-1][1] - entry.header
        if taken > file.size:  # said early, before each of very many is looked at
            raise ValueError(f"its member {name} overlaps another")
    if position != len(directory):
        raise ValueError("its directory is longer than its members are many")
    end = 0
    for first, last, name in sorted(spans):
        if first < end:
            raise ValueError(f"its member {name} overlaps another")
        end = last
    return members


def _take(file: MappedFile, offset: int, size: int) -> bytes:
    if offset < 0 or size < 0 or offset + size > file.size:
        raise ValueError("it is cut short, or its directory points outside it")
    return bytes(file.array("u1", (size,), offset))


def _read_end(file: MappedFile) -> tuple[int, int, bytes]:
    """How many members there are, where their directory begins, and its bytes."""
    where = file.size - _END.size
    signature, *disks, count, size, start, comment = _END.unpack(_take(file, where, _END.size))
    if signature != b"PK\5\6" or comment:
        raise ValueError(
            "it does not end as a zip archive of PyTorch does: it is cut short, or has bytes after its end"
        )
    narrow, end = (count, size, start), where
    locator_at = where - _LOCATOR.size
    if locator_at >= 0 and _take(file, locator_at, 4) == b"PK\6\7":
        _, _, end, _ = _LOCATOR.unpack(_take(file, locator_at, _LOCATOR.size))
        signature, length, _, _, *disks_64, count, size, start = _END_64.unpack(_take(file, end, _END_64.size))
        if signature != b"PK\6\6" or length != _END_64.size - 12 or end + _END_64.size != locator_at:
            raise ValueError("the 64-bit end of its directory is damaged")
        full = (_FULL_16, _FULL_32, _FULL_32)
        if any(a not in (b, top) for a, b, top in zip(narrow, (count, size, start), full, strict=True)):
            raise ValueError("the two ends of its directory disagree")
        disks += disks_64[:2]
    if any(disks[:2]) or count > MAX_MEMBERS or size > MAX_DIRECTORY:
        raise ValueError(f"it is cut into several disks, or has more than the {MAX_MEMBERS} members allowed")
    if start + size != end:
        raise ValueError("its directory is not where it says")
    return count, start, _take(file, start, size)


def _read_entry(directory: bytes, position: int) -> tuple[_Entry, int]:
    """An entry of the directory, and where the next one begins."""
    if position + _ENTRY.size > len(directory):
        raise ValueError("its directory is cut short")
    fields = _ENTRY.unpack_from(directory, position)
    signature, flags, method, stored, size = fields[0], fields[3], fields[4], fields[8], fields[9]
    name_length, extra_length, comment_length, disk, header = *fields[10:14], fields[16]
    name_at = position + _ENTRY.size
    extra_at = name_at + name_length
    after = extra_at + extra_length + comment_length
    if signature != b"PK\1\2" or after > len(directory) or disk not in (0, _FULL_16):
        raise ValueError("its directory is damaged")
    name = directory[name_at:extra_at]
    size, stored, header = _widened(directory[extra_at : extra_at + extra_length], size, stored, header)
    if flags & _ENCRYPTED:
        raise ValueError(f"its member {ascii(name)[2:60]} is encrypted")
    if method or stored != size:
        raise ValueError(
            f"its member {ascii(name)[2:60]} is compressed, which PyTorch never does (unpack the archive, and pack it "
            "again with zip -0)"
        )
    return _Entry(name, flags, size, header), after


def _widened(extra: bytes, *numbers: int) -> list[int]:
    """Those of the numbers that say so replaced by what the 64-bit field of `extra` has for them, in its order."""
    wide, at = b"", 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        at += 4 + length
        if kind == 1:
            wide = extra[at - length : at]
    result = []
    for number in numbers:
        if number == _FULL_32:
            if len(wide) < 8:
                raise ValueError("a size in its directory is missing")
            number, wide = int.from_bytes(wide[:8], "little"), wide[8:]
        result.append(number)
    return result


def _checked_name(raw: bytes) -> str:
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        name = ""
    parts = re.split(r"[/\\]", name)
    if not 0 < len(raw) <= MAX_NAME or not name.isprintable() or {"", ".", ".."} & set(parts) or ":" in parts[0]:
        raise ValueError(f"it has a member with the impossible name {ascii(raw)[1:100]}")
    return name


def _locate(file: MappedFile, entry: _Entry, name: str, directory: int) -> Member:
    """Where the bytes are, by the member's own header, which must say what the directory does."""
    fields = _LOCAL.unpack(_take(file, entry.header, _LOCAL.size))
    signature, flags, method, stored, size, name_length, extra_length = *fields[:1], *fields[2:4], *fields[7:]
    own = _take(file, entry.header + _LOCAL.size, name_length + extra_length)
    later = flags & _SIZES_LATER and stored == size == 0
    sizes = [entry.size, entry.size] if later else _widened(own[name_length:], size, stored)
    if (signature, flags, method, own[:name_length]) != (ZIP, entry.flags, 0, entry.name) or sizes != [
        entry.size,
        entry.size,
    ]:
        raise ValueError(f"the header of its member {name} and the directory disagree")
    offset = entry.header + _LOCAL.size + len(own)
    if offset + entry.size > directory:
        raise ValueError(f"its member {name} reaches beyond the members' part of the file")
    return Member(offset, entry.size)
