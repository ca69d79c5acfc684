"""tokenizer.json files, read by the `tokenizers` library: Llama 3's tokenizer, and another form of Llama 1 and 2's."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import tokenizers
from tokenizers import AddedToken, processors

from minillama.config import parse_json_object, read_json_text
from minillama.forking import cached_property
from minillama.messages import shown
from minillama.tokenizer.base import Token, Tokenizer, check_text
from minillama.tokenizer.batch_encoding import BatchEncoding
from minillama.tokenizer.batches import CallOptions
from minillama.tokenizer.from_sentencepiece import from_sentencepiece
from minillama.tokenizer.library import Quiet, quietly
from minillama.tokenizer.settings import as_special, read_settings

DIVIDER = "\ufdd0"  # a noncharacter, which no text holds
Result = TypeVar("Result")

# Classes of transformers for tokenizers of any model, which folders of Llama 3 name; their padding_side is "right"
OF_ANY_MODEL = ("PreTrainedTokenizerFast", "TokenizersBackend")


class LlamaTokenizerFast(Tokenizer):
    """A tokenizer of the `tokenizers` library: a tokenizer.json, or made from a sentencepiece model alone.

    vocab_file: a sentencepiece model, which is used if there is no tokenizer_file, and which save_vocabulary writes.
    legacy, add_prefix_space: as in LlamaTokenizer, where the tokenizer is made from vocab_file; a tokenizer_file has
    its own way. tokenizer_object: one of the library's, in place of a file. add_bos_token and add_eos_token: what is
    put around a text; None for what the file's own post-processor does, or else a beginning only. The other arguments
    are those of LlamaTokenizer, but that padding_side is "left" if nothing is said.

    ValueError or OSError that names the file if it is not a sound tokenizer. Truncation and padding are set on the
    library's object for the time of a call: threads that give different ones need a tokenizer each.
    """

    is_fast = True

    def __init__(
        self,
        vocab_file: str | os.PathLike[str] | None = None,
        tokenizer_file: str | os.PathLike[str] | None = None,
        clean_up_tokenization_spaces: bool = False,
        unk_token: Token | None = "<unk>",
        bos_token: Token | None = "<s>",
        eos_token: Token | None = "</s>",
        add_bos_token: bool | None = None,
        add_eos_token: bool | None = None,
        use_default_system_prompt: bool = True,
        legacy: bool | None = None,
        add_prefix_space: bool | None = True,
        tokenizer_object: tokenizers.Tokenizer | None = None,
        **settings: Any,
    ):
        if vocab_file is None and tokenizer_file is None and tokenizer_object is None:
            raise ValueError("there is nothing to make a tokenizer of: give vocab_file or tokenizer_file")
        self.vocab_file = vocab_file
        self.legacy, self.add_prefix_space = legacy is not False, add_prefix_space is not False
        self.clean_up_tokenization_spaces = bool(clean_up_tokenization_spaces)
        self.use_default_system_prompt = bool(use_default_system_prompt)
        around: list[int] | None = None
        if tokenizer_object is not None:
            backend = tokenizer_object
        elif tokenizer_file is not None:
            backend, around = load_tokenizer_json(Path(tokenizer_file))
        else:
            assert vocab_file is not None
            backend = from_sentencepiece(vocab_file, self.legacy, self.add_prefix_space)
        self.backend: Any = Quiet(backend)
        vocab = self.backend.get_vocab(with_added_tokens=True)
        named: dict[str, Token | None] = {"unk_token": unk_token, "bos_token": bos_token, "eos_token": eos_token}
        if tokenizer_file is not None:  # a default that the file has not is not there, rather than added
            usual = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
            absent = [name for name, token in named.items() if token == usual[name] and token not in vocab]
            named |= dict.fromkeys(absent)
            if "bos_token" in absent and around:
                named["bos_token"] = self.backend.id_to_token(around[0])
        added = settings.pop("added_tokens_decoder", None) or {}
        self.file_around = [str(self.backend.id_to_token(index)) for index in around or ()]
        self._add_bos = self._add_eos = False
        self._set_up(named, settings, padding_side="left")
        known = {token.content for token in self.backend.get_added_tokens_decoder().values()}
        for _, token in sorted((int(index), token) for index, token in added.items() if token.content not in known):
            self._add_tokens([token], special=token.special)
        self._add_tokens([*self._named.values(), *self._additional], special=True)
        self._changed()
        # Another beginning than the file's own takes its place
        bos = True if around is None else bool(around) and around[0] != self.eos_token_id
        behind = (around or [])[int(bos) :]
        self._add_bos = self._stated(add_bos_token, bos)
        self._add_eos = self._stated(add_eos_token, self.eos_token_id in behind)
        self.update_post_processor()

    @staticmethod
    def _stated(flag: bool | None, otherwise: bool) -> bool:
        return otherwise if flag is None else bool(flag)

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], **overrides: Any) -> Self:
        """Read a folder with a tokenizer.json, or such a file by any name, with the files beside it; where there is
        none, a sentencepiece model. `overrides` are arguments that come before what these files say."""
        file = Path(path)
        folder = file if file.is_dir() else file.parent
        if file.is_dir():
            file = folder / "tokenizer.json"
            file = file if file.exists() or not (folder / "tokenizer.model").exists() else folder / "tokenizer.model"
        if not file.exists():
            raise FileNotFoundError(f"{file} does not exist: a tokenizer.json is expected there")
        settings = read_settings(folder)
        if settings.pop("tokenizer_class", None) in OF_ANY_MODEL:
            settings = {"padding_side": "right"} | settings
        sentencepiece = folder / "tokenizer.model"
        if file.suffix == ".model" or not looks_like_json(file):
            settings["vocab_file"] = file
        else:
            settings |= {"tokenizer_file": file, "vocab_file": sentencepiece if sentencepiece.exists() else None}
        return cls(**settings | overrides)

    # -- the vocabulary ---------------------------------------------------------------------------------------

    @property
    def backend_tokenizer(self) -> tokenizers.Tokenizer:
        """The library's own object."""
        inner: tokenizers.Tokenizer = self.backend.inner
        return inner

    @property
    def vocab_size(self) -> int:
        return int(self.backend.get_vocab_size(with_added_tokens=False))

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        return dict(sorted(self.backend.get_added_tokens_decoder().items()))

    def get_vocab(self) -> dict[str, int]:
        return dict(self.backend.get_vocab(with_added_tokens=True))

    def _add_tokens(self, tokens: Sequence[Token], special: bool) -> int:
        if special:
            return int(self.backend.add_special_tokens([as_special(token) for token in tokens]))
        # Found as it is written: the library would look for it in the normalized text with a marker before it, and miss
        # it within a word
        plain = [AddedToken(token, normalized=False) if isinstance(token, str) else token for token in tokens]
        return int(self.backend.add_tokens(plain))

    def _changed(self) -> None:
        super()._changed()
        self.__dict__.pop("_plain_backend", None)
        self.update_post_processor()

    def _piece_to_id(self, token: str) -> int | None:
        index = self.backend.token_to_id(token)
        if index is None and self.unk_token is not None and token != self.unk_token:
            return self._piece_to_id(self.unk_token)
        return index

    def _id_to_piece(self, index: int) -> str:
        return str(self.backend.id_to_token(index) or "")

    # -- what is put around a text ----------------------------------------------------------------------------

    @property
    def add_bos_token(self) -> bool:  # a plain attribute in the other class
        return self._add_bos

    @add_bos_token.setter
    def add_bos_token(self, flag: bool) -> None:
        self._add_bos = bool(flag)
        self.update_post_processor()

    @property
    def add_eos_token(self) -> bool:
        return self._add_eos

    @add_eos_token.setter
    def add_eos_token(self, flag: bool) -> None:
        self._add_eos = bool(flag)
        self.update_post_processor()

    @quietly
    def update_post_processor(self) -> None:
        """Make the library put around a text what bos_token, eos_token and the two flags say now; runs by itself when
        one of them changes."""
        bos, eos = self._around()
        tokens = [(self.bos_token, index) for index in bos] + [(self.eos_token, index) for index in eos]
        before = [f"{self.bos_token}:{{}}"] * len(bos)
        behind = [f"{self.eos_token}:{{}}"] * len(eos)
        single = " ".join([*before, "$A:{}", *behind]).replace("{}", "0")
        second = " ".join([*before, "$B:{}", *behind]).replace("{}", "1")
        self.backend.post_processor = processors.TemplateProcessing(
            single=single, pair=f"{single} {second}", special_tokens=list(dict.fromkeys(tokens))
        )

    def create_token_type_ids_from_sequences(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """0 for every token of the first text, 1 for those of the second; without what is around them, as in
        transformers."""
        return [0] * len(token_ids_0) + [1] * len(token_ids_1 or ())

    # -- text to pieces ---------------------------------------------------------------------------------------

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False, **how: Any) -> list[str]:
        """The pieces of a text, or of a pair; special tokens in it recognised."""
        check_text(text)
        if unknown := how.keys() - {"split_special_tokens"}:
            raise TypeError(f"a tokenizer takes no argument {shown(unknown.pop())}")
        if self._stated(how.get("split_special_tokens"), self.split_special_tokens):
            return [self._id_to_piece(index) for index in self._encode_plain(text, first=True)]
        return list(self.backend.encode(text, pair, add_special_tokens=add_special_tokens).tokens)

    def _ids(self, text: str, **how: Any) -> list[int]:
        check_text(text)
        if self._stated(how.get("split_special_tokens"), self.split_special_tokens):
            return self._encode_plain(text, first=True) if text else []
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def _encode_plain(self, text: str, first: bool) -> list[int]:
        ids = self._plain_backend.encode(text if first else DIVIDER + text, add_special_tokens=False).ids
        return list(ids if first else ids[1:])

    @cached_property
    def _plain_backend(self) -> Any:
        """The same model without its added tokens, and one that only divides."""
        contents = json.loads(self.backend.to_str())
        contents |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        plain = Quiet(quietly(tokenizers.Tokenizer.from_str)(json.dumps(contents)))
        plain.add_tokens([AddedToken(DIVIDER, normalized=False)])
        return plain

    def encode_plus(self, text: Any, text_pair: Any = None, **options: Any) -> BatchEncoding:
        item = text if text_pair is None else (text, text_pair)
        tensors = options.pop("return_tensors", None)
        if isinstance(text, list | tuple) and text and isinstance(text[0], int | np.integer):  # ids already
            return super().encode_plus(text, text_pair, return_tensors=tensors, **options)
        batch = self.batch_encode_plus([item], **options)
        if tensors is None and not options.get("return_overflowing_tokens"):
            # but for the length, which transformers gives as a list of one
            one = {key: rows if key == "length" else rows[0] for key, rows in batch.items()}
            return BatchEncoding(one, batch.encodings)
        return batch.convert_to_tensors(tensors)

    def batch_encode_plus(self, batch_text_or_text_pairs: Sequence[Any], **options: Any) -> BatchEncoding:
        """__call__ for a batch of texts, or of pairs (a, b). With return_overflowing_tokens what was taken off a text
        follows it in rows of its own, and overflow_to_sample_mapping says which text each row is of."""
        padding, truncation, max_length = self._strategies(**options)
        texts = list(batch_text_or_text_pairs)
        asked = CallOptions.of(options)
        if isinstance(batch_text_or_text_pairs, str):
            raise ValueError("a batch must be a list of texts, not one text")
        for text in _texts(texts):
            check_text(text)
        if self._stated(asked.split_special_tokens, self.split_special_tokens):
            if asked.return_offsets_mapping or asked.return_overflowing_tokens:
                raise NotImplementedError("with split_special_tokens there are no offsets and no overflowing rows")
            full = {"padding": padding, "truncation": truncation, "max_length": max_length}
            return super().batch_encode_plus(texts, **options | full)
        if not asked.is_split_into_words:
            texts = [tuple(text) if isinstance(text, list) else text for text in texts]
        with self._arranging(truncation, padding, max_length, asked):
            heads = _or_value_error(
                lambda: self.backend.encode_batch(
                    texts, add_special_tokens=asked.add_special_tokens, is_pretokenized=asked.is_split_into_words
                )
            )
        encodings, samples = [], []
        for sample, head in enumerate(heads):
            rows = [head, *head.overflowing] if asked.return_overflowing_tokens else [head]
            encodings += rows
            samples += [sample] * len(rows)
        usual = self.model_input_names
        wanted = {
            "input_ids": ("ids", True),
            "token_type_ids": ("type_ids", self._stated(asked.return_token_type_ids, "token_type_ids" in usual)),
            "attention_mask": ("attention_mask", self._stated(asked.return_attention_mask, "attention_mask" in usual)),
            "special_tokens_mask": ("special_tokens_mask", asked.return_special_tokens_mask),
            "offset_mapping": ("offsets", asked.return_offsets_mapping),
        }
        batch: dict[str, Any] = {
            key: [list(getattr(encoding, name)) for encoding in encodings]
            for key, (name, is_wanted) in wanted.items()
            if is_wanted
        }
        if asked.return_length:
            batch["length"] = [len(encoding.ids) for encoding in encodings]
        if asked.return_overflowing_tokens:
            batch["overflow_to_sample_mapping"] = samples
        return BatchEncoding(batch, encodings).convert_to_tensors(asked.return_tensors)

    @contextmanager
    def _arranging(self, truncation: str, padding: str, length: int | None, asked: CallOptions) -> Iterator[None]:
        """The library set to truncate and pad, and set back."""
        side = self._side_of_padding(asked.padding_side)
        try:
            if truncation != "do_not_truncate" and length is not None:
                _or_value_error(
                    lambda: self.backend.enable_truncation(
                        length, stride=asked.stride, strategy=truncation, direction=self.truncation_side
                    )
                )
            if padding != "do_not_pad":
                self.backend.enable_padding(
                    direction=side,
                    pad_id=self.pad_token_id,
                    pad_token=self.pad_token,
                    pad_type_id=self.pad_token_type_id,
                    length=length if padding == "max_length" else None,
                    pad_to_multiple_of=asked.pad_to_multiple_of,
                )
            yield
        finally:
            self.backend.no_truncation()
            self.backend.no_padding()

    # -- pieces to text ---------------------------------------------------------------------------------------

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        decoder = self.backend.decoder
        return str(quietly(decoder.decode)(list(tokens))) if decoder is not None else " ".join(tokens)

    def _text(self, ids: list[int], spaces_between_special_tokens: bool) -> str:
        return str(self.backend.decode(ids, skip_special_tokens=False))

    # -- files ------------------------------------------------------------------------------------------------

    def _sentencepiece_model(self) -> bytes:
        if self.vocab_file is None or not Path(self.vocab_file).is_file():
            raise ValueError(
                "this tokenizer was not made from a sentencepiece model, so there is none to save: save_pretrained "
                "writes its tokenizer.json"
            )
        return Path(self.vocab_file).read_bytes()

    def _vocabulary_files(self, legacy_format: bool | None) -> dict[str, bytes]:
        has_model = self.vocab_file is not None and Path(self.vocab_file).is_file()
        files = {} if legacy_format else {"tokenizer.json": _older_form(json.loads(self.backend.to_str())).encode()}
        if legacy_format or (legacy_format is None and has_model):
            files["tokenizer.model"] = self._sentencepiece_model()
        return files

    def _class_name(self) -> str:
        # transformers 5 makes any other model anew in the manner of a LlamaTokenizer, and a Llama 3 would not be one
        return (
            super()._class_name() if getattr(self.backend.model, "byte_fallback", False) else "PreTrainedTokenizerFast"
        )

    def _own_settings(self) -> dict[str, Any]:
        return {"add_bos_token": self.add_bos_token, "add_eos_token": self.add_eos_token, "legacy": self.legacy}


