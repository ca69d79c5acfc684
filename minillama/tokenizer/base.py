"""What every tokenizer does the same way: named and added tokens, decoding, files."""

from __future__ import annotations

import operator
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
from tokenizers import AddedToken

from minillama.arrays import plain
from minillama.files import write_files
from minillama.forking import cached_property
from minillama.messages import shown
from minillama.tokenizer.batches import NO_LIMIT, Batches, log
from minillama.tokenizer.chat import ChatTemplates
from minillama.tokenizer.settings import (
    ADDED,
    NAMED,
    TEMPLATE,
    as_special,
    check_settings,
    more_templates,
    settings_files,
)

Token: TypeAlias = str | AddedToken

# What decoding "cleans up", if it is asked to: spaces that English does not write
_CLEAN_UP = (
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"),
    (" n't", "n't"), (" 'm", "'m"), (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


def _named_token(name: str) -> Any:
    """The text of a named token, to be read and set."""

    def get(self: Tokenizer) -> str | None:
        token = self._named.get(name)
        return None if token is None else token.content

    def put(self: Tokenizer, token: Token | None) -> None:
        self._name(name, token)

    return property(get, put, doc=f"The text of the {name.replace('_', ' ')}, or None.")


def _named_id(name: str) -> Any:
    """The id of a named token, to be read and set."""

    def get(self: Tokenizer) -> int | None:
        token = self._named.get(name)
        return None if token is None else self.convert_tokens_to_ids(token.content)

    def put(self: Tokenizer, index: int | None) -> None:
        self._name(name, None if index is None else self.convert_ids_to_tokens(index))

    return property(get, put, doc=f"The id of the {name.replace('_', ' ')}, or None.")


class Tokenizer(Batches, ChatTemplates, ABC):
    """Text to ids and back. `add_bos_token` and `add_eos_token` say what encode puts around a text."""

    bos_token, bos_token_id = _named_token("bos_token"), _named_id("bos_token")
    eos_token, eos_token_id = _named_token("eos_token"), _named_id("eos_token")
    unk_token, unk_token_id = _named_token("unk_token"), _named_id("unk_token")
    sep_token, sep_token_id = _named_token("sep_token"), _named_id("sep_token")
    pad_token, pad_token_id = _named_token("pad_token"), _named_id("pad_token")
    cls_token, cls_token_id = _named_token("cls_token"), _named_id("cls_token")
    mask_token, mask_token_id = _named_token("mask_token"), _named_id("mask_token")

    vocab_file: str | os.PathLike[str] | None
    clean_up_tokenization_spaces: bool

    def _set_up(self, named: Mapping[str, Token | None], settings: dict[str, Any], padding_side: str) -> None:
        """Take what both classes take in the same way; settings nobody knows are kept and written back."""
        tokens = {name: named.get(name, settings.pop(name, None)) for name in NAMED}
        self._named = {name: _special(name, token) for name, token in tokens.items() if token}
        self._additional = _several(settings.pop("additional_special_tokens", None))
        settings = plain(settings)
        check_settings(settings)
        self.chat_template = settings.pop("chat_template", None)
        self.padding_side = settings.pop("padding_side", None) or padding_side
        self.truncation_side = settings.pop("truncation_side", None) or "right"
        self.model_max_length = int(min(settings.pop("model_max_length", None) or NO_LIMIT, NO_LIMIT))
        self.model_input_names = list(settings.pop("model_input_names", None) or ["input_ids", "attention_mask"])
        self.split_special_tokens = bool(settings.pop("split_special_tokens", False))
        self.init_kwargs = settings

    def _name(self, name: str, token: Token | None) -> None:
        if token is not None and token != "":
            self._named[name] = _special(name, token)
        else:
            self._named.pop(name, None)
        self._changed()

    def _changed(self) -> None:
        """Forget what follows from the tokens there are."""
        for cached in ("_vocab", "_size", "_hidden_ids"):
            self.__dict__.pop(cached, None)

    # -- the vocabulary ---------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """How many pieces the vocabulary has without added tokens."""

    @property
    @abstractmethod
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The tokens that are taken out of a text before anything else, by id."""

    @abstractmethod
    def get_vocab(self) -> dict[str, int]:
        """Every piece with its id, added tokens among them."""

    @abstractmethod
    def _add_tokens(self, tokens: Sequence[Token], special: bool) -> int: ...

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """The added tokens, with their ids."""
        return {token.content: index for index, token in sorted(self.added_tokens_decoder.items())}

    def get_added_vocab(self) -> dict[str, int]:
        """The added tokens, with their ids."""
        return self.added_tokens_encoder

    @cached_property
    def _vocab(self) -> dict[str, int]:
        return self.get_vocab()

    @property
    def vocab(self) -> dict[str, int]:
        """Every piece with its id, added tokens among them."""
        return dict(self._vocab)

    def __len__(self) -> int:
        """One more than the largest id."""
        return self._size

    @cached_property
    def _size(self) -> int:  # streaming asks for it at every token
        return max(self._vocab.values(), default=-1) + 1

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} tokens, special: {', '.join(self.all_special_tokens)})"

    def add_tokens(self, new_tokens: Token | Sequence[Token], special_tokens: bool = False) -> int:
        """Add tokens that are taken out of a text as a whole; how many were new. Those that are not in the vocabulary
        get the ids from len(self) on: the model needs rows for them (resize_token_embeddings)."""
        tokens = [new_tokens] if isinstance(new_tokens, str | AddedToken) else list(new_tokens)
        for token in tokens:
            if not isinstance(token, str | AddedToken):
                raise TypeError(f"a token must be a text or an AddedToken, not {shown(token)}")
        added = self._add_tokens([token for token in tokens if str(getattr(token, "content", token))], special_tokens)
        self._changed()
        return added

    def add_special_tokens(
        self,
        special_tokens_dict: Mapping[str, Token | Sequence[Token]],
        replace_additional_special_tokens: bool = True,
    ) -> int:
        """Name tokens ("pad_token": "<pad>", "additional_special_tokens": [...]) and add those that are new; how many
        were."""
        added = 0
        for name, value in special_tokens_dict.items():
            if name == "additional_special_tokens" and isinstance(value, list | tuple):
                tokens = [as_special(token) for token in value]
                if not replace_additional_special_tokens:
                    known = [token.content for token in self._additional]
                    tokens = [*self._additional, *(token for token in tokens if token.content not in known)]
                self._additional = tokens
                added += self.add_tokens(tokens, special_tokens=True)
            elif name in NAMED and isinstance(value, str | AddedToken):
                self._named[name] = as_special(value)
                added += self.add_tokens([self._named[name]], special_tokens=True)
            else:
                raise ValueError(
                    f"{shown(name)} with {shown(value)} is not a special token: give texts for {', '.join(NAMED)}, or "
                    "a list of them for additional_special_tokens"
                )
        self._changed()
        return added

    @property
    def additional_special_tokens(self) -> list[str]:
        """The texts of special tokens without a name."""
        return [token.content for token in self._additional]

    @additional_special_tokens.setter
    def additional_special_tokens(self, tokens: Sequence[Token] | None) -> None:
        self._additional = _several(tokens)
        self._changed()

    @property
    def additional_special_tokens_ids(self) -> list[int]:
        return [self.convert_tokens_to_ids(token) for token in self.additional_special_tokens]

    @property
    def special_tokens_map(self) -> dict[str, Any]:
        """The special tokens that are set: "bos_token" and the like, and their texts."""
        named: dict[str, Any] = {name: self._named[name].content for name in NAMED if name in self._named}
        return named | ({"additional_special_tokens": self.additional_special_tokens} if self._additional else {})

    @property
    def all_special_tokens(self) -> list[str]:
        """The texts of all special tokens, each once."""
        named = (self._named[name].content for name in NAMED if name in self._named)
        return list(dict.fromkeys([*named, *self.additional_special_tokens]))

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of all special tokens."""
        return [self.convert_tokens_to_ids(token) for token in self.all_special_tokens]

    @cached_property
    def _hidden_ids(self) -> frozenset[int]:
        """Ids that stand for no text: special tokens, and added ones that count as special."""
        special = (index for index, token in self.added_tokens_decoder.items() if token.special)
        return frozenset([*self.all_special_ids, *special])

    def _added_tokens(self) -> dict[str, tuple[int, bool]]:
        hidden = self._hidden_ids
        return {token: (index, index in hidden) for token, index in self.added_tokens_encoder.items()}

    # -- tokens and ids ---------------------------------------------------------------------------------------

    @abstractmethod
    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False, **how: Any) -> list[str]:
        """The pieces of a text."""

    @abstractmethod
    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of pieces."""

    @abstractmethod
    def _piece_to_id(self, token: str) -> int | None: ...

    @abstractmethod
    def _id_to_piece(self, index: int) -> str: ...

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The id of a piece, or a list of ids for several; of one that is not in the vocabulary the unknown token's."""
        if tokens is None:
            return None
        pieces = [tokens] if isinstance(tokens, str) else list(tokens)
        for piece in pieces:
            if not isinstance(piece, str):
                raise ValueError(f"a piece must be a text, not {shown(piece)}")
        ids = [self._piece_to_id(piece) for piece in pieces]
        return ids[0] if isinstance(tokens, str) else ids

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The piece of an id, or the list of pieces of several. ValueError for an id outside the vocabulary."""
        known = self._known(ids)
        if _is_one(ids):
            return self._id_to_piece(known[0])
        hidden = self._hidden_ids if skip_special_tokens else ()
        return [self._id_to_piece(index) for index in known if index not in hidden]

    def _known(self, ids: Any) -> list[int]:
        """One id or several as a list, all of them whole numbers in range."""
        size = len(self)
        several = [ids] if isinstance(ids, str) or _is_one(ids) else ids
        try:
            known = [operator.index(index) for index in several]
        except TypeError:
            raise ValueError(
                f"ids must be a list of whole numbers, not {repr(ids)[:60]}; for several lists, batch_decode"
            ) from None
        for index in known:
            if not 0 <= index < size:
                raise ValueError(f"the id {index} is outside the tokenizer's 0..{size - 1}")
        return known

    @abstractmethod
    def _text(self, ids: list[int], spaces_between_special_tokens: bool) -> str:
        """The text of ids that are all in range."""

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        spaces_between_special_tokens: bool = True,
    ) -> str:
        """The text of ids; bytes that are not UTF-8 become U+FFFD.

        skip_special_tokens leaves out those that stand for no text. clean_up_tokenization_spaces takes spaces away that
        English does not write, as before a full stop (None: as the tokenizer was made). spaces_between_special_tokens,
        of LlamaTokenizer, puts a space between an added token and what is beside it. ValueError for an id outside the
        vocabulary.
        """
        ids = self._known(token_ids)
        if skip_special_tokens:
            hidden = self._hidden_ids
            ids = [index for index in ids if index not in hidden]
        text = self._text(ids, spaces_between_special_tokens)
        clean = (
            self.clean_up_tokenization_spaces if clean_up_tokenization_spaces is None else clean_up_tokenization_spaces
        )
        return self.clean_up_tokenization(text) if clean else text

    def batch_decode(self, sequences: Iterable[Any], skip_special_tokens: bool = False, **how: Any) -> list[str]:
        """decode for several rows."""
        return [self.decode(row, skip_special_tokens, **how) for row in sequences]

    @staticmethod
    def clean_up_tokenization(out_string: str) -> str:
        """The text without the spaces that English does not write: " ." becomes "." and so on."""
        for spaced, tight in _CLEAN_UP:
            out_string = out_string.replace(spaced, tight)
        return out_string

    # -- files ------------------------------------------------------------------------------------------------

    @abstractmethod
    def _vocabulary_files(self, legacy_format: bool | None) -> dict[str, bytes]: ...

    def _class_name(self) -> str:
        """By which transformers finds its class."""
        return "LlamaTokenizer"

    @abstractmethod
    def _own_settings(self) -> dict[str, Any]: ...

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
    ) -> tuple[str, ...]:
        """Write the vocabulary and the settings into a folder, all files or none; their paths.

        legacy_format: of LlamaTokenizerFast, True leaves out tokenizer.json and False tokenizer.model. filename_prefix:
        goes before each name, with a dash. ValueError for a format that it has not, OSError that names the file.
        """
        folder, prefix = Path(save_directory), f"{filename_prefix}-" if filename_prefix else ""
        settings: dict[str, Any] = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token")) | self._named
        settings |= self.init_kwargs | self._own_settings()
        settings |= {
            "tokenizer_class": self._class_name(),
            "additional_special_tokens": self._additional,
            "added_tokens_decoder": self.added_tokens_decoder,
            "chat_template": self.chat_template,
            "model_max_length": self.model_max_length,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "clean_up_tokenization_spaces": self.clean_up_tokenization_spaces,
            "use_default_system_prompt": self.use_default_system_prompt,
            "split_special_tokens": self.split_special_tokens,
        }
        if not self._additional:
            del settings["additional_special_tokens"]
        beyond = {token: index for token, index in self.added_tokens_encoder.items() if index >= self.vocab_size}
        contents = settings_files(settings, beyond) | self._vocabulary_files(legacy_format)
        files = {folder / f"{prefix}{name}": content for name, content in contents.items()}
        # Older ones, which would be read with the new ones
        older = {folder / f"{prefix}{name}" for name in (TEMPLATE, ADDED)} - files.keys()
        older |= set(more_templates(folder)) if not prefix else set()
        write_files(files, remove=older)
        return tuple(str(file) for file in files)

    def save_vocabulary(
        self, save_directory: str | os.PathLike[str], filename_prefix: str | None = None
    ) -> tuple[str] | None:
        """Write the sentencepiece model into a folder that exists; its path. Where there is no such folder that is
        logged, and the answer is None."""
        folder = Path(save_directory)
        contents = self._sentencepiece_model()
        if not folder.is_dir():
            log.error("%s is not a folder: the vocabulary is not saved", folder)
            return None
        file = folder / f"{filename_prefix + '-' if filename_prefix else ''}tokenizer.model"
        write_files({file: contents})
        return (str(file),)

    @abstractmethod
    def _sentencepiece_model(self) -> bytes:
        """ValueError if there is none."""

    @classmethod
    @abstractmethod
    def from_pretrained(cls, path: str | os.PathLike[str], **overrides: Any) -> Self: ...


def _special(name: str, token: Any) -> AddedToken:
    if not isinstance(token, str | AddedToken):
        raise ValueError(f"{name} must be a text, an AddedToken or None, not {shown(token)}")
    return as_special(token)


def _several(tokens: Any) -> list[AddedToken]:
    if not isinstance(tokens, list | tuple | None):
        raise ValueError(f"additional_special_tokens must be a list of texts, not {shown(tokens)}")
    return [_special("additional_special_tokens", token) for token in tokens or [] if token]


def _is_one(ids: Any) -> bool:
    """Whether this is an id, and not several."""
    return np.ndim(ids) == 0 if isinstance(ids, np.ndarray) else not hasattr(ids, "__iter__")


def check_text(text: str) -> None:
    """ValueError for what is no text, and for a lone surrogate, which no encoding of text can hold."""
    if not isinstance(text, str):
        raise ValueError(f"a text must be a str, not {shown(str(text)[:60])} of type {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the text has a lone surrogate, U+{ord(text[error.start]):04X}, at position {error.start}: "
            "it is not Unicode text; decode its bytes anew"
        ) from None
