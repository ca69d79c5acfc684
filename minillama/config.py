"""LlamaConfig: the sizes and settings of a LLaMA, with the fields of the Hugging Face class, checked."""

from __future__ import annotations

import copy
import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from minillama.arrays import plain
from minillama.files import read_bytes, write_files
from minillama.messages import shown

ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn", "longrope", "proportional")

# What each scaling needs beside its type; "factor" of yarn and longrope may come from the context lengths.
_ROPE_REQUIRED = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
}
_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "pretraining_tp",
)


# Fields of every Hugging Face configuration, with what they are where nobody sets them; written only if they differ
_OPTIONAL: dict[str, Any] = {
    "id2label": {0: "LABEL_0", 1: "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "problem_type": None,
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
    "torch_dtype": None,
}
_FLAGS = {  # some published configs say null, which means these
    "use_cache": True,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "output_attentions": False,
    "output_hidden_states": False,
    "return_dict": True,
}


class LlamaConfig:
    """Settings of a LLaMA model, named as in transformers' ``LlamaConfig``.

    Differences from the Hugging Face class: inconsistent values raise ``ValueError`` when the config is made, naming
    the field; ``rope_parameters`` (the newer spelling, theta and scaling in one) is read into ``rope_theta`` and
    ``rope_scaling``; ``dtype`` is read as ``torch_dtype``. Unknown keys are kept and written back. Fields may be set
    later, in either spelling; ``validate()`` checks them again, and so does every model that is made.

    Lengths and sizes are counts; ``rms_norm_eps`` and ``rope_theta`` are plain numbers > 0.
    """

    model_type = "llama"
    id2label: dict[int, str]
    label2id: dict[str, int]
    problem_type: str | None
    torch_dtype: str | None
    output_attentions: bool
    output_hidden_states: bool
    return_dict: bool

    def __init__(
        self,
        /,  # a config.json may have a key "self"
        vocab_size: int = 32000,
        hidden_size: int = 4096,
        intermediate_size: int = 11008,
        num_hidden_layers: int = 32,
        num_attention_heads: int = 32,
        num_key_value_heads: int | None = None,
        hidden_act: Any = "silu",
        max_position_embeddings: int = 2048,
        initializer_range: float = 0.02,
        rms_norm_eps: float = 1e-6,
        use_cache: bool = True,
        pad_token_id: int | None = None,
        bos_token_id: int | None = 1,
        eos_token_id: int | list[int] | None = 2,
        pretraining_tp: int = 1,
        tie_word_embeddings: bool = False,
        rope_theta: float = 10000.0,
        rope_scaling: dict[str, Any] | None = None,
        attention_bias: bool = False,
        attention_dropout: float = 0.0,
        mlp_bias: bool = False,
        head_dim: int | None = None,
        **kwargs: Any,
    ):
        hidden_size, num_attention_heads = plain(hidden_size), plain(num_attention_heads)
        kwargs |= {"rope_theta": rope_theta, "rope_scaling": rope_scaling}  # which rope_parameters may say otherwise
        kwargs = _in_one_spelling(plain(_copied(kwargs)))
        kwargs.pop("model_type", None)

        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_attention_heads if num_key_value_heads is None else num_key_value_heads
        self.hidden_act = hidden_act
        self.max_position_embeddings = max_position_embeddings
        self.initializer_range = initializer_range
        self.rms_norm_eps = rms_norm_eps
        self.use_cache = use_cache
        self.pad_token_id = pad_token_id
        self.bos_token_id = bos_token_id
        self.eos_token_id = eos_token_id
        self.pretraining_tp = pretraining_tp
        self.tie_word_embeddings = tie_word_embeddings
        self.rope_theta: float = kwargs.pop("rope_theta")
        self.rope_scaling: dict[str, Any] | None = kwargs.pop("rope_scaling")
        self.attention_bias = attention_bias
        self.attention_dropout = attention_dropout
        self.mlp_bias = mlp_bias
        if head_dim is None and _is_int(hidden_size) and _is_int(num_attention_heads) and num_attention_heads > 0:
            if hidden_size % num_attention_heads:
                raise ValueError(
                    f"hidden_size {hidden_size} is not a multiple of num_attention_heads {num_attention_heads}: "
                    "correct one of them, or set head_dim"
                )
            head_dim = hidden_size // num_attention_heads
        self.head_dim: int = head_dim  # type: ignore[assignment]  # validate() refuses None
        self.id2label = _OPTIONAL["id2label"]
        self._take_labels(kwargs)
        for name in _OPTIONAL.keys() - {"id2label", "label2id"}:
            setattr(self, name, kwargs.pop(name, _OPTIONAL[name]))
        self.extra = kwargs  # keys that mean nothing here; apart, because they may have the names of methods
        self.validate()

    def __getattr__(self, name: str) -> Any:
        extra = self.__dict__.get("extra", {})
        if name in extra:
            return extra[name]
        raise AttributeError(f"LlamaConfig has no field {shown(name)}")

    def __setattr__(self, name: str, value: Any) -> None:
        value = plain(value)
        extra = self.__dict__.get("extra", {})
        if name in extra:
            extra[name] = value
            return
        if value is None:
            value = {} if name == "rope_parameters" else _FLAGS.get(name)
        if name == "id2label":
            value = _by_number(value)
            self.label2id = {label: number for number, label in value.items()}
        for field, meant in _in_one_spelling({name: value}).items():
            super().__setattr__(field, meant)

    def __delattr__(self, name: str) -> None:
        if name in self.extra:
            del self.extra[name]
        elif name in self.field_names() | {"extra"}:
            raise AttributeError(
                f"{name} is a field of every LlamaConfig and cannot be deleted: set it to another value"
            )
        else:
            super().__delattr__(name)

    def __copy__(self) -> LlamaConfig:
        return copy.deepcopy(self)  # no two configs share what can be changed

    @property
    def num_labels(self) -> int:
        """How many classes, or numbers, a classifier has; setting another number names them LABEL_0, LABEL_1, ...
        Setting id2label gives them other names, and label2id those numbers."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, number: int) -> None:
        if not _is_int(number) or number < 1:
            raise ValueError(f"num_labels must be a whole number of at least 1, not {shown(number)}")
        if number != self.num_labels:
            self.id2label = {i: f"LABEL_{i}" for i in range(number)}

    def _take_labels(self, values: dict[str, Any]) -> None:
        """Set what `values` says of labels, and take it out; None says nothing. Names come before their number."""
        for name in ("num_labels", "id2label", "label2id"):
            if (value := values.pop(name, None)) is not None:
                setattr(self, name, value)

    @property
    def dtype(self) -> str | None:
        """The newer name of torch_dtype."""
        return self.torch_dtype

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LlamaConfig) and self.to_dict() == other.to_dict()

    def __repr__(self) -> str:
        return f"LlamaConfig({', '.join(f'{key}={value!r}' for key, value in self.to_dict().items())})"

    # -- rope -------------------------------------------------------------------------------------------------

    @property
    def rope_parameters(self) -> dict[str, Any]:
        """The newer spelling of rope_theta and rope_scaling, in one: a copy, to be changed by setting it anew."""
        scaling = {key: value for key, value in (self.rope_scaling or {}).items() if key != "type"}
        return _copied({**scaling, "rope_type": self.rope_type, "rope_theta": self.rope_theta})

    @property
    def rope_type(self) -> str:
        """The kind of rotary scaling, one of ROPE_TYPES."""
        scaling = self.rope_scaling or {}
        return _rope_type(scaling) if scaling else "default"

    @property
    def original_max_position_embeddings(self) -> int:
        """The context length before scaling: of training, where the scaling stretches it."""
        inside = (self.rope_scaling or {}).get("original_max_position_embeddings")
        return self.extra.get("original_max_position_embeddings") or inside or self.max_position_embeddings

    @property
    def context_length(self) -> int:
        """The most tokens a sequence may have: max_position_embeddings, stretched by linear and dynamic scaling."""
        self.validate()  # what it follows from may have been set since
        if self.rope_scaling and self.rope_type in ("linear", "dynamic"):
            return int(self.max_position_embeddings * self.rope_scaling["factor"])
        return self.max_position_embeddings

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The end-of-text ids: eos_token_id may be one, a list of them, or None."""
        eos = self.eos_token_id
        return () if eos is None else tuple(eos) if isinstance(eos, list) else (eos,)

    # -- checks -----------------------------------------------------------------------------------------------

    def validate(self) -> None:
        """Raise ValueError, naming the field, where the values cannot make a model."""
        for name in _SIZES:
            value = getattr(self, name)
            if not _is_int(value):
                raise ValueError(f"{name} must be a whole number, not {shown(value)}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {shown(value)}")
            if value >= 1 << 31:
                raise ValueError(f"{name} must be below 2^31, not {shown(value)}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} is not a multiple of "
                f"num_key_value_heads {self.num_key_value_heads}: each key/value head serves equally many query heads"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even, not {self.head_dim}: rotary embeddings turn pairs of components")
        for name in ("rms_norm_eps", "rope_theta"):
            value = getattr(self, name)
            if not _is_number(value) or not value > 0:
                raise ValueError(f"{name} must be a number above 0, not {shown(value)}")
        if not _is_number(self.initializer_range) or self.initializer_range < 0:
            raise ValueError(f"initializer_range must be a number of 0 or above, not {shown(self.initializer_range)}")
        _by_number(self.id2label)
        if not isinstance(self.label2id, dict) or not all(isinstance(name, str) for name in self.label2id):
            raise ValueError(f"label2id must map names to numbers, not be {str(self.label2id)[:60]}")
        if (
            self.num_attention_heads * self.head_dim % self.pretraining_tp
            or self.intermediate_size % self.pretraining_tp
        ):
            raise ValueError(
                f"pretraining_tp {self.pretraining_tp} does not divide both num_attention_heads * head_dim and "
                "intermediate_size, which it cuts into slices: set it to 1"
            )
        for name in _FLAGS:
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, not {shown(getattr(self, name))}")
        for name in ("bos_token_id", "pad_token_id"):
            if (value := getattr(self, name)) is not None and not _is_int(value):
                raise ValueError(f"{name} must be a whole number or null, not {shown(value)}")
        if not all(_is_int(value) for value in self.eos_token_ids):
            raise ValueError(
                f"eos_token_id must be a whole number, a list of them or null, not {shown(self.eos_token_id)}"
            )
        if not isinstance(self.hidden_act, str) and not callable(self.hidden_act):
            raise ValueError(f"hidden_act must be a name or a function, not {shown(self.hidden_act)}")
        self._validate_rope()

    def _validate_rope(self) -> None:
        scaling = self.rope_scaling
        for place in (scaling or {}, self.extra):
            original = place.get("original_max_position_embeddings")
            if original is not None and (not _is_int(original) or not 1 <= original < 1 << 31):
                raise ValueError(
                    "original_max_position_embeddings must be a whole number above 0 and below 2^31, not "
                    f"{shown(original)}"
                )
        if scaling is None:
            return
        if self.rope_type is None:
            raise ValueError(f"rope_scaling has no rope_type: use one of {', '.join(ROPE_TYPES)}")
        if self.rope_type not in ROPE_TYPES:
            raise ValueError(
                f"rope_scaling has the unknown type {shown(self.rope_type)}: use one of {', '.join(ROPE_TYPES)}"
            )
        for key in _ROPE_REQUIRED.get(self.rope_type, ()):
            if scaling.get(key) is None:
                raise ValueError(f"rope_scaling of type {self.rope_type} needs '{key}'")
        factor = scaling.get("factor")
        if factor is not None:
            least = "above 1" if self.rope_type in ("linear", "dynamic") else "1 or above"
            if not _is_number(factor) or not 1 <= factor < 1 << 31 or (factor == 1 and least == "above 1"):
                raise ValueError(f"rope_scaling factor must be a number {least} and below 2^31, not {shown(factor)}")
        for key in ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"):
            if (value := scaling.get(key)) is not None and not (_is_number(value) and value >= 0):
                raise ValueError(f"rope_scaling {key} must be a number, not {shown(value)}")
        partial = scaling.get("partial_rotary_factor")
        if partial is not None and not (_is_number(partial) and 0 <= partial <= 1):
            raise ValueError(f"rope_scaling partial_rotary_factor must be between 0 and 1, not {shown(partial)}")
        if partial not in (None, 1) and self.rope_type != "proportional":
            raise ValueError(
                f"rope_scaling of type {self.rope_type} has partial_rotary_factor {partial}, and a LLaMA turns whole "
                "heads: remove it"
            )
        if self.rope_type == "llama3":
            low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
            if not (_is_number(low) and _is_number(high) and 0 < low < high):
                raise ValueError(
                    f"rope_scaling needs 0 < low_freq_factor < high_freq_factor, not {shown(low)} and {shown(high)}"
                )
        if self.rope_type == "yarn":
            for key in ("beta_fast", "beta_slow"):
                if (value := scaling.get(key)) and not 1e-6 <= value <= 1e6:  # 0 stands for the usual value
                    raise ValueError(f"rope_scaling {key} must be between 1e-6 and 1e6, not {shown(value)}")
            if self.rope_theta == 1:
                raise ValueError(
                    "rope_scaling of type yarn needs another rope_theta than 1: it divides by its logarithm"
                )
        if self.rope_type == "longrope":
            if self.original_max_position_embeddings == 1:
                raise ValueError("rope_scaling of type longrope needs original_max_position_embeddings above 1")
            for key in ("short_factor", "long_factor"):
                values = scaling[key]
                if not isinstance(values, list) or not all(_is_number(v) and v > 0 for v in values):
                    raise ValueError(f"rope_scaling {key} must be a list of numbers above 0")
                if len(values) != self.head_dim // 2:
                    raise ValueError(
                        f"rope_scaling {key} must have head_dim / 2 = {self.head_dim // 2} numbers, not {len(values)}"
                    )
        if self.rope_type == "dynamic" and self.head_dim == 2:
            raise ValueError("dynamic rope_scaling needs head_dim above 2: its exponent is head_dim / (head_dim - 2)")

    # -- files ------------------------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, values: dict[str, Any], **overrides: Any) -> LlamaConfig:
        """A config from the keys of a config.json, some of them set otherwise; unknown keys are kept."""
        values, overrides = _in_one_spelling(values), _in_one_spelling(overrides)
        labels = {name: overrides.pop(name, None) for name in ("num_labels", "id2label", "label2id")}
        config = cls(**values | overrides)
        config._take_labels(labels)
        config.validate()
        return config

    @classmethod
    def field_names(cls) -> set[str]:
        """Every field by the name it has in config.json; other keys are kept, and mean nothing here."""
        parameters = inspect.signature(cls.__init__).parameters
        return {*parameters, *_OPTIONAL, "num_labels", "rope_parameters"} - {"self", "kwargs"}

    @classmethod
    def from_pretrained(cls, path: str | os.PathLike[str], **overrides: Any) -> LlamaConfig:
        """Read config.json, given as the file or as the folder it is in; `overrides` are set otherwise. Errors name
        the file."""
        file = Path(path)
        if file.is_dir():
            file = file / "config.json"
        values = read_json_object(file, "a LLaMA configuration")
        model_type = values.get("model_type", "llama")
        if model_type != "llama":
            raise ValueError(f"{file}: model_type is {shown(model_type)}, and minillama reads only LLaMA ('llama')")
        try:
            return cls.from_dict(values, **overrides)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Every field and every unknown key, as written to config.json."""
        usual = {
            key
            for key, default in _OPTIONAL.items()
            if (value := getattr(self, key)) is default or (default is not None and value == default)
        }
        if not {"id2label", "label2id"} <= usual:  # where one is not, the other does not follow from it
            usual -= {"id2label", "label2id"}
        fields = {key: value for key, value in self.__dict__.items() if key not in usual | {"extra"}}
        return _copied({"model_type": self.model_type, **fields, **self.extra})

    def to_json_string(self) -> str:
        """The text of config.json. A callable hidden_act has no name to write: ValueError."""
        if not isinstance(self.hidden_act, str):
            raise ValueError(
                "hidden_act is a function and config.json can hold only a name: set it to one before saving"
            )
        try:
            return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"
        except TypeError as error:
            raise ValueError(f"the config has a value that JSON cannot hold: {error}") from None

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write config.json into `directory` (made if absent), whole or not at all."""
        write_files({Path(directory) / "config.json": self.to_json_string().encode()})


def read_json_object(file: Path, what: str) -> dict[str, Any]:
    """The JSON object in `file`; a byte-order mark is allowed. Errors are ValueErrors that name the file."""
    return parse_json_object(read_json_text(file, what), file, what)


def read_json_text(file: Path, what: str) -> str:
    """The text in `file`, without a byte-order mark. OSError or ValueError that names it."""
    try:
        return read_bytes(file).decode("utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} is missing: {what} is expected there") from None
    except OSError as error:
        raise OSError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not UTF-8 text: {what} is expected there") from None


def parse_json_object(text: str, file: Path, what: str) -> dict[str, Any]:
    """The JSON object in the text of a file. ValueError that names it."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a plain ValueError
        raise ValueError(f"{file} is not valid JSON ({error}): {what} is expected there") from None
    if not isinstance(values, dict):
        raise ValueError(f"{file} holds a JSON {type(values).__name__}, not an object: {what} is expected there")
    return values


def _in_one_spelling(values: dict[str, Any]) -> dict[str, Any]:
    """The newer spellings, rope_parameters, a rope_theta within the scaling and dtype, in the older ones."""
    values = dict(values)
    parameters = values.pop("rope_parameters", None)
    if parameters is not None:
        if not isinstance(parameters, dict):
            raise ValueError(f"rope_parameters must be a dictionary, not {shown(parameters)}")
        only_theta = _rope_type(parameters) == "default" or not parameters.keys() - {"rope_theta"}
        if not values.get("rope_scaling"):  # which comes before rope_parameters, as in transformers 5.24
            values["rope_scaling"] = None if only_theta else parameters
        if "rope_theta" in parameters:
            values["rope_theta"] = parameters["rope_theta"]
    scaling = values.get("rope_scaling")
    if scaling is not None and not isinstance(scaling, dict):
        raise ValueError(f"rope_scaling must be a dictionary or null, not {shown(scaling)}")
    if scaling is not None and "rope_theta" in scaling:
        values["rope_scaling"] = {key: value for key, value in scaling.items() if key != "rope_theta"}
        values["rope_theta"] = scaling["rope_theta"]
    if "dtype" in values or "torch_dtype" in values:
        dtype, older = values.pop("dtype", None), values.get("torch_dtype")
        values["torch_dtype"] = _dtype_name(older if dtype is None else dtype)
    return values


def _dtype_name(dtype: Any) -> str | None:
    """The name of a number format, by which config.json has it."""
    if dtype is None or isinstance(dtype, str):
        return dtype
    if isinstance(dtype, np.dtype | type):
        return np.dtype(dtype).name
    if str(dtype).startswith("torch."):
        return str(dtype).removeprefix("torch.")
    raise ValueError(f"torch_dtype must be the name of a number format, such as 'float16', not {shown(dtype)}")


def _by_number(id2label: Any) -> dict[int, str]:
    """The names of labels by number; JSON has no numbers as keys."""
    try:
        names = {int(number): name for number, name in id2label.items()}
        sound = all(isinstance(name, str) for name in names.values())
    except (AttributeError, ValueError, TypeError, OverflowError):
        sound = False
    if not sound:
        raise ValueError(f"id2label must map numbers to names, not be {str(id2label)[:60]}")
    if not names:
        raise ValueError("id2label must name at least one label")
    return names


def _copied(value: Any, depth: int = 0) -> Any:
    """Dictionaries and lists anew, so that no two configs share one. ValueError for what is nested without end."""
    if depth > 100:
        raise ValueError("the config has a value that is nested more than 100 deep: flatten it")
    if isinstance(value, dict):
        return {key: _copied(item, depth + 1) for key, item in value.items()}
    return [_copied(item, depth + 1) for item in value] if isinstance(value, list) else value


def _rope_type(scaling: dict[str, Any]) -> Any:
    rope_type = scaling.get("rope_type") or scaling.get("type")  # the newer and the older spelling
    return "longrope" if rope_type == "su" else rope_type  # the first name Phi-3 gave it


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    """Finite, and not too large for a float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
