"""Meta's own checkpoints: consolidated.NN.pth, a file for each GPU they were trained on, and params.json.

Names, and which axis of a tensor is cut into the files, are those of Meta's model code (github.com/meta-llama, llama
and llama-models): wq, wk, wv, w1, w3 and output are cut along their rows, wo and w2 along their columns, tok_embeddings
along its columns in Llama 1 and 2 and along its rows in Llama 3; norms are whole in every file. Rotary pairs are
neighbouring rows. docs/formats.md has the table. The same tensors in .safetensors files are read too.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from minillama.config import LlamaConfig, read_json_object
from minillama.messages import listed
from minillama.weights import names
from minillama.weights.guess import guess_config
from minillama.weights.interleaved import InterleavedTensor
from minillama.weights.joined import JoinedTensor
from minillama.weights.meta_config import config_from_params
from minillama.weights.safetensors import Tensor
from minillama.weights.source import Source

MAX_SHARDS = 64
SHARD = re.compile(r"consolidated\.(\d{1,4})\.(pth|safetensors)")
TOP = {"tok_embeddings": names.EMBED_TOKENS, "norm": names.NORM, "output": names.LM_HEAD}
LAYER = {  # the name after "layers.N." -> the model's attribute
    "attention_norm": "input_norm",
    "attention.wq": "q_proj",
    "attention.wk": "k_proj",
    "attention.wv": "v_proj",
    "attention.wo": "o_proj",
    "ffn_norm": "post_attention_norm",
    "feed_forward.w1": "gate_proj",
    "feed_forward.w3": "up_proj",
    "feed_forward.w2": "down_proj",
}
ACROSS = ("attention.wo", "feed_forward.w2")  # cut along axis 1
FREQUENCIES = "rope.freqs"  # follow from the config; Llama 1 and 2 store them
log = logging.getLogger("minillama")
Tensors = Mapping[str, Tensor]


def is_meta(tensors: Tensors) -> bool:
    """Whether tensors have Meta's names."""
    return "tok_embeddings.weight" in tensors or "layers.0.attention.wq.weight" in tensors


def shard_files(folder: Path) -> list[Path]:
    """The consolidated.NN files of a folder, .pth before .safetensors, in the order of their numbers."""
    found = [(match[2], int(match[1]), file) for file in folder.iterdir() if (match := SHARD.fullmatch(file.name))]
    kind = min((kind for kind, _, _ in found), default="")
    return [file for of, _, file in sorted(found) if of == kind]


def open_meta(
    weights: Path,
    tensors: Tensors,
    open_file: Callable[[Path], Tensors],
    given: LlamaConfig | None = None,
    stated: str | None = None,
) -> Source:
    """The model whose tensors, or the part of them that this file has, are `tensors`; open_file opens the other parts.

    Its config is the one given, else what is `stated` in the file itself (JSON, of llama2.c), else that of params.json
    beside the weights, else config.json, else guessed from the shapes, with a line in the log for each assumption.
    Tensors are put together when they are read, rows of q and k in Hugging Face's rotary layout. ValueError or
    FileNotFoundError if the parts do not belong together, or some are missing.
    """
    shards = _open_shards(weights, tensors, open_file)
    joined = _joined(shards, weights)
    config = given or _config(weights, joined, stated)
    H, G = config.num_attention_heads, config.num_key_value_heads
    for i in range(min(config.num_hidden_layers, len(joined))):
        q, k, v = (names.layer_name(i, attribute) for attribute in ("q_proj", "k_proj", "v_proj"))
        for name in {k, v} & joined.keys():
            joined[name] = _without_copies(joined[name], G * config.head_dim, name, weights)
        for name, heads in ((q, H), (k, G)):
            if name in joined and math.prod(joined[name].shape[:1]) % (2 * heads) == 0:  # else match_tensors complains
                joined[name] = InterleavedTensor(joined[name], heads)
    beside = (weights.parent / "params.json").exists()
    return Source(
        joined, {}, config, "use the params.json that belongs to these weights" if beside else names.OTHER_CONFIG
    )


def _open_shards(weights: Path, tensors: Tensors, open_file: Callable[[Path], Tensors]) -> list[Tensors]:
    """All parts of the model in their order."""
    files = shard_files(weights.parent) if SHARD.fullmatch(weights.name) else [weights]
    numbers = [int(match[1]) for file in files if (match := SHARD.fullmatch(file.name))] or [0]
    count = _shard_count(tensors)
    if len(set(numbers)) < len(numbers) or numbers[-1] >= MAX_SHARDS or (count or 0) > MAX_SHARDS:
        raise ValueError(
            f"{weights.parent} has two consolidated files of one number, or is one of more than {MAX_SHARDS}: "
            "leave the files of one model there"
        )
    missing = sorted(set(range(max(count or 0, numbers[-1] + 1))) - set(numbers))
    if missing:
        lacking = listed(f"consolidated.{number:02}{weights.suffix}" for number in missing)
        raise FileNotFoundError(
            f"{weights.parent} has {len(files)} of {len(files) + len(missing)} parts of the model: get {lacking} too"
            + ("" if SHARD.fullmatch(weights.name) else f", and call {weights.name} consolidated.NN{weights.suffix}")
        )
    if count is not None and count != len(files):
        raise ValueError(
            f"{weights.parent} has {len(files)} consolidated files, and {weights.name} is one of {count}: leave only "
            "those of one model there"
        )
    return [_weights_of(tensors if file == weights else open_file(file)) for file in files]


