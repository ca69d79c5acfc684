"""What a vocabulary by itself can say of a tokenizer.json, and what it cannot: for files that are read by llama.cpp."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers.models import BPE

from minillama.tokenizer.from_pieces import BYTE_NAMES
from minillama.tokenizer.sentencepiece_model import MARKER
from minillama.tokenizer.word_cuts import CUTS, PATTERNS, word_cutter

_LISTS = ("normalizers", "pretokenizers", "decoders", "processors")  # what a Sequence has its parts in
_MARKS = {"type": "Replace", "pattern": {"String": " "}, "content": MARKER}
_PREFIX = {"type": "Prepend", "prepend": MARKER}
_SPACES = {"type": "Replace", "pattern": {"String": MARKER}, "content": " "}
_STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def parts_of(component: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """The parts of a normalizer, pre-tokenizer, decoder or post-processor, those of a Sequence one by one."""
    if component is None:
        return
    if component["type"] != "Sequence":
        yield component
        return
    for part in next((component[key] for key in _LISTS if key in component), []):
        yield from parts_of(part)


def check_model(model: Mapping[str, Any]) -> None:
    """ValueError for a model other than BPE, and for BPE settings that a GGUF vocabulary cannot hold."""
    if (kind := model.get("type") or "BPE") != "BPE":
        raise cannot("model", {"type": kind})
    for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise cannot("model", {"type": key, "value": model[key]})


def check_markers(contents: Mapping[str, Any]) -> None:
    """ValueError, with its name, for a part of a tokenizer with byte fallback that does anything else than llama.cpp.

    That makes spaces markers, puts one before a text, or not, and undoes this.
    """
    model = contents["model"]
    if model.get("ignore_merges"):
        raise cannot("model", {"type": "ignore_merges", "value": True})
    marked = prefixed = False
    for part in parts_of(contents.get("normalizer")):
        if part not in (_MARKS, _PREFIX):
            raise cannot("normalizer", part)
        marked, prefixed = marked or part == _MARKS, prefixed or part == _PREFIX
    for part in parts_of(contents.get("pre_tokenizer")):
        crossed = any(MARKER in piece[1:] for piece in model["vocab"])
        if part["type"] != "Metaspace" or part["replacement"] not in (" ", MARKER) or (part["split"] and crossed):
            raise cannot("pre_tokenizer", part)
        marked = marked or part["replacement"] == MARKER
        prefixed = prefixed or part["prepend_scheme"] != "never"
    if not marked:
        raise cannot("normalizer", {"type": "none that writes a space as ▁"})
    _check_decoder(contents.get("decoder"), prefixed)


def _check_decoder(decoder: Mapping[str, Any] | None, prefixed: bool) -> None:
    unmarked = stripped = False
    kinds: set[str] = set()
    for part in parts_of(decoder):
        if part["type"] == "Metaspace" and part["replacement"] == MARKER and "Fuse" not in kinds:
            unmarked, stripped = True, stripped or part["prepend_scheme"] != "never"
        elif part == _SPACES:
            unmarked = True
        elif part == _STRIP and "Fuse" in kinds:  # before, it would strip every piece
            stripped = True
        elif part["type"] not in ("ByteFallback", "Fuse"):
            raise cannot("decoder", part)
        kinds.add(part["type"])
    if not unmarked or "ByteFallback" not in kinds or stripped != prefixed:
        missing = "ByteFallback" if "ByteFallback" not in kinds else "Replace of ▁" if not unmarked else "Strip"
        raise cannot("decoder", {"type": f"none with {missing}" if missing != "Strip" or prefixed else "Strip"})


def check_levels(contents: Mapping[str, Any]) -> None:
    """ValueError, with its name, for a part of a byte-level tokenizer that changes its text, or makes another of it."""
    for part in parts_of(contents.get("normalizer")):
        raise cannot("normalizer", part)
    decoder = list(parts_of(contents.get("decoder")))
    for part in decoder:
        if part["type"] not in ("ByteLevel", "Fuse"):
            raise cannot("decoder", part)
    if not any(part["type"] == "ByteLevel" for part in decoder):
        raise cannot("decoder", {"type": "none with ByteLevel"})


def check_around(around: Sequence[str], bos: str | None, eos: str | None) -> None:
    """ValueError for other tokens around a text than a beginning and an end.

    around: those that the file's own post-processor puts there. One other beginning gives way to bos.
    """
    before = list(around[:-1] if around and around[-1] == eos else around)
    if len(before) > 1 or (before and bos is None):
        raise ValueError(
            f"the tokenizer's post_processor puts {' '.join(around)[:100]} around a text, and llama.cpp one beginning "
            "and one end: convert to a folder instead"
        )


def check_bytes(pieces: Sequence[str]) -> None:
    """ValueError for sentencepiece's pieces without one for each byte: llama.cpp stops at a character it has no piece
    for."""
    known = set(pieces)
    if missing := [name for name in BYTE_NAMES if name not in known]:
        raise ValueError(
            f"the tokenizer has no pieces for {len(missing)} of the 256 bytes (as {missing[0]}), and llama.cpp needs "
            "them for unknown characters: convert to a folder instead"
        )


def check_added(tokens: Mapping[int, Any]) -> None:
    """ValueError for added tokens that are found otherwise than as they are written."""
    for token in tokens.values():
        for key in ("lstrip", "rstrip", "single_word"):
            if getattr(token, key):
                raise cannot("added token", {"type": token.content, key: True})


def name_of_cut(contents: Mapping[str, Any]) -> str:
    """llama.cpp's name of the way in which a tokenizer.json cuts a text into words."""
    cut = contents["pre_tokenizer"]
    same = [how for how in PATTERNS if _what_cuts(_as_json(how)) == _what_cuts(cut)]
    whole = bool(contents["model"].get("ignore_merges"))
    named = [name for name, cut in CUTS.items() if cut.how in same and cut.ignore_merges == whole]
    if named:
        return named[0]
    if same:
        raise ValueError(f"the tokenizer's ignore_merges is not what goes with cutting words as {same[0]}")
    if cut is None:
        raise cannot("pre_tokenizer", {"type": "none"})
    raise cannot("pre_tokenizer", cut if cut["type"] != "Sequence" else {"type": "Sequence", "of": _what_cuts(cut)})


def _as_json(how: str) -> Any:
    backend = tokenizers.Tokenizer(BPE())
    backend.pre_tokenizer = word_cutter(how)
    return json.loads(backend.to_str())["pre_tokenizer"]


def _what_cuts(cut: Any) -> list[dict[str, Any]]:
    """A pre-tokenizer part by part, in one spelling, without what says nothing of where it cuts."""
    digits = {"type": "Split", "pattern": {"Regex": r"\p{N}"}, "behavior": "Isolated", "invert": False}
    found = []
    for part in parts_of(cut):
        plain = {key: value for key, value in part.items() if key != "trim_offsets"}
        found.append(digits if plain == {"type": "Digits", "individual_digits": True} else plain)
    return found


def cannot(what: str, part: Mapping[str, Any]) -> ValueError:
    """The error that names a part, with what it is set to."""
    settings = {key: value for key, value in part.items() if key != "type" and value not in (None, [], {})}
    shown = json.dumps(settings, ensure_ascii=False) if settings else ""
    shown = f" {shown[:120]}{'...' if len(shown) > 120 else ''}" if shown else ""
    return ValueError(
        f"the tokenizer's {what} {part['type']}{shown} has no place in a vocabulary for llama.cpp: convert to a folder "
        "instead"
    )