def load_tokenizer_json(file: Path) -> tuple[tokenizers.Tokenizer, list[int]]:
    """The tokenizer in a file, and the ids that it puts around an empty text; ValueError that names the file."""
    text = read_json_text(file, "a tokenizer")  # once: it may come through a pipe
    contents = parse_json_object(text, file, "a tokenizer")
    if not isinstance(contents.get("model"), dict):
        raise ValueError(f"{file} is a malformed tokenizer, without a model: get it again")
    try:
        try:
            backend = quietly(tokenizers.Tokenizer.from_str)(text)
        except Exception:  # tokenizers before 0.20 do not know the newer form of merges
            backend = quietly(tokenizers.Tokenizer.from_str)(_older_form(contents))
        around = list(quietly(backend.encode)("", add_special_tokens=True).ids)
    except Exception as error:
        raise ValueError(f"{file} is not a sound tokenizer.json ({error}): get it again") from None
    backend.no_truncation()
    backend.no_padding()
    return backend, around


def _older_form(contents: dict[str, Any]) -> str:
    """A tokenizer.json as all versions of the library read it: a merge as a text "a b" and not as a pair, unless a
    piece holds a space."""
    merges = contents["model"].get("merges")
    if merges and all(isinstance(merge, list) and not any(" " in str(piece) for piece in merge) for merge in merges):
        contents = contents | {"model": contents["model"] | {"merges": [" ".join(merge) for merge in merges]}}
    return json.dumps(contents, ensure_ascii=False, indent=2)


def looks_like_json(file: Path) -> bool:
    """Whether a file begins as a JSON text does, or is too broken to tell; a sentencepiece model begins otherwise."""
    if not os.path.isfile(file):  # reading it says what it is
        return True
    with open(file, "rb") as opened:
        return opened.read(1) != b"\n"


def _texts(items: Any) -> Iterator[str]:
    if isinstance(items, str):
        yield items
    elif isinstance(items, list | tuple):
        for item in items:
            yield from _texts(item)
    else:
        raise ValueError(
            f"a text must be a str, or with is_split_into_words a list of words, not {shown(str(items)[:60])}"
        )


def _or_value_error(call: Callable[[], Result]) -> Result:
    """What a call of the library gives; a TypeError, which is about the texts, as a ValueError."""
    try:
        return call()
    except TypeError:
        raise ValueError("a text must be a str, or with is_split_into_words a list of words") from None
