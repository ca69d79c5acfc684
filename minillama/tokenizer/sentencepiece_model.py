"""The tokenizer of Llama 1 and 2: a sentencepiece model (byte-pair merges, unknown characters as bytes)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import sentencepiece
from tokenizers import AddedToken

from minillama.files import read_bytes
from minillama.messages import shown
from minillama.tokenizer.base import Token, Tokenizer, check_text
from minillama.tokenizer.settings import as_special, check_settings, read_added_tokens, read_settings
from minillama.vocabulary import TIKTOKEN

MARKER = "▁"  # U+2581, how sentencepiece writes a space
# Appended to a serialized model, these bytes set normalizer_spec.add_dummy_prefix (field 3 in field 3) to false:
# a message that stands twice is merged, the last value wins (the protocol buffers encoding).
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


class LlamaTokenizer(Tokenizer):
    """A sentencepiece `.model` file, with special tokens that are taken out of a text before it sees the rest.

    vocab_file: the model, or its bytes. legacy=True (the default, also for None) encodes every stretch of text between
    special tokens by itself, with a space put before it; legacy=False puts one before the whole text only.
    add_prefix_space=False, which needs legacy=False, puts none anywhere. sp_model_kwargs: arguments of sentencepiece,
    such as {"enable_sampling": True, "nbest_size": -1, "alpha": 0.1} for subword regularization (Kudo 2018).
    added_tokens_decoder: ids and tokens beyond the model. clean_up_tokenization_spaces: what decode does by default.
    use_default_system_prompt: see default_chat_template. Further arguments: pad and other named tokens,
    additional_special_tokens, chat_template, padding_side ("right"), truncation_side ("right"), model_max_length,
    model_input_names; unknown ones are kept and written back by save_pretrained. spaces_between_special_tokens is kept,
    and read by nothing, as in transformers 4.34: give it to decode.

    ValueError or OSError that names the file if it is not a sound model.
    """

    def __init__(
        self,
        vocab_file: str | os.PathLike[str] | bytes,
        unk_token: Token | None = "<unk>",
        bos_token: Token | None = "<s>",
        eos_token: Token | None = "</s>",
        pad_token: Token | None = None,
        sp_model_kwargs: Mapping[str, Any] | None = None,
        add_bos_token: bool | None = True,
        add_eos_token: bool | None = False,
        clean_up_tokenization_spaces: bool = False,
        use_default_system_prompt: bool = True,
        spaces_between_special_tokens: bool = False,
        legacy: bool | None = None,
        add_prefix_space: bool | None = True,
        **settings: Any,
    ):
        self.legacy = legacy is not False
        self.add_bos_token = add_bos_token is None or bool(add_bos_token)
        self.add_eos_token = bool(add_eos_token)
        self.clean_up_tokenization_spaces = bool(clean_up_tokenization_spaces)
        self.use_default_system_prompt = bool(use_default_system_prompt)
        self.spaces_between_special_tokens = bool(spaces_between_special_tokens)
        self.add_prefix_space = add_prefix_space is not False
        if self.legacy and not self.add_prefix_space:
            raise ValueError("add_prefix_space=False needs legacy=False: a legacy model puts a space before every text")
        check_settings({"sp_model_kwargs": sp_model_kwargs})
        if not isinstance(vocab_file, str | os.PathLike | bytes):
            raise ValueError(f"vocab_file must be the path of a sentencepiece model, not {shown(vocab_file)}")
        self.sp_model_kwargs = dict(sp_model_kwargs or {})
        self.vocab_file = None if isinstance(vocab_file, bytes) else vocab_file
        self.sp_model = load_sentencepiece(vocab_file, self.legacy, self.sp_model_kwargs)
        # A model that merges spaces strips, without its dummy prefix, those that a text begins with
        self._strips = not self.sp_model.encode(" a", out_type=str, enable_sampling=False)[0].startswith(MARKER)
        self._added: dict[int, AddedToken] = {}
        added = settings.pop("added_tokens_decoder", None) or {}
        named = {"unk_token": unk_token, "bos_token": bos_token, "eos_token": eos_token, "pad_token": pad_token}
        self._set_up(named, settings, padding_side="right")
        special = set(self.all_special_tokens)
        for index, token in added.items():
            if not isinstance(token, AddedToken):
                raise ValueError(f"added_tokens_decoder must map ids to AddedTokens, not to {shown(token)}")
            # In the model's own range an id has the piece that the model gives it
            if int(index) >= self.vocab_size or self.sp_model.id_to_piece(int(index)) == token.content:
                self._added[int(index)] = token
                if token.special and token.content not in special:
                    self._additional.append(token)
                    special.add(token.content)
        self.add_tokens([*self._named.values(), *self._additional], special_tokens=True)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], **overrides: Any) -> Self:
        """Read a folder with a tokenizer.model, or a sentencepiece file by any name, with the files beside it;
        `overrides` are arguments that come before what these say."""
        file = Path(path)
        file = file / "tokenizer.model" if file.is_dir() else file
        if not file.exists():
            raise FileNotFoundError(f"{file} does not exist: a sentencepiece model is expected there")
        settings = read_settings(file.parent)
        if "added_tokens_decoder" not in settings:
            settings["added_tokens_decoder"] = read_added_tokens(file.with_name("tokenizer.json"))
        settings |= overrides
        settings.pop("tokenizer_class", None)
        return cls(file, **settings)

    # -- the vocabulary ---------------------------------------------------------------------------------------

    @property
    def vocab_size(self) -> int:
        return len(self.sp_model)

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        return dict(sorted(self._added.items()))

    def get_vocab(self) -> dict[str, int]:
        pieces = {self.sp_model.id_to_piece(i): i for i in range(self.vocab_size)}
        return pieces | self.added_tokens_encoder

    def _add_tokens(self, tokens: Sequence[Token], special: bool) -> int:
        vocab, added = self.vocab, 0
        free = max([*vocab.values(), *self._added], default=-1) + 1
        taken = {token.content for token in self._added.values()}
        for given in tokens:
            content = given if isinstance(given, str) else given.content
            if content in taken:
                continue
            counts = special or content in self.all_special_tokens
            token = AddedToken(content, normalized=not counts, special=counts) if isinstance(given, str) else given
            token = as_special(token) if special else token
            if content not in vocab:
                vocab[content] = free + added
                added += 1
            self._added[vocab[content]] = token
            taken.add(content)
            if counts and content not in self.all_special_tokens:
                self._additional.append(as_special(token))
        return added

    def _changed(self) -> None:
        super()._changed()
        self._ids_of_added = {token.content: index for index, token in self._added.items()}
        longest_first = sorted(self._ids_of_added, key=len, reverse=True)
        self._splitter = re.compile(f"({'|'.join(map(re.escape, longest_first)) or '(?!)'})")
        special = set(self.all_special_tokens)
        ordinary = {content for content in self._ids_of_added if content not in special}
        # Decoded by themselves: tokens that the model does not have
        beyond = {token for token in self.additional_special_tokens if self._piece_to_id(token) >= self.vocab_size}
        self._special, self._apart = special, ordinary | beyond

    def _piece_to_id(self, token: str) -> int:
        index = self._ids_of_added.get(token)
        return int(self.sp_model.piece_to_id(token)) if index is None else index

    def _id_to_piece(self, index: int) -> str:
        token = self._added.get(index)
        if token is not None:
            return str(token.content)
        return str(self.sp_model.id_to_piece(index)) if index < self.vocab_size else ""

    # -- text to pieces ---------------------------------------------------------------------------------------

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False, **how: Any) -> list[str]:
        """The pieces of a text, special tokens in it recognised; with split_special_tokens=True they are text. The
        other arguments change nothing, as in transformers."""
        check_text(text)
        if unknown := how.keys() - {"split_special_tokens"}:
            raise TypeError(f"a tokenizer takes no argument {shown(unknown.pop())}")
        if self.legacy or not text:
            return self._pieces(text, **how)
        pieces = self._pieces(self._prefixed(text), **how)
        if self.add_prefix_space and len(pieces) > 1 and pieces[0] == MARKER and pieces[1] in self._special:
            return pieces[1:]  # the marker before a special token marks nothing
        return pieces

    def _prefixed(self, text: str) -> str:
        return (MARKER if self.add_prefix_space else "") + text.replace(MARKER, " ")

    def _ids(self, text: str, **how: Any) -> list[int]:
        return [self._piece_to_id(piece) for piece in self.tokenize(text, **how)]

    def _pieces(self, text: str, split_special_tokens: bool | None = None) -> list[str]:
        """Pieces of a text cut at its added tokens. One of these may take the spaces beside it, or be a token only as a
        word of its own; else it goes with the text before it, or behind it."""
        if self.split_special_tokens if split_special_tokens is None else split_special_tokens:
            return self._stretch(text) if text else []
        parts = [part for part in self._splitter.split(text) if part]
        for i, part in enumerate(parts):
            if part not in self._ids_of_added:
                continue
            token = self._added[self._ids_of_added[part]]
            before = parts[i - 1] if i > 0 else ""
            behind = parts[i + 1] if i + 1 < len(parts) else ""
            if token.rstrip and behind:
                parts[i + 1] = behind.lstrip()
            if token.lstrip and before:
                parts[i - 1] = before.rstrip()
            if token.single_word and before and before[-1] != " ":
                parts[i - 1], parts[i] = parts[i - 1] + part, ""
            elif token.single_word and behind and behind[0] != " ":
                parts[i + 1], parts[i] = part + parts[i + 1], ""
        pieces: list[str] = []
        for part in filter(None, parts):
            pieces += [part] if part in self._ids_of_added else self._stretch(part)
        return pieces

    def _stretch(self, text: str) -> list[str]:
        """The pieces of a stretch between two added tokens."""
        if self.legacy or not self._strips or not text.startswith((MARKER, " ")):
            return list(self.sp_model.encode(text, out_type=str))
        # Put something before the space and take that off again
        shield = self.unk_token or "<unk>"
        pieces = self.sp_model.encode(shield + text, out_type=str)
        return list(pieces)[len(self.sp_model.encode(shield)) :]

    def _encode_plain(self, text: str, first: bool) -> list[int]:
        if not self.legacy:
            text = self._prefixed(text) if first else text.replace(MARKER, " ")
        return [int(self.sp_model.piece_to_id(piece)) for piece in self._stretch(text)]

    # -- pieces to text ---------------------------------------------------------------------------------------

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of pieces. The marker that begins the first one is dropped, being encode's own; in a legacy model a
        space stands before the stretch that ends in a special token."""
        pieces = list(tokens)
        if pieces and pieces[0].startswith(MARKER) and self.add_prefix_space:
            pieces[0] = pieces[0][1:]
        stretch: list[str] = []
        text, after_special = "", False
        for place, piece in enumerate(pieces):
            if piece in self._special:
                if self.legacy and place > 0 and not after_special:
                    text += " "
                text += self.sp_model.decode(stretch) + piece
                stretch, after_special = [], True
            else:
                stretch.append(piece)
                after_special = False
        return text + str(self.sp_model.decode(stretch))

    def _text(self, ids: list[int], spaces_between_special_tokens: bool) -> str:
        parts: list[str] = []
        stretch: list[str] = []
        for piece in map(self._id_to_piece, ids):
            if piece not in self._apart:
                stretch.append(piece)
                continue
            if stretch and (text := self.convert_tokens_to_string(stretch)):
                parts.append(text)
            parts.append(piece)
            stretch = []
        if stretch:
            parts.append(self.convert_tokens_to_string(stretch))
        return (" " if spaces_between_special_tokens else "").join(parts)

    # -- files ------------------------------------------------------------------------------------------------

    def _sentencepiece_model(self) -> bytes:
        file = Path(self.vocab_file or "")
        return file.read_bytes() if file.is_file() else bytes(self.sp_model.serialized_model_proto())

    def _vocabulary_files(self, legacy_format: bool | None) -> dict[str, bytes]:
        if legacy_format is False:
            raise ValueError("LlamaTokenizer has no other format than the legacy one; LlamaTokenizerFast has one")
        return {"tokenizer.model": self._sentencepiece_model()}

    def _own_settings(self) -> dict[str, Any]:
        return {
            "add_bos_token": self.add_bos_token,
            "add_eos_token": self.add_eos_token,
            "legacy": self.legacy,
            "sp_model_kwargs": self.sp_model_kwargs,
            "spaces_between_special_tokens": self.spaces_between_special_tokens,
            "add_prefix_space": self.add_prefix_space,
        }


