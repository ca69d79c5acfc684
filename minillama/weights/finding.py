"""Which file, or which index of several, a path means."""

from __future__ import annotations

import os
import re
from pathlib import Path

from minillama.messages import listed
from minillama.vocabulary import gguf_files, is_gguf
from minillama.weights.llama2c import is_llama2c
from minillama.weights.meta import shard_files
from minillama.weights.training import in_pieces

INDEX = "model.safetensors.index.json"
TORCH_INDEX = "pytorch_model.bin.index.json"
TORCH = (".pth", ".pt", ".bin", ".ckpt")
# What training programs keep beside the weights
NO_WEIGHTS = re.compile(r"(optimizer|scheduler|scaler|training_args|random_states|rng_state)\w*\.(pth|pt|bin|pkl)")


def find_weights(path: str | os.PathLike[str]) -> Path:
    """The file of weights or the index that `path` means."""
    place = Path(path)
    if os.path.isdir(place):  # unlike Path.is_dir, never raises, as it would for a name that is too long
        for name in ("model.safetensors", INDEX, "pytorch_model.bin", TORCH_INDEX):
            if (place / name).exists():
                return place / name
        if shards := shard_files(place):
            return shards[0]
        pickles = (file for ending in (".pth", ".pt", ".ckpt") for file in place.glob(f"*{ending}"))
        singles = sorted(place.glob("*.safetensors")) or sorted(f for f in pickles if not NO_WEIGHTS.fullmatch(f.name))
        if len(singles) == 1:
            return singles[0]
        if singles:
            raise FileNotFoundError(
                f"{place} has {len(singles)} {singles[0].suffix} files and no {INDEX} to say what is where: get the "
                "index too, or name one of them"
            )
        ggufs = gguf_files(place)
        if len(ggufs) == 1:
            return ggufs[0]
        if ggufs:
            raise FileNotFoundError(f"{place} has {len(ggufs)} .gguf files: name one of them")
        exports = [file for file in sorted(place.glob("*.bin")) if is_llama2c(file, certainly=True)]
        if len(exports) == 1:
            return exports[0]
        if exports:
            raise FileNotFoundError(
                f"{place} has several llama2.c files, {listed(file.name for file in exports)}: name one of them"
            )
        if what := in_pieces(place):
            raise FileNotFoundError(f"{place} has {what}")
        others = sorted(file.name for file in place.glob("*.bin") if not NO_WEIGHTS.fullmatch(file.name))
        hint = f"; if {others[0]} holds the weights, name that file" if others else ""
        raise FileNotFoundError(f"{place} has no model.safetensors and no {INDEX}{hint}")
    if os.path.exists(place):
        indices = (".safetensors.index.json", ".bin.index.json")
        if place.suffix not in (".safetensors", *TORCH) and not place.name.endswith(indices) and not is_gguf(place):
            raise ValueError(
                f"{place} is not a .safetensors, .gguf, .pth, .pt, .ckpt or .bin file, an index, or a folder that has "
                "one"
            )
        index = place.parent / (INDEX if place.suffix == ".safetensors" else TORCH_INDEX)
        one_of_several = re.search(r"-\d{5}-of-\d{5}\.(safetensors|bin)$", place.name)
        return index if one_of_several and index.exists() else place
    if re.fullmatch(r"[\w.-]+/[\w.-]+", str(path)) and not place.parent.exists():
        raise FileNotFoundError(
            f"{path} is not here, and minillama downloads nothing: if that is a model's name on a hub, get its files "
            f"first (for example `hf download {path} --local-dir model`) and name the folder"
        )
    raise FileNotFoundError(f"{place} does not exist: name a checkpoint folder or a file of weights")
