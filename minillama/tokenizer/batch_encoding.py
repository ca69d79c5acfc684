"""What a tokenizer returns."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minillama.messages import listed, shown


class BatchEncoding(UserDict[str, Any]):
    """What a tokenizer returns: a dictionary whose entries are attributes too.

    encodings: those of the `tokenizers` library, from the fast class.
    """

    def __init__(self, data: Mapping[str, Any] | None = None, encodings: Sequence[Any] | None = None):
        super().__init__(data or {})
        self.encodings = encodings

    @property
    def is_fast(self) -> bool:
        return self.encodings is not None

    def __getattr__(self, name: str) -> Any:
        data = self.__dict__.get("data", {})
        if name in data:
            return data[name]
        raise AttributeError(f"the encoding has no {shown(name)}, it has {listed(data)}")

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self.data[key]
        return self._encoding(key)

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The pieces of one text, special tokens among them."""
        return list(self._encoding(batch_index).tokens)

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token, which word of the text it belongs to; None for special tokens."""
        return list(self._encoding(batch_index).word_ids)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """For each token, 0 if it is of the first text, 1 if of the second, None if of neither."""
        return list(self._encoding(batch_index).sequence_ids)

    def char_to_token(self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0) -> Any:
        """Which token holds a character of a text; None for none."""
        batch, char = (0, batch_or_char_index) if char_index is None else (batch_or_char_index, char_index)
        return self._encoding(batch).char_to_token(char, sequence_index)

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> Any:
        """Which characters (start, end) a token stands for; None for special tokens."""
        batch, token = (0, batch_or_token_index) if token_index is None else (batch_or_token_index, token_index)
        return self._encoding(batch).token_to_chars(token)

    def _encoding(self, index: int) -> Any:
        if self.encodings is None:
            raise ValueError("only the encodings of LlamaTokenizerFast know this; LlamaTokenizer's have ids only")
        return self.encodings[index]

    def convert_to_tensors(self, tensor_type: str | None = None, prepend_batch_axis: bool = False) -> BatchEncoding:
        """Make arrays of all entries; tensor_type must be "np" or None, which changes nothing."""
        if tensor_type is None:
            return self
        if str(getattr(tensor_type, "value", tensor_type)) not in ("np", "numpy"):
            raise ValueError(f"return_tensors must be 'np', not {shown(tensor_type)}: minillama has NumPy arrays only")
        for key, value in self.data.items():
            try:
                array = np.array([value] if prepend_batch_axis else value)
                array = array if array.size else array.astype(np.int64)
                ragged = array.dtype == object
            except ValueError:
                ragged = True
            if ragged:
                raise ValueError(
                    f"the rows of {key} differ in length and make no array: give padding=True, and truncation=True "
                    "where they are too long"
                )
            self.data[key] = array
        return self
