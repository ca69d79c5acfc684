"""The tokenizer of a model, wherever it is: in files of its own, or in the file of the weights."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from minillama.config import read_json_object
from minillama.files import write_files
from minillama.tokenizer import AutoTokenizer, LlamaTokenizer, LlamaTokenizerFast, Tokenizer
from minillama.tokenizer.loading import TOKENIZER_FILES
from minillama.tokenizer.settings import CONFIG, TEMPLATE, more_templates, read_settings, template_list
from minillama.vocabulary import gguf_files, is_gguf

log = logging.getLogger("minillama")


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer in a folder (tokenizer.json, else tokenizer.model, else that of its GGUF file, else tokenizer.bin),
    or in a file of one of these kinds. Where a GGUF file has none, files beside it are taken.

    Raises FileNotFoundError, OSError or ValueError that names the file.
    """
    place = Path(path)
    if place.is_dir() and not any((place / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
        files = gguf_files(place)
        place = files[0] if len(files) == 1 else place
    if not is_gguf(place):
        return AutoTokenizer.from_pretrained(place)
    from minillama.tokenizer.from_pieces import from_pieces
    from minillama.weights.gguf_vocabulary import gguf_vocabulary

    vocabulary = gguf_vocabulary(place)
    if vocabulary is None:
        return AutoTokenizer.from_pretrained(place.parent)
    try:
        return from_pieces(vocabulary)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def tokenizer_place(weights: Path) -> Path:
    """Where the tokenizer that belongs to a folder or a file of weights is: in a GGUF file itself, else beside it."""
    return weights if weights.is_dir() or is_gguf(weights) else weights.parent


def write_tokenizer(tokenizer: Tokenizer, place: Path, folder: Path) -> list[str]:
    """Write the tokenizer that load_tokenizer has found in `place` as files as Hugging Face keeps them; their names.

    Where it is in such files they are copied, else they are made. OSError that names the file.
    """
    beside = place if place.is_dir() else place.parent
    if not is_gguf(place) and any((beside / name).exists() for name in ("tokenizer.json", "tokenizer_config.json")):
        files = {name: (beside / name).read_bytes() for name in TOKENIZER_FILES if (beside / name).is_file()}
        if more_templates(beside):  # in a folder, which older programs do not read: into the settings with them
            settings = read_json_object(beside / CONFIG, "settings of a tokenizer") if CONFIG in files else {}
            settings["chat_template"] = template_list(read_settings(beside)["chat_template"])
            files[CONFIG] = (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode()
            files.pop(TEMPLATE, None)
        older = more_templates(folder) if folder.resolve() != beside.resolve() else []
        write_files({folder / name: contents for name, contents in files.items()}, remove=older)
        return list(files)
    written = tokenizer.save_pretrained(folder)
    if isinstance(tokenizer, LlamaTokenizer):
        try:  # a tokenizer.json too
            written += LlamaTokenizerFast.from_pretrained(folder).save_pretrained(folder)
        except ValueError as error:
            log.warning("no tokenizer.json is made: %s", error)
    return list(dict.fromkeys(Path(file).name for file in written))
