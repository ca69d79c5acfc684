"""A checkpoint of one kind made into another, in memory that does not grow with the model."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import minillama
from minillama.config import LlamaConfig
from minillama.engines import cores
from minillama.generation.config import FILE as GENERATION_CONFIG
from minillama.generation.config import GenerationConfig
from minillama.loading import load_tokenizer, tokenizer_place, write_tokenizer
from minillama.staging import PARTIAL, Staging
from minillama.tokenizer import Tokenizer
from minillama.tokenizer.loading import TOKENIZER_FILES
from minillama.tokenizer.settings import MORE_TEMPLATES, more_templates
from minillama.tokenizer.to_pieces import to_pieces
from minillama.weights import Checkpoint, open_checkpoint
from minillama.weights.checkpoint import STORED
from minillama.weights.finding import find_weights
from minillama.weights.gguf_formats import main_of, matrix_formats, quantized_again
from minillama.weights.gguf_writing import write_gguf, written_size
from minillama.weights.grouping import mean_pooled
from minillama.weights.names import LM_HEAD
from minillama.weights.quantized import PackedTensor
from minillama.weights.safetensors import Tensor
from minillama.weights.saving import Progress, other_weight_files, weight_files, written_bytes
from minillama.weights.target import in_format, in_words, named_for, size_of, true_config, warn_of_loss

MANIFEST = "SHA256SUMS"
OTHER_FILES = ("config.json", GENERATION_CONFIG, MANIFEST, *TOKENIZER_FILES)  # than those of weights
Watch: TypeAlias = Callable[[int], Progress]  # is told how many bytes there will be, and gives what to tell those done
log = logging.getLogger("minillama")


WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth")  # as whose name a folder would be a surprise


@dataclass(frozen=True)
class Job:
    """What is to be converted, into what.

    source: what open_checkpoint opens. out: a folder, for files as Hugging Face keeps them, or a .gguf file. dtype: of
    DTYPES; auto keeps every tensor's own. max_shard_size: of one file, as save_pretrained has it. config, tokenizer:
    those to use instead of what is beside the weights. kv_heads: pool the key/value heads to so many. lora: adapters to
    merge. manifest: write SHA256SUMS too. force: replace what is there.
    """

    source: Path
    out: Path
    dtype: str = "auto"
    max_shard_size: str = "5GB"
    config: Path | None = None
    tokenizer: Path | None = None
    kv_heads: int | None = None
    lora: tuple[Path, ...] = ()
    manifest: bool = False
    force: bool = False


def convert(job: Job, watch: Watch) -> str:
    """Do it; a line on what was written. ValueError, OSError or MemoryError that names the file or the argument."""
    checkpoint = open_checkpoint(job.source, job.config, STORED, lora=job.lora)
    if job.kv_heads is not None:
        tensors, config = mean_pooled(checkpoint.tensors, checkpoint.config, job.kv_heads)
        checkpoint = replace(checkpoint, tensors=tensors, config=config)
    if job.out.suffix.lower() == ".gguf":
        return write_gguf_file(job, checkpoint, watch)
    if job.out.resolve() == checkpoint.folder.resolve():
        its = "where the model is" if job.out == job.source else f"the folder that {job.source} is in"
        raise ValueError(f"{job.out} is {its}: name another one to write to")
    if job.out.suffix.lower() in WEIGHT_FILES and not job.out.exists():
        raise ValueError(f"{job.out} would be a folder of that name: name a folder to write to, or a .gguf file")
    if job.out.exists() and not job.out.is_dir():
        raise ValueError(f"{job.out} is a file: name a folder to write to, or a .gguf file")
    return write_folder(job, checkpoint, watch)


def write_gguf_file(job: Job, checkpoint: Checkpoint, watch: Watch) -> str:
    """Write a GGUF file; a line on what is in it. One file has no parts to keep: an interrupted run leaves nothing."""
    if job.manifest:
        raise ValueError("--manifest is for folders: run sha256sum on the file")
    if checkpoint.head != LM_HEAD:
        raise ValueError(f"{job.source} has no language-modelling head, and llama.cpp's models have one")
    if job.out.is_dir() or (job.out.exists() and not job.force):
        raise ValueError(f"{job.out} is there already: name another file, or replace it with --force")
    tokenizer = opened_tokenizer(job)
    try:
        vocabulary = None if tokenizer is None else to_pieces(tokenizer)
    except ValueError as error:
        raise ValueError(f"{job.tokenizer or tokenizer_place(job.source)}: {error}") from None
    format = None if job.dtype == "auto" else job.dtype.upper()
    formats = matrix_formats(checkpoint.tensors, format)
    warn_of_loss(quantized_again(checkpoint.tensors, formats))
    total = written_size(checkpoint, formats)
    make_room(job.out.parent, total)
    ends = generation_settings(checkpoint).eos_token_id
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    write_gguf(checkpoint, format, job.out, vocabulary, progress=watch(total), end_ids=ends)
    return f"{job.out}: {in_words(job.out.stat().st_size)} in {main_of(checkpoint.tensors, formats).lower()}"


def write_folder(job: Job, checkpoint: Checkpoint, watch: Watch) -> str:
    """Write a folder as Hugging Face keeps it; a line on what is in it."""
    tensors = in_format(named_for(checkpoint, job.dtype), job.dtype, pack)
    config = true_config(checkpoint, tensors)
    total = written_bytes(tensors)
    progress = watch(total)
    files = {file.name: what for file, what in weight_files(Path(), tensors, job.max_shard_size, progress).items()}
    with Staging(job.out, recipe(job, config, tensors)) as staging:
        check_place(job, staging, files)
        try:
            make_room(job.out, total - sum(staging.place(name).stat().st_size for name in staging.kept))
            staging.add("config.json", config.to_json_string().encode())
            staging.add(GENERATION_CONFIG, generation_settings(checkpoint).to_json_string().encode())
            add_tokenizer(job, staging)
            for name, contents in files.items():
                if staging.has(name):
                    progress(staging.place(name).stat().st_size)
                    staging.reuse(name)
                else:
                    staging.add(name, contents, keep=True)
            if job.manifest:
                staging.add(MANIFEST, manifest(staging))
            staging.commit(remove=[job.out / name for name in occupants(job.out) if name not in staging.names])
        except (OSError, KeyboardInterrupt):
            if kept := staging.kept:
                log.warning("%d finished files stay in %s: the same command goes on", len(kept), job.out / PARTIAL)
            raise
    return f"{job.out}: {len(tensors)} tensors, {size_of(tensors)}, {len(staging.names)} files"


def pack(tensor: Tensor, form: str) -> PackedTensor:
    """With all cores."""
    from minillama.runtime import packing  # compiles

    return packing.packed(tensor, form, cores())


def generation_settings(checkpoint: Checkpoint) -> GenerationConfig:
    """What is beside the weights, or follows from the config."""
    if (checkpoint.folder / GENERATION_CONFIG).exists():
        return GenerationConfig.from_pretrained(checkpoint.folder)
    return GenerationConfig.from_model_config(checkpoint.config)


def opened_tokenizer(job: Job) -> Tokenizer | None:
    """The tokenizer; None, with a warning, where there is none and none was asked for."""
    try:
        return load_tokenizer(job.tokenizer or tokenizer_place(job.source))
    except FileNotFoundError:
        if job.tokenizer:
            raise
        log.warning("%s has no tokenizer, so %s gets none: name one with --tokenizer", job.source, job.out)
        return None


def add_tokenizer(job: Job, staging: Staging) -> None:
    """The tokenizer's files, if there is one."""
    tokenizer = opened_tokenizer(job)
    if tokenizer is not None:
        for name in write_tokenizer(tokenizer, job.tokenizer or tokenizer_place(job.source), staging.partial):
            staging.reuse(name)


