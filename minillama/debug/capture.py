"""Recording another program's model: one of transformers' Llama classes, or any with the same modules.

    with capture(model) as trace, torch.no_grad():
        model(torch.tensor([[1, 306, 4658]]))
    trace.save("theirs.safetensors")

Works by forward hooks on the modules, and by standing in for the function that turns queries and keys. PyTorch is not
imported here: whoever has such a model has it. Load the model with attn_implementation="eager" to have probabilities.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np

from minillama.arrays import Array
from minillama.config import LlamaConfig
from minillama.debug.mapping import mapped, read_mapping
from minillama.debug.names import prefix
from minillama.debug.traces import Trace

INPUTS = ("self_attn.o_proj", "post_attention_layernorm", "mlp.down_proj")  # what goes into them has a name too
ROTATES = "apply_rotary_pos_emb"  # what the function is called in transformers' modules


@contextmanager
def capture(
    model: Any, config: LlamaConfig | None = None, mapping: str = "transformers", steps: Collection[int] | None = (0,)
) -> Iterator[Trace]:
    """A trace of the calls of `model` within the block, complete when it ends.

    model: a torch.nn.Module with the modules of transformers' LlamaForCausalLM. config: by default that of
    model.config. mapping: what the names of modules and their layouts mean (minillama/debug/mapping.py). steps: which
    calls are kept, the first being 0, None for all; call n has its names behind `step.n.`. Numbers are kept as float32,
    or as float64 where they are that. Ids are noted if the calls are given them, first or as input_ids.
    """
    config = config or LlamaConfig.from_dict(model.config.to_dict())
    kept = _Kept({}, steps)
    trace = Trace(kept.raw, config=config, source="the captured model")
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            hooks.callback(module.register_forward_hook(partial(_came_out, kept, name)).remove)
            if name.endswith(INPUTS):
                hooks.callback(module.register_forward_pre_hook(partial(_went_in, kept, name)).remove)
        hooks.callback(model.register_forward_pre_hook(partial(_called, kept, trace), with_kwargs=True).remove)
        _watch_rotation(model, kept, hooks)
        yield trace
    named = mapped(trace, read_mapping(mapping), config)
    trace.tensors = dict(named.tensors)


class _Kept:
    """What has been seen, and of which call."""

    def __init__(self, raw: dict[str, Array], steps: Collection[int] | None):
        self.raw, self._steps, self.step, self.rotations = raw, steps, -1, 0

    def begin(self) -> None:
        self.step, self.rotations = self.step + 1, 0

    def keep(self, name: str, tensor: Any) -> None:
        """The first of a name in a call counts."""
        if self._steps is None or self.step in self._steps:
            self.raw.setdefault(prefix(self.step) + name, _numbers(tensor))


def _came_out(kept: _Kept, name: str, module: Any, given: Any, out: Any) -> None:
    """Keep what a module gave: its first tensor, and of attention the probabilities too."""
    first, *rest = out if isinstance(out, tuple) else (out,)
    if name.endswith("self_attn") and rest and rest[0] is not None:
        kept.keep(f"{name}.probs", rest[0])
    elif hasattr(first, "detach"):
        kept.keep(name, first)


def _went_in(kept: _Kept, name: str, module: Any, given: Any) -> None:
    kept.keep(f"{name}.input", given[0])


def _called(kept: _Kept, trace: Trace, module: Any, given: Any, named: Any) -> None:
    kept.begin()
    ids = given[0] if given else named.get("input_ids")
    if ids is not None and len(trace.input_ids) == kept.step:
        trace.input_ids.append(np.array(ids.detach().cpu().numpy(), np.int64))


def _watch_rotation(model: Any, kept: _Kept, hooks: ExitStack) -> None:
    """Have the module that defines the model's class call a rotation that is watched. It is called once a layer, in the
    order of the layers."""
    home = sys.modules[type(model).__module__]
    rotates: Callable[..., Any] | None = getattr(home, ROTATES, None)
    if rotates is None:
        return

    def watched(*args: Any, **named: Any) -> Any:
        q, k = rotates(*args, **named)
        kept.keep(f"model.layers.{kept.rotations}.self_attn.q_rope", q)
        kept.keep(f"model.layers.{kept.rotations}.self_attn.k_rope", k)
        kept.rotations += 1
        return q, k

    setattr(home, ROTATES, watched)
    hooks.callback(setattr, home, ROTATES, rotates)


def _numbers(tensor: Any) -> Array:
    """A copy of a tensor's numbers: float32, which holds bfloat16 and float16 exactly, or float64."""
    wide = tensor.detach().cpu()
    wide = wide if str(wide.dtype) == "torch.float64" else wide.float()
    return np.array(wide.numpy())
