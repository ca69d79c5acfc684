"""Whether a checkpoint is sound: everything about its files that can be known without another copy."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minillama.converting import MANIFEST, Watch
from minillama.files import read_bytes
from minillama.generation.config import FILE as GENERATION_CONFIG
from minillama.generation.config import GenerationConfig
from minillama.loading import load_tokenizer, tokenizer_place
from minillama.staging import PARTIAL
from minillama.weights import Checkpoint, open_checkpoint
from minillama.weights.checkpoint import STORED
from minillama.weights.quantized import PackedTensor, QuantizedTensor, checksum_note, provenance
from minillama.weights.safetensors import Tensor
from minillama.weights.saving import Progress, main_dtype
from minillama.weights.streaming import floats
from minillama.weights.target import size_of

SPELLED = 10  # complaints of one kind that are told one by one


class Report(NamedTuple):
    """What is not sound, a sentence each; and a line on what there is."""

    complaints: list[str]
    summary: str


def check(path: Path, watch: Watch) -> Report:
    """Look at every file of a checkpoint and every number in it.

    Shapes and names against the config, sizes against headers and the index, the stated number format, NaN and
    infinite numbers, checksums of quantized matrices, the settings of generation, the tokenizer's size, SHA256SUMS.
    What open_checkpoint would warn of counts as not sound too.
    """
    complaints: list[str] = []
    try:
        with told_to(complaints):
            checkpoint = open_checkpoint(path, head=STORED)
    except (ValueError, OSError) as error:
        unfinished = path / PARTIAL
        hint = f"; {unfinished} is of a conversion that has not come to its end" if unfinished.exists() else ""
        return Report([f"{error}{hint}"], "")
    tensors = {id(tensor): (name, tensor) for name, tensor in reversed(checkpoint.tensors.items())}
    unique = dict(reversed(tensors.values()))  # a tied head is looked at once, as the embedding
    progress = watch(sum(math.prod(tensor.shape) for tensor in unique.values()))
    complaints += [
        *odd_dtype(checkpoint),
        *few(odd_numbers(unique, progress), "tensors"),
        *few(odd_checksums(unique, checkpoint.metadata), "matrices"),
        *odd_settings(checkpoint.folder),
        *few(odd_files(checkpoint.folder), "files"),
    ]
    tokens = tokenizer_size(path, checkpoint, complaints)
    numbers = sum(math.prod(tensor.shape) for tensor in unique.values())
    size = size_of(unique)
    vocabulary = "no tokenizer" if tokens is None else f"a tokenizer of {tokens} tokens"
    return Report(complaints, f"{path}: {len(unique)} tensors of {numbers} numbers, {size}, {vocabulary}")


@contextmanager
def told_to(complaints: list[str]) -> Iterator[None]:
    """Collect the warnings of the log instead of showing them."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            complaints.append(record.getMessage())

    log, collector = logging.getLogger("minillama"), Collector(logging.WARNING)
    propagate, log.propagate = log.propagate, False
    log.addHandler(collector)
    try:
        yield
    finally:
        log.removeHandler(collector)
        log.propagate = propagate


def few(complaints: Iterator[str], what: str) -> Iterator[str]:
    """The first complaints, and how many more there are."""
    more = 0
    for number, complaint in enumerate(complaints):
        more = number + 1 - SPELLED
        if more <= 0:
            yield complaint
    if more > 0:
        yield f"and so are {more} more {what}"


def odd_dtype(checkpoint: Checkpoint) -> Iterator[str]:
    """If config.json states another number format than the weights have."""
    stated, true = checkpoint.config.torch_dtype, main_dtype(checkpoint.tensors)
    if stated is not None and stated != true:
        yield f"its config says torch_dtype {stated}, and its weights are in {true}"


def odd_numbers(tensors: dict[str, Tensor], progress: Progress) -> Iterator[str]:
    """Where there are NaN or infinite numbers."""
    for name, tensor in tensors.items():
        first, count, position = None, 0, 0
        # The whole numbers of a quantized matrix are finite
        parts = iter([tensor.float_scales]) if isinstance(tensor, QuantizedTensor) else floats(tensor)
        for x in parts:
            odd = np.flatnonzero(~np.isfinite(x))
            if odd.size and first is None:
                first = (position + int(odd[0]), float(x[odd[0]]))
            count, position = count + odd.size, position + x.size
            progress(x.size)
        if first is not None:
            if isinstance(tensor, QuantizedTensor):
                what = f"scale {first[0]}"
            else:
                what = f"number {[int(i) for i in np.unravel_index(first[0], tensor.shape)]}"
            yield f"{name} has {count} that are NaN or infinite; the first, {what}, is {first[1]}"


def odd_checksums(tensors: dict[str, Tensor], notes: Mapping[str, str]) -> Iterator[str]:
    """Which packed matrices have other bytes than when they were written."""
    for name, tensor in tensors.items():
        note = checksum_note(name)
        if isinstance(tensor, PackedTensor) and note in notes and provenance({name: tensor})[note] != notes[note]:
            yield f"the bytes of {name} have changed since it was packed (CRC-32)"


def odd_settings(folder: Path) -> Iterator[str]:
    """What is wrong with generation_config.json, if there is one."""
    if (folder / GENERATION_CONFIG).exists():
        try:
            GenerationConfig.from_pretrained(folder)
        except (ValueError, OSError) as error:
            yield str(error)


def tokenizer_size(path: Path, checkpoint: Checkpoint, complaints: list[str]) -> int | None:
    """How many tokens there are, if there is a tokenizer; a complaint if weights are missing for some of them."""
    try:
        tokenizer = load_tokenizer(tokenizer_place(path))
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        complaints.append(str(error))
        return None
    size, rows = max(tokenizer.vocab.values(), default=-1) + 1, checkpoint.config.vocab_size
    if size > rows:
        complaints.append(f"its tokenizer has {size} tokens, and its embedding has {rows} rows")
    return size


def odd_files(folder: Path) -> Iterator[str]:
    """Which files are not as SHA256SUMS, if there is one, says."""
    if not (folder / MANIFEST).is_file():
        return
    for line in read_bytes(folder / MANIFEST).decode("utf-8", "replace").splitlines():
        digest, mark, name = line[:64], line[64:66], line[66:]
        if mark not in ("  ", " *") or Path(name).name != name or not (folder / name).is_file():
            yield f"{MANIFEST} has the line {line[:200]!r}, which names no file here"
            continue
        with open(folder / name, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                yield f"{name} is not what {MANIFEST} says: its SHA-256 is another"
