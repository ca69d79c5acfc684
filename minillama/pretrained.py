"""What the model classes share: their weights, drawn or opened, looked at, resized and saved."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, NamedTuple, Self

import numpy as np
import psutil
from numpy.typing import DTypeLike
from tqdm import tqdm

from minillama.arrays import Array, as_array
from minillama.compat import COMPAT
from minillama.config import LlamaConfig
from minillama.copying import Copied, Source
from minillama.engines import (
    LARGE,
    OF_NUMPY,
    cache_format,
    check_engine,
    checked_cache_format,
    checked_format,
    choose,
    cores,
    kernels_trouble,
)
from minillama.files import write_files
from minillama.forking import renew_after_fork
from minillama.layout import PACKED
from minillama.messages import listed, shown
from minillama.model.decoder import Decoder
from minillama.model.heads import lm_logits
from minillama.weights import Parameters, names, open_checkpoint
from minillama.weights.drawn import ResizedTensor, draw_matrix, draw_tensors
from minillama.weights.formats import QUANTS
from minillama.weights.mixed import matrix_forms
from minillama.weights.quantized import PackedTensor, quantization_config
from minillama.weights.safetensors import ArrayTensor, Tensor
from minillama.weights.saving import main_dtype, other_weight_files, weight_files

if TYPE_CHECKING:
    from minillama.runtime import FastDecoder, FastModel

log = logging.getLogger("minillama")
# Arguments of from_pretrained that calls of transformers have, and which change nothing here: where the model runs, how
# its attention is computed, what may be downloaded or run
IDLE = (
    "device_map", "low_cpu_mem_usage", "attn_implementation", "use_safetensors", "local_files_only", "revision",
    "trust_remote_code", "token", "cache_dir", "force_download",
)  # fmt: skip


class LlamaPreTrainedModel(Copied):
    """A config, its weights and the decoder that reads them; the base of the public classes.

    weights: the tensors under their Hugging Face names, as arrays of float16, float32 or float64; without them a new
    model is drawn: every matrix when it is first used, so that a model of any size is made at once and for nothing. It
    follows from `seed` alone: matrices are normal with standard deviation config.initializer_range, norms 1, biases
    and the row of the padding token 0.

    engine: "numpy", "numba" (compiled, for generation), or "auto", which takes numba for a large model. dtype: what
    numpy computes in, "float32" or "float64", the oracle; what numba has the weights in, "float32", "float16",
    "bfloat16", "bf16z" (that, in less room), "q8_0" or "q4_0"; "auto" is float32, or of numba the checkpoint's own, or
    a smaller one if the memory has no room for that. cache_dtype: what numba has keys and values in, "float32",
    "float16" or "bfloat16". threads:
    how many numba uses (None: one a core). compat: None, or "hf4" / "hf5" for the ways
    of transformers 4.34 / 5 (see minillama.compat), of numpy alone.
    """

    config_class = LlamaConfig
    base_model_prefix = "model"
    head: ClassVar[str | None] = None  # the name of the tensor that this class has on top of the decoder
    name_or_path = ""  # where the weights were read from

    def __init__(
        self,
        config: LlamaConfig,
        weights: Mapping[str, Array] | None = None,
        *,
        engine: str = "auto",
        dtype: DTypeLike = "auto",
        cache_dtype: DTypeLike = "auto",
        compat: str | None = None,
        seed: int = 0,
        threads: int | None = None,
    ):
        if not isinstance(config, LlamaConfig):
            raise ValueError(
                f"config must be a LlamaConfig, not a {type(config).__name__}: LlamaConfig.from_dict makes one"
            )
        config.validate()  # its fields may have been set since it was made
        choices = _Choices.checked(engine, dtype, cache_dtype, compat, seed, threads)
        if weights is None:
            tensors = draw_tensors(config, choices.seed, self.head)
            choices = choices.without_auto()  # which would look at all of them
        else:
            if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
                raise ValueError(
                    f"weights must map names of tensors to arrays, not be a {type(weights).__name__} of something else"
                )
            arrays: dict[str, Tensor] = {name: ArrayTensor(as_array(name, array)) for name, array in weights.items()}
            tensors = names.match_tensors(config, arrays, {}, "weights", self.head, "give both of one model")
        self._build(config, tensors, "weights", choices)

    def _build(self, config: LlamaConfig, tensors: dict[str, Tensor], where: object, choices: _Choices) -> None:
        if self.head is not None and self.head not in tensors:
            shape = names.expected_shapes(config, self.head)[self.head]
            tensors = tensors | {self.head: draw_matrix(config, choices.seed, self.head, shape)}
            log.warning("%s has no %s: the head is drawn at random and has yet to be trained", where, self.head)
        self._tied = tensors.get(names.LM_HEAD) is tensors[names.EMBED_TOKENS] or (
            config.tie_word_embeddings and tensors.get(names.LM_HEAD, tensors[names.EMBED_TOKENS]).dtype in QUANTS
        )  # before the head is packed, which makes another tensor of it
        self.engine, self.form = choose(choices.engine, choices.form, choices.compat, config, tensors, where)
        if self.engine == "numba" and self.form in PACKED:
            tensors = self._packed(tensors, matrix_forms(self.form, tensors), choices.threads, where)
        self.weights = Parameters(tensors, config, np.float64 if self.form == "f64" else np.float32)
        self.config, self.compat, self.seed, self.threads = config, choices.compat, choices.seed, choices.threads
        cache_form = cache_format(choices.cache_form, self.form, self.weights.count())
        self._runner = Runner(config, self.weights, self.engine, self.form, cache_form, choices.threads, choices.compat)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        *,
        config: LlamaConfig | str | os.PathLike[str] | None = None,
        lora: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
        engine: str = "auto",
        dtype: DTypeLike = "auto",
        cache_dtype: DTypeLike = "auto",
        compat: str | None = None,
        seed: int = 0,
        threads: int | None = None,
        **overrides: Any,
    ) -> Self:
        """Open a checkpoint: a folder as Hugging Face or Meta keeps it, a file of the kinds in docs/formats.md, or an
        index of several.

        config: a LlamaConfig or a config.json to use instead of the one beside the weights. lora: the folder of a LoRA
        adapter to merge into them, or several. overrides: fields of the config to set otherwise, such as num_labels=3;
        arguments of transformers that change nothing here are taken too. Weights are mapped, and widened as they are
        used. A checkpoint of another class opens too: heads that this one
        has not are left out, and a classifier's head that is not there is drawn from `seed`, with a warning. Raises
        FileNotFoundError, OSError or ValueError that names the file and what is wrong with it, and MemoryError before
        anything is loaded if the free memory cannot hold what `dtype` needs.
        """
        if callable(fields := getattr(config, "to_dict", None)) and not isinstance(config, LlamaConfig):
            config = LlamaConfig.from_dict(fields())  # another library's
        choices = _Choices.checked(
            engine, overrides.pop("torch_dtype", None) or dtype, cache_dtype, compat, seed, threads
        )
        if (place := overrides.get("device_map")) not in (None, "auto", "cpu"):
            raise ValueError(f"device_map must be auto or cpu, the only place there is, not {shown(place)}")
        overrides = {name: value for name, value in overrides.items() if name not in IDLE}
        if unknown := [name for name in overrides if name not in LlamaConfig.field_names()]:
            raise TypeError(
                f"{cls.__name__}.from_pretrained takes no {shown(unknown[0])}, nor is it a field of LlamaConfig: "
                "leave it out"
            )
        if cls.head != names.LM_HEAD:
            choices = choices.without_auto()  # only generation is compiled
        adapters = [lora] if isinstance(lora, str | os.PathLike) else list(lora or ())
        source = Source.of(path, config, adapters, overrides)
        checkpoint = open_checkpoint(path, config, cls.head, overrides, adapters)
        model = cls.__new__(cls)
        model._source, model.name_or_path = source, os.fspath(path)
        try:
            model._build(checkpoint.config, dict(checkpoint.tensors), path, choices)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if model.engine == "numpy":
            _check_memory(model.weights, path)
        model._opened(checkpoint.folder)
        return model

    @staticmethod
    def _choices(**settings: Any) -> _Choices:
        return _Choices.checked(**settings)

    def _opened(self, folder: Path) -> None:
        """Called when the weights have been opened, for what else may lie beside them."""

    @staticmethod
    def _packed(
        tensors: Mapping[str, Tensor], forms: Mapping[str, str], threads: int, where: object
    ) -> dict[str, Tensor]:
        """The matrices that kernels multiply by, each in its format of PACKED; the embedding, of which rows are read,
        as it is."""
        from minillama.runtime.packing import packed

        wanted = [name for name, form in forms.items() if tensors[name].dtype != form.upper()]
        total = sum(math.prod(tensors[name].shape) for name in wanted)
        bar = tqdm(
            total=total,
            unit="weights",
            unit_scale=True,
            desc=f"packing as {' and '.join(sorted({forms[name] for name in wanted}))}",
            leave=False,
            file=sys.stderr,
            disable=not sys.stderr.isatty() or total < LARGE,
        )
        made: dict[str, Tensor] = {}
        with bar:
            for name in wanted:
                try:
                    made[name] = packed(tensors[name], forms[name], threads, progress=bar.update)
                except ValueError as error:
                    raise ValueError(f"{where}: {name} cannot be quantized: {error}") from None
        return {**tensors, **made}

    @property
    def compiled(self) -> bool:
        """Whether engine "numba" runs this without compiling anything first."""
        return self._runner.compiled

    @property
    def decoder(self) -> Decoder | FastDecoder:
        """The stack of layers, as the engine runs it."""
        return self._runner.decoder

    def watch(self, told: Callable[[int], object] | None) -> None:
        """Have `told` called as a pass goes on: with the bytes of weights that were read, or by engine "numba" with how
        many tokens have been computed."""
        if self.engine == "numba":
            self._runner.fast.on_tokens = told
        else:
            self.weights.on_read = told

    # -- what there is ----------------------------------------------------------------------------------------

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the model computes in."""
        return self.weights.dtype

    def state_dict(self) -> Mapping[str, Array]:
        """Every tensor by its Hugging Face name, read when it is asked for (dict() reads all of them).

        Arrays have the type of the stored numbers; bfloat16, which NumPy has not, is widened to float32 exactly, and so
        are quantized numbers.
        """
        return _StateDict(self._tensors())

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """How many numbers the weights are, those of a tied head counted once. All are trainable."""
        unique = {id(tensor): tensor for tensor in self._tensors().values()}
        if exclude_embeddings:
            unique.pop(id(self.weights.tensors[names.EMBED_TOKENS]))
        return sum(int(np.prod(tensor.shape)) for tensor in unique.values())

    def get_input_embeddings(self) -> Embedding:
        """The embedding table."""
        return Embedding(self.weights, names.EMBED_TOKENS, self.decoder.embed)

    def get_output_embeddings(self) -> Embedding | None:
        """The head that scores the vocabulary, if the class has one."""
        if self.head != names.LM_HEAD:
            return None
        return Embedding(self.weights, names.LM_HEAD, self._scores)

    def _scores(self, hidden: Any) -> Array:
        return self._runner.lm_logits(np.asarray(hidden))

    def eval(self) -> Self:
        """The model itself: it has no other mode, nothing here is trained or dropped out."""
        return self

    def _tensors(self) -> dict[str, Tensor]:
        """The tensors of this class, by the names it saves them under."""
        others = {name for name in names.HEADS if name != self.head}
        prefix = f"{self.base_model_prefix}." if self.head is None else ""
        tensors = self.weights.tensors.items()
        return {name.removeprefix(prefix): tensor for name, tensor in tensors if name not in others}

    # -- changes ----------------------------------------------------------------------------------------------

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None
    ) -> Embedding:
        """Make the vocabulary `new_num_tokens` large (None: as it is), rounded up to a multiple; the new table.

        Rows that are new, in the table and in the head, are drawn as a new model's are; those that are too many go.
        """
        for what, number in (("new_num_tokens", new_num_tokens), ("pad_to_multiple_of", pad_to_multiple_of)):
            if number is not None and (not _is_whole(number) or number < 1):
                raise ValueError(f"{what} must be a whole number of at least 1, not {shown(number)}")
        rows = self.config.vocab_size if new_num_tokens is None else int(new_num_tokens)
        if pad_to_multiple_of is not None:
            rows = int(-(-rows // pad_to_multiple_of) * pad_to_multiple_of)
        made: dict[int, Tensor] = {}  # a tied head stays the same tensor
        for name in (names.EMBED_TOKENS, names.LM_HEAD):
            old = self.weights.tensors.get(name)
            if old is not None and rows != self.config.vocab_size:
                if old.dtype in QUANTS:
                    raise ValueError(f"{name} is quantized and cannot be resized: resize the model, then quantize it")
                further = draw_matrix(self.config, self.seed, f"{name} beyond {old.shape[0]}", (rows, old.shape[1]))
                self.weights.replace(name, made.setdefault(id(old), ResizedTensor(old, further, rows)))
        self.config.vocab_size = rows
        self._runner.resized.append(rows)
        self._runner.weights_changed()
        return self.get_input_embeddings()

    def prune_heads(self, heads_to_prune: Mapping[int, list[int]]) -> None:
        """ValueError: a LLaMA's heads cannot be pruned."""
        raise ValueError(
            "a LLaMA's heads cannot be pruned: every layer has as many as the config says, and query heads share "
            "key/value heads in groups of one size; zero the columns of o_proj that read a head instead"
        )

    # -- files ------------------------------------------------------------------------------------------------

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        max_shard_size: int | str = "5GB",
        safe_serialization: bool = True,
    ) -> None:
        """Write config.json and model.safetensors, or several files with an index where it is larger than
        `max_shard_size` (bytes, or a text such as "200MB"), as Hugging Face does.

        Numbers are written in the format they are stored in, a tensor at a time; a tied head is written once. All files
        are written beside their places first and moved there when they are complete, and weights of an earlier
        checkpoint in the folder are then removed. ValueError if the config cannot be written (a hidden_act that is a
        function), OSError if a file cannot.
        """
        if not safe_serialization:
            raise ValueError("safe_serialization=False would write pickled files, which can hold code: leave it True")
        folder = Path(save_directory)
        tensors = self._tensors()
        if names.LM_HEAD in tensors and tensors[names.LM_HEAD] is self.weights.tensors[names.EMBED_TOKENS]:
            del tensors[names.LM_HEAD]
        config = LlamaConfig.from_dict(self._true_fields(tensors)).to_json_string()
        weights = weight_files(folder, tensors, max_shard_size)
        files = weights | {folder / "config.json": config.encode()} | self._more_files(folder)
        write_files(files, remove=other_weight_files(folder, weights))

    def _true_fields(self, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """The config's fields, those about what is written made true. ValueError where sizes have been set that the
        weights have not."""
        self.config.validate()
        for name, shape in names.expected_shapes(self.config, self.head).items():
            if (held := self.weights.tensors.get(name)) is None or held.shape != shape:
                raise ValueError(
                    f"the config says that {name} is {shape}, and it is {getattr(held, 'shape', 'absent')}: set the "
                    "config's fields back to what the weights are"
                )
        fields = self.config.to_dict()
        fields.pop("quantization_config", None)
        forms = Counter(tensor.form for tensor in tensors.values() if isinstance(tensor, PackedTensor))
        if forms:
            fields["quantization_config"] = quantization_config(forms.most_common(1)[0][0])
        if self.head == names.LM_HEAD:
            fields["tie_word_embeddings"] = self._tied
        return fields | {"torch_dtype": main_dtype(tensors), "architectures": [type(self).__name__]}

    def _more_files(self, folder: Path) -> dict[Path, bytes | Callable[[BinaryIO], None]]:
        """What else is saved."""
        return {}


class Runner:
    """What computes for a model and for the decoder within it. The kernels are compiled when they are first needed."""

    _fast: FastModel | None
    _decoder: FastDecoder | None
    _ready: bool  # whether the kernels are compiled

    def __init__(
        self,
        config: LlamaConfig,
        weights: Parameters,
        engine: str,
        form: str,
        cache_form: str,
        threads: int,
        compat: str | None,
    ):
        self.config, self.weights, self.engine, self.threads = config, weights, engine, threads
        self.form, self.cache_form = form, cache_form
        self._numpy = Decoder(config, weights, COMPAT[compat])
        self.resized: list[int] = []  # the sizes that the vocabulary was given, one after the other
        self._forget()
        self._making = RLock()  # two threads that begin at the same time get the same model
        renew_after_fork(self)

    def renew(self) -> None:
        """Free the lock, which another thread may have held when this process was forked."""
        self._making = RLock()

    @property
    def fast(self) -> FastModel:
        """The model as engine "numba" runs it, ready to run."""
        with self._making:
            fast = self._packed_model()
            if not self._ready:
                from minillama.runtime import compile_kernels

                compile_kernels(fast)
                self._ready = True
            return fast

    def _packed_model(self) -> FastModel:
        with self._making:
            if self._fast is None:
                if trouble := kernels_trouble():
                    raise ValueError(f"engine 'numba' cannot run: {trouble}, or use engine 'numpy'")
                from minillama.runtime import FastModel

                self._fast = FastModel(self.config, self.weights.tensors, self.form, self.cache_form, self.threads)
            return self._fast

    @property
    def compiled(self) -> bool:
        """Whether the kernels have been compiled on this machine already."""
        return self.engine == "numba" and self._packed_model().compiled

    @property
    def decoder(self) -> Decoder | FastDecoder:
        if self.engine == "numpy":
            return self._numpy
        with self._making:
            if self._decoder is None:
                from minillama.runtime import FastDecoder

                self._decoder = FastDecoder(self.fast, self._numpy)
            return self._decoder

    def lm_logits(self, hidden: Array) -> Array:
        """Normalized hidden states (..., D) -> the scores of the vocabulary (..., V)."""
        if self.engine == "numpy":
            return lm_logits(hidden, self.weights.lm_head)
        rows = np.asarray(hidden, np.float32).reshape(math.prod(hidden.shape[:-1]), self.config.hidden_size)
        return self.fast.lm_logits(rows).reshape(*hidden.shape[:-1], self.config.vocab_size)

    def copy_into(self, twin: Runner, memo: dict[int, Any]) -> None:
        """Have caches that are copied together with a model belong to its copy."""
        if self._fast is not None:
            memo[id(self._fast)] = twin._packed_model()

    def weights_changed(self) -> None:
        """Look at weights that have changed."""
        with self._making:
            self._forget()

    def _forget(self) -> None:
        self._fast, self._decoder, self._ready = None, None, False


class Embedding:
    """A table of one row for each token: the input's, whose rows are looked up, or the head's, which scores them."""

    def __init__(self, weights: Parameters, name: str, call: Callable[[Any], Array]):
        self._weights, self._name, self._call = weights, name, call

    @property
    def weight(self) -> Array:
        """(V, D), in what the model computes in."""
        return self._weights.read(self._name)

    def __call__(self, x: Any) -> Array:
        """The rows of token ids, (...) -> (..., D); of a head, the scores of hidden states, (..., D) -> (..., V)."""
        return self._call(x)


class _StateDict(Mapping[str, Array]):
    def __init__(self, tensors: dict[str, Tensor]):
        self._tensors = tensors

    def __getitem__(self, name: str) -> Array:
        tensor = self._tensors[name]
        return tensor.read(np.float32) if tensor.dtype in ("BF16", *QUANTS) else tensor.stored()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy or a pickle is a dictionary of arrays."""
        return dict, (dict(self),)

    def __repr__(self) -> str:
        return f"<{len(self)} tensors: {', '.join(self)}>"


class _Choices(NamedTuple):
    """How a model is run, apart from what it is."""

    engine: str
    form: str
    cache_form: str
    compat: str | None
    seed: int
    threads: int

    @classmethod
    def checked(
        cls,
        engine: str,
        dtype: DTypeLike,
        cache_dtype: DTypeLike,
        compat: str | None,
        seed: int,
        threads: int | None,
    ) -> _Choices:
        """ValueError that names what is not one of its choices."""
        form, cache_form = checked_format(dtype), checked_cache_format(cache_dtype)
        if compat not in COMPAT:
            raise ValueError(f"compat must be one of {listed(map(str, COMPAT))}, not {shown(compat)}")
        check_engine(engine, form, compat, cache_form)
        if not _is_whole(seed) or seed < 0:
            raise ValueError(f"seed must be a whole number of 0 or more, not {shown(seed)}")
        if threads is not None and (not _is_whole(threads) or threads < 1):
            raise ValueError(f"threads must be a whole number of at least 1, not {shown(threads)}")
        return cls(engine, form, cache_form, compat, int(seed), cores() if threads is None else threads)

    def without_auto(self) -> _Choices:
        """The same, but that engine "auto" is numpy, unless the format needs numba."""
        numpy = self.engine == "auto" and self.form in ("auto", *OF_NUMPY)
        return self._replace(engine="numpy") if numpy else self


def _is_whole(number: Any) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def _check_memory(weights: Parameters, path: object) -> None:
    free = psutil.virtual_memory().available
    need = weights.working_size
    if need > free:
        halved = weights.dtype == np.float64 and need // 2 <= free
        hint = "float32 needs half of that" if halved else "free some, or use a smaller model"
        raise MemoryError(
            f"{path} needs about {need / 1e9:.1f} GB of memory in {weights.dtype} "
            f"and {free / 1e9:.1f} GB are free: {hint}"
        )
