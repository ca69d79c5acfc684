"""From texts to the arrays a model takes: special tokens around them, truncation, padding, batches."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import Any

import numpy as np

from minillama.messages import listed, shown
from minillama.tokenizer.batch_encoding import BatchEncoding
from minillama.tokenizer.settings import SIDES

log = logging.getLogger("minillama")
NO_LIMIT = int(1e30)  # model_max_length where nobody has said one; written to files as this number
_PADDINGS = {True: "longest", False: "do_not_pad", None: "do_not_pad"}
_TRUNCATIONS = {True: "longest_first", False: "do_not_truncate", None: "do_not_truncate"}
TRUNCATIONS = ("longest_first", "only_first", "only_second", "do_not_truncate")
PADDINGS = ("longest", "max_length", "do_not_pad")


@dataclass(frozen=True)
class CallOptions:
    """What the calls take beside their texts; Batches.__call__ tells what for."""

    add_special_tokens: bool = True
    padding: bool | str = False
    truncation: bool | str | None = None
    max_length: int | None = None
    stride: int = 0
    is_split_into_words: bool = False
    pad_to_multiple_of: int | None = None
    padding_side: str | None = None
    return_tensors: str | None = None
    return_token_type_ids: bool | None = None
    return_attention_mask: bool | None = None
    return_overflowing_tokens: bool = False
    return_special_tokens_mask: bool = False
    return_offsets_mapping: bool = False
    return_length: bool = False
    split_special_tokens: bool | None = None
    verbose: bool = True  # changes nothing

    @classmethod
    def of(cls, options: dict[str, Any]) -> CallOptions:
        """The options by name; TypeError for a name that is none."""
        if unknown := options.keys() - OPTIONS:
            raise TypeError(f"a tokenizer takes no argument {shown(unknown.pop())}")
        return cls(**options)

    def of_a_row(self) -> dict[str, Any]:
        """Those that prepare_for_model takes."""
        of_texts = ("is_split_into_words", "return_offsets_mapping", "split_special_tokens", "verbose")
        return {name: value for name, value in vars(self).items() if name not in of_texts}


OPTIONS = {field.name for field in fields(CallOptions)}


class Batches:
    """The calls of every tokenizer: __call__, encode, encode_plus, prepare_for_model, pad and what they stand on."""

    padding_side: str
    truncation_side: str
    model_max_length: int
    model_input_names: list[str]
    split_special_tokens: bool
    add_bos_token: bool
    add_eos_token: bool
    pad_token_type_id = 0
    is_fast = False

    @abstractmethod
    def _ids(self, text: str, **how: Any) -> list[int]:
        """The ids of a text, special tokens in it recognised, nothing put around it."""

    # -- what is put around a text ----------------------------------------------------------------------------

    def build_inputs_with_special_tokens(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """bos a eos, or bos a eos bos b eos; each of bos and eos only where add_bos_token, add_eos_token say so."""
        bos, eos = self._around()
        return [*bos, *token_ids_0, *eos, *([] if token_ids_1 is None else [*bos, *token_ids_1, *eos])]

    def get_special_tokens_mask(
        self,
        token_ids_0: Sequence[int],
        token_ids_1: Sequence[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 for every token that build_inputs_with_special_tokens puts around the texts, 0 for theirs; or, if they are
        there already, 1 for every special token."""
        if already_has_special_tokens:
            if token_ids_1 is not None:
                raise ValueError(
                    "already_has_special_tokens=True takes one list, of both texts and what is around them: leave "
                    "token_ids_1 out"
                )
            special = set(self.all_special_ids)
            return [int(index in special) for index in token_ids_0]
        bos, eos = ([1] * len(ids) for ids in self._around())
        second = [] if token_ids_1 is None else [*bos, *[0] * len(token_ids_1), *eos]
        return [*bos, *[0] * len(token_ids_0), *eos, *second]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """0 for every token of the first text and what is around it, 1 for those of the second."""
        around = sum(map(len, self._around()))
        return [0] * (len(token_ids_0) + around) + [1] * (0 if token_ids_1 is None else len(token_ids_1) + around)

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many tokens are put around a text, or a pair of them."""
        return len(self.build_inputs_with_special_tokens([], [] if pair else None))

    def _around(self) -> tuple[list[int], list[int]]:
        bos, eos = self.bos_token_id, self.eos_token_id
        return [bos] if self.add_bos_token and bos is not None else [], (
            [eos] if self.add_eos_token and eos is not None else []
        )

    @property
    def all_special_ids(self) -> list[int]:
        raise NotImplementedError

    bos_token_id: Any
    eos_token_id: Any
    pad_token_id: Any

    # -- calls ------------------------------------------------------------------------------------------------

    def __call__(
        self,
        text: Any = None,
        text_pair: Any = None,
        text_target: Any = None,
        text_pair_target: Any = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        **how: Any,
    ) -> BatchEncoding:
        """Encode a text, a pair of texts, or a batch of either.

        text: a str, a list of them (a batch), or with is_split_into_words a list of words, or a batch of those;
        text_pair the same, the second text of each. text_target: texts whose ids become the entry "labels". padding:
        True or "longest" pads to the longest of the batch, "max_length" to max_length; padding_side: "left" or "right",
        for this call. truncation: True or "longest_first" takes tokens off the longer text of a pair, "only_first",
        "only_second" off that one; max_length counts what is put around the texts, and alone truncates. stride: how
        many tokens overflowing ones share with what was kept. return_tensors: "np" for arrays. The others ask for
        entries. ValueError for what does not go
        together.
        """
        options = {name: value for name, value in locals().items() if name in OPTIONS} | how
        if text is None and text_target is None:
            raise ValueError("there is nothing to encode: give text or text_target")
        encoding = None if text is None else self._call(text, text_pair, options)
        if text_target is None:
            assert encoding is not None
            return encoding
        target = self._call(text_target, text_pair_target, options)
        if encoding is None:
            return target
        encoding["labels"] = target["input_ids"]
        return encoding

    def _call(self, text: Any, pair: Any, options: dict[str, Any]) -> BatchEncoding:
        first = text[0] if isinstance(text, list | tuple) and len(text) else None
        batched = isinstance(first if options["is_split_into_words"] else text, list | tuple)
        if not batched:
            return self.encode_plus(text, pair, **options)
        if pair is not None and (isinstance(pair, str) or len(pair) != len(text)):
            raise ValueError(f"text is a batch of {len(text)}, and text_pair must be a list of as many")
        return self.batch_encode_plus(text if pair is None else list(zip(text, pair, strict=True)), **options)

    def encode(self, text: Any, text_pair: Any = None, add_special_tokens: bool = True, **options: Any) -> list[int]:
        """The ids of a text, or of a pair; with the options of __call__."""
        if type(text) is str and text_pair is None and not options:  # the usual case, and the fast way
            ids = self._ids(text)
            return self.build_inputs_with_special_tokens(ids) if add_special_tokens else ids
        ids = self.encode_plus(text, text_pair, add_special_tokens=add_special_tokens, **options)["input_ids"]
        return ids

    def encode_plus(self, text: Any, text_pair: Any = None, **options: Any) -> BatchEncoding:
        """__call__ for one text or pair."""
        asked = self._without_offsets(options)
        first = self._ids_of(text, asked)
        second = None if text_pair is None else self._ids_of(text_pair, asked)
        return self.prepare_for_model(
            first, second, **asked.of_a_row(), prepend_batch_axis=asked.return_tensors is not None
        )

    def batch_encode_plus(self, batch_text_or_text_pairs: Sequence[Any], **options: Any) -> BatchEncoding:
        """__call__ for a batch of texts, or of pairs (a, b)."""
        options.pop("prepend_batch_axis", None)  # changes nothing, as in transformers
        asked = self._without_offsets(options)
        if isinstance(batch_text_or_text_pairs, str):
            raise ValueError("a batch must be a list of texts, not one text")
        padding, truncation, max_length = self._strategies(**options)
        # Rows are truncated one by one and padded together
        alone = replace(asked, padding=False, truncation=truncation, max_length=max_length, pad_to_multiple_of=None)
        of_a_row = replace(alone, return_attention_mask=False, return_tensors=None).of_a_row()
        rows: list[BatchEncoding] = []
        for item in batch_text_or_text_pairs:
            paired = isinstance(item, list | tuple) and len(item) == 2 and not isinstance(item[0], int | np.integer)
            paired = paired and not (asked.is_split_into_words and isinstance(item[0], str))
            first, second = item if paired else (item, None)
            ids = self._ids_of(first, asked)
            pair_ids = None if second is None else self._ids_of(second, asked)
            rows.append(self.prepare_for_model(ids, pair_ids, **of_a_row))
        batch = {name: [row[name] for row in rows] for name in (rows[0] if rows else {"input_ids": []})}
        return self.pad(
            batch,
            padding,
            max_length,
            asked.pad_to_multiple_of,
            asked.padding_side,
            asked.return_attention_mask,
            asked.return_tensors,
        )

    def _without_offsets(self, options: dict[str, Any]) -> CallOptions:
        if options.get("return_offsets_mapping"):
            raise NotImplementedError("only LlamaTokenizerFast knows the offsets of its tokens: use it")
        return CallOptions.of(options)

    def _ids_of(self, text: Any, asked: CallOptions) -> list[int]:
        """Ids of a text, of words, of pieces, or ids themselves."""
        split = asked.split_special_tokens
        how = {} if split is None else {"split_special_tokens": split}
        if isinstance(text, str):
            return self._ids(text, **how)
        if isinstance(text, list | tuple) and all(isinstance(item, str) for item in text):
            if asked.is_split_into_words:
                return list(chain.from_iterable(self._ids(word, **how) for word in text))
            return list(self.convert_tokens_to_ids(list(text)))
        if isinstance(text, list | tuple) and all(isinstance(item, int | np.integer) for item in text):
            return [int(index) for index in text]
        raise ValueError(f"a text must be a str, a list of pieces or a list of ids, not {shown(str(text)[:100])}")

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        raise NotImplementedError

    # -- arranging ids ----------------------------------------------------------------------------------------

    def prepare_for_model(
        self,
        ids: Sequence[int],
        pair_ids: Sequence[int] | None = None,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_length: bool = False,
        prepend_batch_axis: bool = False,
    ) -> BatchEncoding:
        """One row from the ids of a text or a pair: truncated, special tokens around it, padded; see __call__."""
        padding, truncation, max_length = self._strategies(padding, truncation, max_length, pad_to_multiple_of)
        if return_token_type_ids and not add_special_tokens:
            raise ValueError("return_token_type_ids needs add_special_tokens=True: leave one of them out")
        first, second = list(ids), None if pair_ids is None else list(pair_ids)
        if return_overflowing_tokens and truncation == "longest_first" and second is not None:
            raise ValueError("the overflowing tokens of a pair need truncation='only_first' or 'only_second'")
        total = len(first) + len(second or ())
        if add_special_tokens:
            total += self.num_special_tokens_to_add(second is not None)
        overflowing: list[int] = []
        if truncation != "do_not_truncate" and max_length and total > max_length:
            first, second, overflowing = self.truncate_sequences(first, second, total - max_length, truncation, stride)
        row: dict[str, Any] = {}
        if return_overflowing_tokens:
            row |= {"overflowing_tokens": overflowing, "num_truncated_tokens": total - (max_length or 0)}
        row["input_ids"] = (
            self.build_inputs_with_special_tokens(first, second) if add_special_tokens else first + (second or [])
        )
        if return_token_type_ids or (return_token_type_ids is None and "token_type_ids" in self.model_input_names):
            types = Batches.create_token_type_ids_from_sequences(self, first, second)
            row["token_type_ids"] = types if add_special_tokens else [0] * len(row["input_ids"])
        if return_special_tokens_mask:
            mask = self.get_special_tokens_mask(first, second)
            row["special_tokens_mask"] = mask if add_special_tokens else [0] * len(row["input_ids"])
        if max_length is None and len(row["input_ids"]) > self.model_max_length:
            log.warning(
                "the text has %d tokens and the model takes %d: truncate it",
                len(row["input_ids"]),
                self.model_max_length,
            )
        encoding = self._padded(row, max_length, padding, pad_to_multiple_of, padding_side, return_attention_mask)
        if return_length:
            encoding["length"] = len(encoding["input_ids"])
        return BatchEncoding(encoding).convert_to_tensors(return_tensors, prepend_batch_axis)

    def truncate_sequences(
        self,
        ids: list[int],
        pair_ids: list[int] | None = None,
        num_tokens_to_remove: int = 0,
        truncation_strategy: str = "longest_first",
        stride: int = 0,
    ) -> tuple[list[int], list[int] | None, list[int]]:
        """Take tokens off the truncation_side of one text or the other: both, and those taken off with `stride` of
        those beside them. Off a pair "longest_first" takes one at a time from the longer, the second where they are
        equal, and tells none. Texts that are too short for that stay as they are, with a warning."""
        if num_tokens_to_remove <= 0 or truncation_strategy == "do_not_truncate":
            return ids, pair_ids, []
        left = choice("truncation_side", self.truncation_side, SIDES) == "left"
        if truncation_strategy == "longest_first" and pair_ids is not None:
            a, b = len(ids), len(pair_ids)
            for _ in range(num_tokens_to_remove):
                if a > b:
                    a -= 1
                else:
                    b = max(b - 1, 0)
            return _side(ids, a, left), _side(pair_ids, b, left), []
        second = truncation_strategy == "only_second"
        if second and pair_ids is None:
            return ids, pair_ids, []
        text = pair_ids if second and pair_ids is not None else ids
        if len(text) <= num_tokens_to_remove:
            log.warning(
                "%d tokens are to be removed and the %s text has %d: it stays as it is; try another truncation",
                num_tokens_to_remove,
                "second" if second else "first",
                len(text),
            )
            return ids, pair_ids, []
        kept = _side(text, len(text) - num_tokens_to_remove, left)
        removed = _side(text, min(len(text), stride + num_tokens_to_remove), not left)
        return (ids, kept, removed) if second else (kept, pair_ids, removed)

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Pad rows that are encoded already: a dictionary of lists, or a list of dictionaries. Arrays give arrays."""
        if isinstance(encoded_inputs, list | tuple) and encoded_inputs and isinstance(encoded_inputs[0], Mapping):
            encoded_inputs = {key: [row[key] for row in encoded_inputs] for key in encoded_inputs[0]}
        if "input_ids" not in encoded_inputs:
            raise ValueError(f"pad needs input_ids, and was given {listed(encoded_inputs) or 'nothing'}")
        several = [value for value in encoded_inputs.values() if isinstance(value, list | tuple | np.ndarray)]
        given = (item for value in several for item in (value, *value))
        if any(isinstance(item, np.ndarray) for item in given):
            return_tensors = return_tensors or "np"
        # A single row may have numbers beside its lists, such as its length
        one = {k: v for k, v in encoded_inputs.items() if not isinstance(v, list | tuple | np.ndarray)}
        encoded_inputs = {k: v for k, v in encoded_inputs.items() if k not in one}
        entries = {k: v.tolist() if isinstance(v, np.ndarray) else list(v) for k, v in encoded_inputs.items()}
        entries = {k: [x.tolist() if isinstance(x, np.ndarray) else x for x in v] for k, v in entries.items()}
        padding, _, max_length = self._strategies(padding, None, max_length, pad_to_multiple_of, only_padding=True)
        rows = entries["input_ids"]
        if not rows or not isinstance(rows[0], list | tuple):
            row = self._padded(entries, max_length, padding, pad_to_multiple_of, padding_side, return_attention_mask)
            return BatchEncoding(row | one).convert_to_tensors(return_tensors)
        if padding == "longest":
            padding, max_length = "max_length", max(map(len, rows))
        padded = [
            self._padded(
                {key: values[i] for key, values in entries.items()},
                max_length,
                padding,
                pad_to_multiple_of,
                padding_side,
                return_attention_mask,
            )
            for i in range(len(rows))
        ]
        batch: dict[str, Any] = {key: [row[key] for row in padded] for key in padded[0]}
        return BatchEncoding(batch).convert_to_tensors(return_tensors)

    def _padded(
        self,
        row: dict[str, Any],
        length: int | None,
        padding: str,
        multiple: int | None,
        side: str | None,
        mask: bool | None,
    ) -> dict[str, Any]:
        """One row, padded to `length` where that is more than it has."""
        ids = row["input_ids"]
        if mask is None:
            mask = "attention_mask" in self.model_input_names
        if mask and "attention_mask" not in row:
            row["attention_mask"] = [1] * len(ids)
        if padding == "longest":
            length = len(ids)
        if length is not None and multiple is not None:
            length = -(-length // multiple) * multiple
        missing = (length or 0) - len(ids)
        left = self._side_of_padding(side) == "left"
        if padding == "do_not_pad" or missing <= 0:
            return row
        fillers = {
            "input_ids": self.pad_token_id,
            "attention_mask": 0,
            "token_type_ids": self.pad_token_type_id,
            "special_tokens_mask": 1,
        }
        for key, filler in fillers.items():
            if key in row and (key != "attention_mask" or mask):
                row[key] = [filler] * missing + row[key] if left else row[key] + [filler] * missing
        return row

    def _side_of_padding(self, asked: str | None) -> str:
        return str(choice("padding_side", self.padding_side if asked is None else asked, SIDES))

    def _strategies(
        self,
        padding: Any = False,
        truncation: Any = None,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        only_padding: bool = False,
        **_: Any,
    ) -> tuple[str, str, int | None]:
        """Padding and truncation by their full names, and the length they go by."""
        for name, length, least in (("max_length", max_length, 0), ("pad_to_multiple_of", pad_to_multiple_of, 1)):
            if length is not None and (not isinstance(length, int | np.integer) or length < least):
                raise ValueError(f"{name} must be a whole number of at least {least}, not {shown(length)}")
        if max_length is not None and padding is False and truncation is None and not only_padding:
            truncation = "longest_first"
        padding = getattr(padding, "value", padding)
        truncation = getattr(truncation, "value", truncation)
        padding = choice("padding", _PADDINGS.get(padding, padding), PADDINGS)
        truncation = choice("truncation", _TRUNCATIONS.get(truncation, truncation), TRUNCATIONS)
        if max_length is None and self.model_max_length < NO_LIMIT:
            if padding == "max_length" or truncation != "do_not_truncate":
                max_length = self.model_max_length
        elif max_length is None:
            if padding == "max_length" or truncation != "do_not_truncate":
                log.warning("no max_length is given and the model has none: nothing is padded or truncated to it")
            padding = "do_not_pad" if padding == "max_length" else padding
            truncation = "do_not_truncate"
        if padding != "do_not_pad" and self.pad_token_id is None:
            raise ValueError("there is no padding token: set one, such as tokenizer.pad_token = tokenizer.eos_token")
        both = padding != "do_not_pad" and truncation != "do_not_truncate"
        if both and pad_to_multiple_of and max_length and max_length % pad_to_multiple_of:
            raise ValueError(f"max_length {max_length} is not a multiple of pad_to_multiple_of {pad_to_multiple_of}")
        return padding, truncation, max_length


def _side(ids: list[int], count: int, last: bool) -> list[int]:
    """The first `count` of ids, or the last."""
    return ids[len(ids) - count :] if last else ids[:count]


def choice(name: str, value: Any, choices: Iterable[str]) -> Any:
    """The value, if it is one of the choices; else ValueError."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {listed(choices)}, not {shown(value)}")
    return value
