"""A checkpoint on disk: a Hugging Face or Meta directory, one file, or several with an index."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minillama.config import LlamaConfig, read_json_object
from minillama.messages import shown
from minillama.vocabulary import is_gguf
from minillama.weights.finding import TORCH, find_weights
from minillama.weights.gguf_model import open_gguf
from minillama.weights.guess import guess_config
from minillama.weights.llama2c import is_llama2c, open_llama2c
from minillama.weights.lora_peft import CONFIG as ADAPTER
from minillama.weights.merging import merge_lora
from minillama.weights.meta import is_meta, open_meta
from minillama.weights.names import (
    EMBED_TOKENS,
    LM_HEAD,
    OTHER_CONFIG,
    SCORE,
    expected_shapes,
    match_tensors,
    standard_names,
    with_true_tie,
)
from minillama.weights.quantized import put_together
from minillama.weights.safetensors import Tensor, nbytes, open_safetensors
from minillama.weights.schemes import check_scheme
from minillama.weights.source import Source
from minillama.weights.torch_file import read_torch_file
from minillama.weights.training import MODEL_ARGS, unwrapped

MAX_FILE_NAME = 200  # characters, below what file systems take
STORED = "the one that is stored"  # a head, for open_checkpoint
log = logging.getLogger("minillama")


@dataclass
class Checkpoint:
    """An opened checkpoint: its config, and its tensors under their names, all checked against each other. head: which
    one it was opened with. metadata: what the files say beside."""

    config: LlamaConfig
    tensors: dict[str, Tensor]
    folder: Path
    head: str | None
    metadata: Mapping[str, str]


def open_checkpoint(
    path: str | os.PathLike[str],
    config: LlamaConfig | str | os.PathLike[str] | None = None,
    head: str | None = LM_HEAD,
    overrides: Mapping[str, Any] | None = None,
    lora: Sequence[str | os.PathLike[str]] = (),
) -> Checkpoint:
    """Open a checkpoint by mapping it; takes milliseconds whatever its size.

    path: a folder, a file of weights (a shard stands for all), or an index. config: one to use instead of what is
    beside the weights. Without any, one is guessed from the shapes, and each assumption is logged as a warning. head:
    which tensor the model has on top, if any; STORED for the one that is there. overrides: fields of the config to set
    otherwise. lora: folders of LoRA adapters to merge, one after the other. Raises FileNotFoundError, OSError or
    ValueError; the message names the file.
    """
    weights = find_weights(path)
    given = config if config is None or isinstance(config, LlamaConfig) else LlamaConfig.from_pretrained(config)
    if given is not None:
        given.validate()  # its fields may have been set since it was made
    tensors, metadata, own_config, advice = _read_or_named(weights, given)
    if head == STORED:
        head = stored_head(tensors)
    beside = weights.parent / "config.json"
    if settings := given or own_config:
        check_scheme(settings.extra, tensors, weights)
    elif beside.exists():
        settings = LlamaConfig.from_pretrained(beside)
        check_scheme(settings.extra, tensors, weights)
    else:
        check_scheme({}, tensors, weights)
        settings, assumptions = guess_config(tensors, weights)
        for assumption in assumptions:
            log.warning("%s: no config.json beside it; %s (--config FILE overrides)", weights, assumption)
    if settings.extra.get("quantization_config"):
        try:
            tensors = put_together(tensors, expected_shapes(settings))
        except ValueError as error:
            raise ValueError(f"{weights}: {error}; get it again") from None
    if overrides:
        settings = LlamaConfig.from_dict(settings.to_dict(), **overrides)
    matched = match_tensors(settings, tensors, metadata, weights, head, OTHER_CONFIG if given else advice)
    if not lora and (weights.parent / ADAPTER).exists():  # transformers merges it unasked, where peft is installed
        log.warning(
            "%s lies beside the weights and is not merged: to merge it, name its folder with --lora",
            weights.parent / ADAPTER,
        )
    for adapter in lora:
        matched, settings = merge_lora(Path(adapter), matched, settings, head)
    settings = with_true_tie(settings, matched)
    return Checkpoint(settings, matched, weights.parent, head, metadata)


def _read_or_named(weights: Path, config: LlamaConfig | None) -> Source:
    """What read_source gives. Where it fails on files that another program has quantized, their scheme is the reason
    to tell."""
    try:
        return read_source(weights, config)
    except ValueError:
        beside = weights.parent / "config.json"
        if not is_gguf(weights) and beside.exists():
            check_scheme(read_json_object(beside, "a LLaMA configuration"), None, weights)
        raise


def read_source(weights: Path, config: LlamaConfig | None = None) -> Source:
    """What is in a file of weights, or in the files that an index names, by the reader of its format. config: the one
    to use, if a user says so; how many heads there are matters to the layout of Meta's files."""
    if is_gguf(weights):
        return open_gguf(weights)
    if weights.suffix == ".bin" and is_llama2c(weights, certainly=weights.name.startswith("pytorch_model")):
        return open_llama2c(weights)
    stored, said = _open_indexed(weights) if weights.name.endswith(".json") else _open_file(weights)
    renamed = unwrapped(stored)
    tensors = {renamed(name): tensor for name, tensor in stored.items()}
    if len(tensors) != len(stored):
        raise ValueError(
            f"{weights} has two tensors whose names differ in wrapper prefixes alone: name a plain state_dict"
        )
    if is_meta(tensors):
        stated = said.get(MODEL_ARGS) if weights.suffix in TORCH else None
        return open_meta(weights, tensors, lambda shard: _open_file(shard)[0], config, stated)
    metadata = {renamed(name): renamed(other) for name, other in said.items()}
    return Source(tensors, metadata)


