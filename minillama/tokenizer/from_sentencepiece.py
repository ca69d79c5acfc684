"""A sentencepiece byte-pair model as a model of the `tokenizers` library, with the same pieces, ids and merges."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from minillama.messages import shown
from minillama.tokenizer.library import quietly
from minillama.tokenizer.sentencepiece_model import MARKER, load_sentencepiece

# Texts on which a model that changes its text in any other way than by markers for spaces shows it
_PROBES = ("  two  spaces ", "ﬁ Å é e\u0301 ２ ™", "Tab\tnew\nline\u3000\u00a0end", "A b")


@quietly
def from_sentencepiece(vocab_file: str | os.PathLike[str], legacy: bool, add_prefix_space: bool = True) -> Tokenizer:
    """The model in `vocab_file`. legacy: a marker before every stretch between special tokens, else before the whole
    text only. ValueError for a model that is no byte-pair encoding, or that rewrites its text."""
    sp = load_sentencepiece(vocab_file)
    check_plain(sp, vocab_file)
    vocab = {sp.id_to_piece(i): i for i in range(len(sp))}
    unk = sp.id_to_piece(sp.unk_id())
    byte_fallback = any(sp.is_byte(i) for i in range(len(sp)))
    backend = Tokenizer(BPE(vocab, merges_of(sp, vocab), unk_token=unk, fuse_unk=True, byte_fallback=byte_fallback))
    if legacy:
        prepend = [normalizers.Prepend(MARKER)] if add_prefix_space else []
        backend.normalizer = normalizers.Sequence([*prepend, normalizers.Replace(" ", MARKER)])
    else:
        backend.normalizer = normalizers.Replace(" ", MARKER)
        backend.pre_tokenizer = _marker_in_front() if add_prefix_space else None
    strip = [decoders.Strip(" ", 1, 0)] if add_prefix_space else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace(MARKER, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    control = [i for i in range(len(sp)) if sp.is_control(i) or sp.is_unknown(i)]
    backend.add_special_tokens([AddedToken(sp.id_to_piece(i), normalized=False, special=True) for i in control])
    return backend


def check_plain(sp: Any, where: object, prefix: str = MARKER) -> None:
    """ValueError for a model that changes its text in any other way than by markers for spaces and a prefix."""
    for probe in _PROBES:
        if sp.normalize(probe) != prefix + probe.replace(" ", MARKER):
            raise ValueError(
                f"{where} rewrites its text ({shown(probe)} becomes {shown(sp.normalize(probe))}), which is done "
                "only by LlamaTokenizer: use that"
            )


def merges_of(sp: Any, vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Every pair of pieces that together are a piece, those whose piece has the better score first.

    sentencepiece keeps no list of merges: at each step it joins the neighbours that make the piece of the best score.
    """
    normal = {
        piece: i
        for piece, i in vocab.items()
        if not (sp.is_control(i) or sp.is_unknown(i) or sp.is_unused(i) or sp.is_byte(i))
    }
    return joins(normal, lambda piece: -sp.get_score(vocab[piece]))


def joins(ids: Mapping[str, int], order: Callable[[str], float]) -> list[tuple[str, str]]:
    """Every pair of pieces that together are a piece, by the order of what they make, lowest first."""
    found = []
    for piece in ids:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in ids and right in ids:
                found.append((order(piece), ids[left], ids[right], left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _marker_in_front() -> Any:
    """What puts a marker before the whole text, whatever it begins with.

    Metaspace leaves it out where there is one already, and a space that begins the text would be lost. As all spaces
    are markers by now, the first one here finds none and puts a space, which the second makes a marker.
    """
    try:
        first = pre_tokenizers.Metaspace(" ", prepend_scheme="first", split=False)
        return pre_tokenizers.Sequence([first, pre_tokenizers.Metaspace(MARKER, prepend_scheme="never", split=False)])
    except TypeError:
        import tokenizers

        raise ValueError(
            f"legacy=False needs tokenizers 0.19 or later, and {tokenizers.__version__} is installed: update it, or "
            "use LlamaTokenizer"
        ) from None
