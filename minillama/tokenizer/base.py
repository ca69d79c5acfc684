"""What every tokenizer does the same way: special tokens, checks, batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from minillama.config import read_json_object


@dataclass
class SpecialTokens:
    """The pieces with a meaning of their own, and what the files beside a vocabulary say of them."""

    bos_token: str | None = "<s>"
    eos_token: str | None = "</s>"
    unk_token: str | None = "<unk>"
    pad_token: str | None = None
    add_bos_token: bool | None = None  # None: not said, the tokenizer's own way
    add_eos_token: bool | None = None
    legacy: bool | None = None
    added: dict[str, int] = field(default_factory=dict)  # tokens beyond the vocabulary file, with their ids
    hidden: set[str] = field(default_factory=set)  # those of them that count as special, and vanish from clean text

    @classmethod
    def from_folder(cls, folder: Path) -> SpecialTokens:
        """Read tokenizer_config.json, special_tokens_map.json and added_tokens.json, those that exist."""

        def read(name: str) -> dict[str, Any]:
            return read_json_object(folder / name, "settings of a tokenizer") if (folder / name).exists() else {}

        files = {name: read(name) for name in ("special_tokens_map.json", "tokenizer_config.json")}
        found = cls()
        for source, settings in files.items():
            for name in ("bos_token", "eos_token", "unk_token", "pad_token"):
                token = settings.get(name, getattr(found, name))
                token = token.get("content") if isinstance(token, dict) else token
                if token is not None and not isinstance(token, str):
                    raise ValueError(f"{folder / source}: {name} must be a text or null, not {token!r}")
                setattr(found, name, token)
            for name in ("add_bos_token", "add_eos_token", "legacy"):
                flag = settings.get(name, getattr(found, name))
                if flag is not None and not isinstance(flag, bool):
                    raise ValueError(f"{folder / source}: {name} must be true, false or null, not {flag!r}")
                setattr(found, name, flag)
        for token, index in read("added_tokens.json").items():
            found._add(folder / "added_tokens.json", token, index, special=True)
        file = folder / "tokenizer_config.json"
        decoder = files[file.name].get("added_tokens_decoder") or {}
        if not isinstance(decoder, dict) or not all(isinstance(entry, dict) for entry in decoder.values()):
            raise ValueError(f"{file}: added_tokens_decoder must map ids to objects, not be {str(decoder)[:100]}")
        for index, entry in decoder.items():
            found._add(file, entry.get("content"), index, special=bool(entry.get("special", True)))
        return found

    def _add(self, file: Path, token: Any, index: Any, special: bool) -> None:
        if not isinstance(token, str) or not token or not str(index).isdecimal():
            raise ValueError(
                f"{file} gives the added token {token!r} the id {index!r}: a text and a whole number belong there"
            )
        self.added[token] = int(index)
        (self.hidden.add if special else self.hidden.discard)(token)

    @property
    def named(self) -> list[str]:
        return [token for token in (self.bos_token, self.eos_token, self.unk_token, self.pad_token) if token]


class Tokenizer(ABC):
    """Text to ids and back. `add_bos_token` and `add_eos_token` say what encode puts around a text."""

    vocab: dict[str, int]
    special: SpecialTokens
    add_bos_token: bool
    add_eos_token: bool

    @abstractmethod
    def _encode(self, text: str) -> list[int]:
        """The ids of `text`, special tokens in it recognised, nothing put around it."""

    @abstractmethod
    def _decode(self, ids: list[int]) -> str:
        """The text of ids that are all in range."""

    def __len__(self) -> int:
        """One more than the largest id."""
        return self._size

    @cached_property
    def _size(self) -> int:  # the vocabulary does not change, and streaming asks for it at every token
        return max(self.vocab.values(), default=-1) + 1

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of `text`. ValueError for a lone surrogate, which no encoding of text can hold."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"the text has a lone surrogate, U+{ord(text[error.start]):04X}, at position {error.start}: "
                "it is not Unicode text; decode its bytes anew"
            ) from None
        ids = self._encode(text)
        if add_special_tokens:
            bos = [self.bos_token_id] if self.add_bos_token and self.bos_token_id is not None else []
            eos = [self.eos_token_id] if self.add_eos_token and self.eos_token_id is not None else []
            ids = [*bos, *ids, *eos]
        return ids

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD. ValueError for an id outside the vocabulary."""
        known = [int(index) for index in ids]
        for index in known:
            if not 0 <= index < len(self):
                raise ValueError(f"the id {index} is outside the tokenizer's 0..{len(self) - 1}")
        if skip_special_tokens:
            hidden = self.all_special_ids
            known = [index for index in known if index not in hidden]
        return self._decode(known)

    def batch_decode(self, rows: Iterable[Sequence[int]], skip_special_tokens: bool = False) -> list[str]:
        """decode for several rows."""
        return [self.decode(row, skip_special_tokens) for row in rows]

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """The id of one piece of the vocabulary, or of the unknown token."""
        return self.vocab.get(token, self.unk_token_id)

    def _id_of(self, token: str | None) -> int | None:
        return None if token is None else self.vocab.get(token)

    @property
    def bos_token_id(self) -> int | None:
        return self._id_of(self.special.bos_token)

    @property
    def eos_token_id(self) -> int | None:
        return self._id_of(self.special.eos_token)

    @property
    def unk_token_id(self) -> int | None:
        return self._id_of(self.special.unk_token)

    @property
    def pad_token_id(self) -> int | None:
        return self._id_of(self.special.pad_token)

    @cached_property
    def all_special_ids(self) -> set[int]:
        """Ids that stand for no text of their own."""
        tokens = [*self.special.named, *self.special.hidden]
        return {self.vocab[token] for token in tokens if token in self.vocab}