def _open_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if path.suffix in TORCH:
        opened = read_torch_file(path)
        return opened.tensors, {MODEL_ARGS: json.dumps(opened.settings)} if opened.settings else {}
    tensors, metadata = open_safetensors(path)
    return {**tensors}, metadata


def stored_head(tensors: Mapping[str, Tensor]) -> str | None:
    """Which head is stored with a decoder."""
    if SCORE in tensors and LM_HEAD not in tensors:
        return SCORE
    bare = EMBED_TOKENS not in tensors and EMBED_TOKENS in standard_names(tensors)  # saved without one
    return None if bare and LM_HEAD not in tensors else LM_HEAD


def _open_indexed(index: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    kind = ".safetensors" if index.name.endswith(".safetensors.index.json") else ".bin"
    contents = read_json_object(index, f"an index of {kind.removeprefix('.')} files")
    weight_map = contents.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise ValueError(f"{index} has no weight_map from tensor names to file names: get it again")
    shards: dict[str, dict[str, Tensor]] = {}
    metadata: dict[str, str] = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard or "\\" in shard or ":" in shard or shard in ("", ".", ".."):
            raise ValueError(
                f"{index} names the file {shown(shard[:100])}, which is not in the same folder: it cannot be trusted"
            )
        if len(shard) > MAX_FILE_NAME or len(shard.splitlines()) > 1:
            raise ValueError(f"{index} names the file {shard[:100]!a}, which no file can be called: get it again")
        if not (index.parent / shard).exists():
            raise FileNotFoundError(f"{index.parent / shard} is missing, and {index.name} names it: get that file too")
        if not shard.endswith(kind):
            raise ValueError(f"{index} names the file {shown(shard)}, which is no {kind} file: get the index again")
        shards[shard], more = _open_file(index.parent / shard)
        metadata |= more
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            tensor = name[:100] if name.isprintable() else ascii(name[:100])
            raise ValueError(f"{index} says tensor {tensor} is in {shard}, which does not have it: get the index again")
    tensors = {name: shards[shard][name] for name, shard in weight_map.items()}
    declared = contents["metadata"].get("total_size") if isinstance(contents.get("metadata"), dict) else None
    actual = sum(map(nbytes, tensors.values()))
    if declared is not None and declared != actual:  # worth a word, no more: every tensor's own size has been checked
        log.warning("%s declares a total_size of %s bytes, and its tensors have %s", index, declared, actual)
    return tensors, metadata