def occupants(folder: Path) -> list[str]:
    """The files in a folder that are read as parts of a checkpoint."""
    return [
        *(name for name in OTHER_FILES if (folder / name).exists()),
        *(f"{MORE_TEMPLATES}/{file.name}" for file in more_templates(folder)),
        *(file.name for file in other_weight_files(folder, {})),
    ]


def check_place(job: Job, staging: Staging, files: Mapping[str, object]) -> None:
    """ValueError if something is in the way, or a checkpoint is there already that is not to be replaced."""
    for name in (*files, *OTHER_FILES):
        if (job.out / name).is_dir():
            raise ValueError(f"{job.out / name} is a folder, in the place of a file: name another folder to write to")
    moved = any(staging.has(name) and staging.place(name).parent == job.out for name in files)  # killed at the end
    if not job.force and not moved and (there := occupants(job.out)):
        raise ValueError(
            f"{job.out} has a checkpoint already ({there[0]}): name another folder, or replace it with --force"
        )


def make_room(folder: Path, size: int) -> None:
    """OSError if the disk has not so many bytes."""
    if size > (free := free_bytes(folder)):
        raise OSError(
            f"{folder} has {in_words(free)} free and the weights take {in_words(size)}: free some, or name another disk"
        )


def free_bytes(folder: Path) -> int:
    """What is free on the disk that a folder is on, or is to be made on."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def manifest(staging: Staging) -> bytes:
    """The SHA-256 of every file, as sha256sum writes and checks them."""
    lines = []
    for name in sorted(staging.names):
        with open(staging.place(name), "rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")
    return "".join(lines).encode()


def recipe(job: Job, config: LlamaConfig, tensors: Mapping[str, Tensor]) -> str:
    """A digest of all that decides what the files of weights hold: the source's files, and what is made of them."""
    weights = find_weights(job.source)
    suffixes = {weights.suffix, ".safetensors", ".bin", ".gguf", ".json"}
    folders = (weights.parent, *(place if place.is_dir() else place.parent for place in job.lora))
    sources = sorted(file for folder in folders for file in folder.iterdir() if file.suffix in suffixes)
    what: dict[str, Any] = {
        "version": minillama.__version__,
        "sources": [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in sources],
        "lora": list(map(str, job.lora)),
        "max_shard_size": job.max_shard_size,
        "config": config.to_dict(),
        "tensors": {name: [tensor.dtype, tensor.shape] for name, tensor in tensors.items()},
    }
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()