def load_sentencepiece(
    vocab_file: str | os.PathLike[str] | bytes, dummy_prefix: bool = True, options: Mapping[str, Any] | None = None
) -> Any:
    """A sentencepiece model from a file or its bytes; ValueError or OSError that names the file if it is not a sound
    one."""
    try:
        model = vocab_file if isinstance(vocab_file, bytes) else read_bytes(vocab_file)
    except OSError as error:
        raise OSError(f"{vocab_file!s} cannot be read: {error.strerror}") from None
    where = "the vocabulary" if isinstance(vocab_file, bytes) else vocab_file
    if not model:
        raise ValueError(f"{where} is empty: get the tokenizer model again")
    try:
        return sentencepiece.SentencePieceProcessor(
            model_proto=model if dummy_prefix else model + _NO_DUMMY_PREFIX, **dict(options or {})
        )
    except TypeError as error:
        raise ValueError(f"sp_model_kwargs are not arguments of sentencepiece: {error}") from None
    except RuntimeError as error:
        if "exclusive" in str(error):
            raise ValueError("sp_model_kwargs cannot name another model: leave that out") from None
        if TIKTOKEN.match(model):
            raise ValueError(
                f"{where} is a vocabulary of tiktoken, as Meta has it for Llama 3: AutoTokenizer.from_pretrained or "
                "load_tokenizer reads it"
            ) from None
        raise ValueError(f"{where} is not a sound sentencepiece model: get it again") from None
