"""GenerationConfig: how to generate, with the fields of the Hugging Face class, checked."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minillama.arrays import plain
from minillama.config import LlamaConfig, read_json_object
from minillama.files import write_files
from minillama.messages import shown

FILE = "generation_config.json"

# What a field is where nobody sets it
DEFAULTS: dict[str, Any] = {
    "max_length": 20,
    "max_new_tokens": None,
    "min_length": 0,
    "min_new_tokens": None,
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "min_p": None,
    "typical_p": 1.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "length_penalty": 1.0,
    "early_stopping": False,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "stop_strings": None,
    "use_cache": True,
    "return_dict_in_generate": False,
    "output_scores": False,
    "output_logits": False,
    "seed": 0,
}


class GenerationConfig:
    """How `generate` continues a text, with the names of transformers' ``GenerationConfig``.

    A field that is None or not given reads as its default, and gives way to what the model's own generation config
    says. Lengths are counts of tokens.

    max_length: prompt and continuation together, padding included; where nobody sets it, 20 new tokens, or as many as
    the context has room for. min_length: no end-of-text before. max_new_tokens, min_new_tokens: the same of the
    continuation alone; where they are set, max_length and min_length do not count.
    do_sample: draw from the probabilities instead of taking the likeliest; seed: what to start the draws with (each
    row has its own). temperature, top_k, top_p, min_p, typical_p: what to draw from, applied in this order.
    repetition_penalty, no_repeat_ngram_size, bad_words_ids: see minillama.generation.processors.
    num_beams: how many continuations are followed at once. length_penalty: a finished one is scored by its log
    probability over its length to this power. early_stopping: True ends with num_beams finished ones, False when none
    better is likely, "never" when none better is possible. num_return_sequences: continuations of each prompt.
    pad_token_id, bos_token_id, eos_token_id (one or a list): special ids. stop_strings: a text, or several, to end at.
    use_cache: taken, and without effect: the cache changes no number. return_dict_in_generate: return a
    GenerateOutput, with what output_scores and output_logits ask for.

    Unknown keys are kept and written back. Raises ValueError that names the field where a value makes no sense.
    """

    def __init__(self, **kwargs: Any):
        for name, value in kwargs.items():
            setattr(self, name, value)
        self.validate()

    def __getattr__(self, name: str) -> Any:
        if name in DEFAULTS:
            return DEFAULTS[name]
        raise AttributeError(f"GenerationConfig has no field {shown(name)}")

    def __setattr__(self, name: str, value: Any) -> None:
        value = plain(value)
        if value is None:
            self.__dict__.pop(name, None)
        else:
            super().__setattr__(name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GenerationConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # its fields may be set

    def __repr__(self) -> str:
        return f"GenerationConfig({', '.join(f'{key}={value!r}' for key, value in self.to_dict().items())})"

    def validate(self) -> None:
        """Raise ValueError, naming the field, where a value makes no sense."""
        for name, value in self.to_dict().items():
            if name in DEFAULTS:
                check_field(name, value)

    def update(self, **kwargs: Any) -> dict[str, Any]:
        """Set the fields it has, and return the rest. ValueError, and nothing changed, if a value makes no sense."""
        unused = {name: value for name, value in kwargs.items() if name not in DEFAULTS | self.__dict__}
        used = {name: value for name, value in kwargs.items() if name not in unused}
        GenerationConfig(**used)
        for name, value in used.items():
            setattr(self, name, value)
        return unused

    # -- files ------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str]) -> GenerationConfig:
        """Read generation_config.json, given as the file or as the folder it is in. Errors name the file."""
        file = Path(path)
        if file.is_dir():
            file = file / FILE
        values = read_json_object(file, "generation settings")
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None

    @classmethod
    def from_model_config(cls, config: LlamaConfig) -> GenerationConfig:
        """What a model's config says of generation: the special ids, and in old checkpoints more."""
        return cls(**{name: value for name, value in config.to_dict().items() if name in DEFAULTS})

    def to_dict(self) -> dict[str, Any]:
        """Every field that is set and every unknown key, as written to generation_config.json."""
        return dict(self.__dict__)

    def to_json_string(self) -> str:
        """The text of generation_config.json."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write generation_config.json into `directory` (made if absent), whole or not at all."""
        write_files({Path(directory) / FILE: self.to_json_string().encode()})


def check_field(name: str, value: Any) -> None:
    """Raise ValueError if a field of GenerationConfig cannot have this value."""
    sound, wanted = _CHECKS[name]
    if not sound(plain(value)):
        raise ValueError(f"{name} must be {wanted}, not {shown(value)}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_ids(value: Any, least: int = 0) -> bool:
    return isinstance(value, list) and len(value) >= least and all(_is_whole(index) and index >= 0 for index in value)


_Check = tuple[Callable[[Any], bool], str]


def _whole(least: int) -> _Check:
    return lambda value: _is_whole(value) and value >= least, f"a whole number of at least {least}"


def _number(sound: Callable[[float], bool], wanted: str) -> _Check:
    def check(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and sound(value)

    return check, f"a number {wanted}"


_FLAG: _Check = (lambda value: isinstance(value, bool), "true or false")
_CHECKS: dict[str, _Check] = {
    "max_length": _whole(1),
    "max_new_tokens": _whole(1),
    "min_length": _whole(0),
    "min_new_tokens": _whole(0),
    "do_sample": _FLAG,
    "num_beams": _whole(1),
    "num_return_sequences": _whole(1),
    "temperature": _number(lambda value: 0 <= value < math.inf, "of 0 or above"),
    "top_k": _whole(0),
    "top_p": _number(lambda value: 0 <= value <= 1, "between 0 and 1"),
    "min_p": _number(lambda value: 0 <= value <= 1, "between 0 and 1"),
    "typical_p": _number(lambda value: 0 < value <= 1, "above 0 and at most 1"),
    "repetition_penalty": _number(lambda value: 0 < value < math.inf, "above 0"),
    "no_repeat_ngram_size": _whole(0),
    "bad_words_ids": (
        lambda value: isinstance(value, list) and len(value) > 0 and all(_is_ids(word, 1) for word in value),
        "a list of words, each a list of one or more ids",
    ),
    "length_penalty": _number(lambda value: -100 <= value <= 100, "between -100 and 100"),
    "early_stopping": (lambda value: isinstance(value, bool) or value == "never", 'true, false or "never"'),
    "pad_token_id": (_is_whole, "a whole number"),
    "bos_token_id": (_is_whole, "a whole number"),
    "eos_token_id": (lambda value: _is_whole(value) or _is_ids(value, 1), "an id or a list of one or more"),
    "stop_strings": (
        lambda value: (
            all(isinstance(text, str) and text for text in ([value] if isinstance(value, str) else value))
            if isinstance(value, str | list | tuple)
            else False
        ),
        "a text or a list of texts, none of them empty",
    ),
    "use_cache": _FLAG,
    "return_dict_in_generate": _FLAG,
    "output_scores": _FLAG,
    "output_logits": _FLAG,
    "seed": _whole(0),
}
