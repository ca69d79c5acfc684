"""How models are copied, and how they travel to other processes: by their path and settings, not by their weights."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from minillama.config import LlamaConfig
from minillama.weights.quantized import PackedTensor
from minillama.weights.safetensors import Tensor

# What is made when a model is, by its attribute. All others are copied as they are
_MADE = ("config", "weights", "engine", "form", "compat", "seed", "threads", "model", "_runner", "_source")


class Source(NamedTuple):
    """What from_pretrained opened: absolute paths, and the config as it was given."""

    path: str
    config: Any
    lora: tuple[str, ...]
    overrides: dict[str, Any]

    @classmethod
    def of(
        cls,
        path: str | os.PathLike[str],
        config: Any,
        lora: Sequence[str | os.PathLike[str]],
        overrides: dict[str, Any],
    ) -> Source:
        """Paths stay right where another process runs in another folder, and the config where its owner changes it."""
        named = isinstance(config, str | os.PathLike)
        config = os.fspath(Path(config).absolute()) if named else copy.deepcopy(config)
        adapters = tuple(os.fspath(Path(adapter).absolute()) for adapter in lora)
        return cls(os.fspath(Path(path).absolute()), config, adapters, dict(overrides))


class Copied:
    """A model that can be copied and pickled.

    copy.copy shares everything. copy.deepcopy shares what is mapped or packed, which is never written to, and copies
    arrays that were given. A pickle holds the path and settings of a checkpoint, its config as it is now and how often
    the vocabulary was resized: it is opened again, from the same place. A model that was made from arrays is pickled
    with them, one that was drawn with its seed.
    """

    config: LlamaConfig
    seed: int
    threads: int
    compat: str | None
    engine: str
    form: str
    weights: Any
    _runner: Any
    _source: Source | None = None
    _build: Callable[..., None]
    from_pretrained: Callable[..., Any]
    resize_token_embeddings: Callable[..., Any]

    def __copy__(self) -> Self:
        twin = type(self).__new__(type(self))
        vars(twin).update(vars(self))
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo.update(
            {id(tensor): tensor for tensor in self.weights.tensors.values() if isinstance(tensor, PackedTensor)}
        )
        config, tensors = copy.deepcopy((self.config, self.weights.tensors), memo)
        twin = _made(type(self), config, tensors, self._how(), self._source)
        twin._runner.resized[:] = self._runner.resized
        self._runner.copy_into(twin._runner, memo)
        vars(twin).update(copy.deepcopy(self._others(), memo))
        return twin

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        rest = (self._how(), self._others())
        if self._source is not None:
            return _opened, (type(self), self._source, self.config, tuple(self._runner.resized), *rest)
        tensors = {name: _before_packing(tensor) for name, tensor in self.weights.tensors.items()}
        return _remade, (type(self), self.config, tensors, *rest)

    def _how(self) -> dict[str, Any]:
        """The arguments that make it run as it does, with nothing left to choose."""
        cache = self._runner.cache_form if self.engine == "numba" else "auto"
        return {
            "engine": self.engine,
            "dtype": self.form,
            "cache_dtype": cache,
            "compat": self.compat,
            "seed": self.seed,
            "threads": self.threads,
        }

    def _others(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _MADE}


def _before_packing(tensor: Tensor) -> Tensor:
    source = tensor.source if isinstance(tensor, PackedTensor) else None
    return tensor if source is None else source


def _made(
    cls: Any, config: LlamaConfig, tensors: Mapping[str, Tensor], settings: dict[str, Any], source: Source | None
) -> Any:
    model = cls.__new__(cls)
    model._source = source
    model._build(config, tensors, "weights" if source is None else source.path, cls._choices(**settings))
    return model


def _remade(
    cls: Any, config: LlamaConfig, tensors: Mapping[str, Tensor], settings: dict[str, Any], others: dict[str, Any]
) -> Any:
    """A model without files, from its pickle."""
    model = _made(cls, config, tensors, settings, None)
    vars(model).update(others)
    return model


def _opened(
    cls: Any,
    source: Source,
    config: LlamaConfig,
    resized: Sequence[int],
    settings: dict[str, Any],
    others: dict[str, Any],
) -> Any:
    """A model with files, from its pickle."""
    path, given, lora, overrides = source
    model = cls.from_pretrained(path, config=given, lora=lora, **settings, **overrides)
    for rows in resized:
        model.resize_token_embeddings(rows)
    vars(model.config).update(vars(config))
    vars(model).update(others)
    return model