def _shard_count(tensors: Tensors) -> int | None:
    """Of how many parts this is one, by a matrix that is cut along its columns; None if it does not tell."""
    norm, wo = tensors.get("norm.weight"), tensors.get("layers.0.attention.wo.weight")
    if norm is None or wo is None or len(wo.shape) != 2 or 0 in wo.shape or len(norm.shape) != 1:
        return None
    return norm.shape[0] // wo.shape[1] if norm.shape[0] % wo.shape[1] == 0 else None


def _weights_of(tensors: Tensors) -> Tensors:
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(FREQUENCIES)}
    if FREQUENCIES in tensors:  # a guess of the config reads them, by the name they have in older files
        kept["model.layers.0.self_attn.rotary_emb.inv_freq"] = tensors[FREQUENCIES]
    return kept


def _joined(shards: list[Tensors], weights: Path) -> dict[str, Tensor]:
    """The tensors of the whole model under Hugging Face's names; those of unknown names under their own."""
    first = shards[0]
    for number, shard in enumerate(shards):
        if shard.keys() != first.keys():
            odd = sorted(shard.keys() ^ first.keys())[0]
            raise ValueError(
                f"{weights.parent}: part {number} and part 0 have not the same tensors ({odd}): get both again"
            )
        for name, tensor in shard.items():
            if (tensor.shape, tensor.dtype) != (first[name].shape, first[name].dtype):
                raise ValueError(
                    f"{weights.parent}: {name} is {tensor.dtype} {tensor.shape} in part {number} and "
                    f"{first[name].dtype} {first[name].shape} in part 0: get both again"
                )
    D = first["norm.weight"].shape[-1:] if "norm.weight" in first else ()
    joined: dict[str, Tensor] = {}
    for name, tensor in first.items():
        short = name.removesuffix(".weight")
        whole = len(tensor.shape) != 2 or len(shards) == 1
        axis = 1 if short.endswith(ACROSS) or (short == "tok_embeddings" and tensor.shape[-1:] != D) else 0
        joined[_hf_name(short) or name] = tensor if whole else JoinedTensor([shard[name] for shard in shards], axis)
    return joined


def _hf_name(short: str) -> str | None:
    """A name without its .weight; None for a tensor that no LLaMA has."""
    match = re.fullmatch(r"layers\.(0|[1-9]\d{0,3})\.(.+)", short)
    if match and match[2] in LAYER:
        return names.layer_name(int(match[1]), LAYER[match[2]])
    return TOP.get(short)


def _config(weights: Path, joined: Tensors, stated: str | None) -> LlamaConfig:
    if stated is not None:
        return config_from_params(weights, json.loads(stated), joined)
    params, beside = weights.parent / "params.json", weights.parent / "config.json"
    if params.exists():
        return config_from_params(params, read_json_object(params, "Meta's settings of a model"), joined)
    if beside.exists():
        return LlamaConfig.from_pretrained(beside)
    config, assumptions = guess_config(joined, weights)
    for assumption in assumptions:
        log.warning("%s: no params.json beside it; %s (--config FILE overrides)", weights, assumption)
    return config


def _without_copies(tensor: Tensor, rows: int, name: str, weights: Path) -> Tensor:
    """A key or value projection without its repetitions: where a model has fewer key/value heads than parts, several
    neighbouring parts have the same head."""
    if not isinstance(tensor, JoinedTensor) or rows < 1 or tensor.shape[0] <= rows or tensor.shape[0] % rows:
        return tensor
    times = tensor.shape[0] // rows
    if len(tensor.parts) % times:
        return tensor
    ends = np.array([0, tensor.parts[0].shape[0] - 1])  # enough to tell heads apart, and soon read
    for number, part in enumerate(tensor.parts):
        if not np.array_equal(
            part.read(np.float32, ends), tensor.parts[number - number % times].read(np.float32, ends)
        ):
            raise ValueError(
                f"{weights.parent}: {name} has {tensor.shape[0]} rows in {len(tensor.parts)} parts where its config "
                f"says {rows}, and part {number} does not repeat the one before it: get params.json again"
            )
    return JoinedTensor(tensor.parts[::times], 0)
