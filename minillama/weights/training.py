"""Checkpoints as training programs save them: where the weights lie, and what their names begin with."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from minillama.weights.torch_names import Strided

# Under which training programs keep the weights; composer, for one, has a dictionary of dictionaries
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "model_state", "state")
MODEL_ARGS = "model_args"  # llama2.c keeps there what Meta has in params.json
DEEPEST = 3  # of such dictionaries in each other
# What torch.compile, FSDP, activation checkpointing and DeepSpeed put into a name
_WITHIN = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
_ANCHOR = re.compile(r"(.*?)(?:model\.)?(?:embed_tokens|tok_embeddings)\.weight")


def weights_in(values: Any, depth: int = 0) -> dict[str, Strided]:
    """The dictionary of tensors: the whole, or the one in it that has the weights. ValueError where none or more than
    one may be meant. Numbers that are tensors, such as a loss, do not count as weights."""
    if type(values) is not dict:
        raise ValueError(f"it holds a {type(values).__name__}, not a dictionary of tensors (as model.state_dict() is)")
    if "param_groups" in values and "state" in values:
        raise ValueError("it is the state of an optimizer, and the weights are in another file: name that")
    # One dictionary may be there very often, under many keys: each is looked through once
    parts = {id(value): _tensors_of(value) for value in {id(value): value for value in values.values()}.values()}
    inner = {key: parts[id(value)] for key, value in values.items() if parts[id(value)]}
    outer = _tensors_of(values)
    usual = [key for key in WRAPPERS if key in inner]
    if len(usual) == 1 and not any("." in str(name) for name in outer):
        return inner[usual[0]]  # beside random states and the like
    if outer and not inner:
        return _tensors_of(values, lone=True)
    deeper = [key for key in WRAPPERS if type(values.get(key)) is dict]
    if not outer and not inner and len(deeper) == 1 and depth < DEEPEST:
        return weights_in(values[deeper[0]], depth + 1)
    if not inner and (numbers := _tensors_of(values, lone=True)):
        return numbers
    if outer or usual or len(inner) != 1:
        raise ValueError(
            f"it holds {len(inner) + bool(outer)} dictionaries of tensors, and which are the weights is not clear "
            "(model.state_dict() has them alone)"
        )
    return next(iter(inner.values()))


def check_not_empty(tensors: Mapping[str, Strided]) -> None:
    """ValueError for what is left where DeepSpeed has cut the weights into pieces."""
    if any(name.endswith(".weight") for name in tensors) and all(0 in tensor.shape for tensor in tensors.values()):
        raise ValueError(
            "its tensors are empty: DeepSpeed (ZeRO-3) has the weights in other files, and zero_to_fp32.py in that "
            "folder puts them together"
        )


def settings_in(values: Any) -> dict[str, Any]:
    """What a file says of its model beside the weights, plain numbers only."""
    args = values.get(MODEL_ARGS) if type(values) is dict else None
    if type(args) is not dict:
        return {}
    return {key: value for key, value in args.items() if type(value) in (int, float, bool, type(None))}


def unwrapped(names: Iterable[str]) -> Callable[[str], str]:
    """What makes a model's own names of those that wrappers have given: without their marks, and without the name that
    a program (Lightning, DDP ...) has the model under."""
    plain = [_WITHIN.sub("", name) for name in names]
    prefixes = {match[1] for name in plain if (match := _ANCHOR.fullmatch(name))}
    prefix = prefixes.pop() if len(prefixes) == 1 else ""
    return lambda name: _WITHIN.sub("", name).removeprefix(prefix)


def in_pieces(folder: Path) -> str | None:
    """What a folder has where the processes of a training run have each saved their own part; None if nothing is."""
    if (folder / ".metadata").exists() or any(folder.glob("*.distcp")) or any(folder.glob("*/*.distcp")):
        return (
            "a checkpoint of torch.distributed in pieces: `python -m torch.distributed.checkpoint.format_utils "
            "dcp_to_torch FOLDER OUT.pt` makes one file of it"
        )
    if (folder / "zero_to_fp32.py").exists() or any(folder.glob("*_optim_states.pt")):
        return "a checkpoint of DeepSpeed in pieces: its zero_to_fp32.py makes one file of weights of it"
    return None


def _tensors_of(value: Any, lone: bool = False) -> dict[str, Strided]:
    """The tensors of a dictionary; lone: single numbers that no module has, too."""
    tensors = value.items() if type(value) is dict else ()
    return {name: x for name, x in tensors if type(x) is Strided and (lone or x.shape or "." in str(name))}
