"""The residual stream: what is added to what."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minillama.debug.hypotheses.base import Case, Hypothesis, table
from minillama.debug.names import LAYER
from minillama.debug.steps import How

OUT, DOWN, RESIDUAL, OUTPUT = "self_attn.o_proj", "mlp.down", "residual", "output"

TABLE: dict[str, tuple[str, dict[str, How]]] = {
    "stream.residual_missing": ("the residual connection about attention is missing", {RESIDUAL: lambda s: s[OUT]}),
    "stream.output_missing": ("the residual connection about the MLP is missing", {OUTPUT: lambda s: s[DOWN]}),
    "stream.residual_from_norm": (
        "attention is added to the stream after its norm, not before",
        {RESIDUAL: lambda s: s["input_norm"] + s[OUT]},
    ),
    "stream.output_from_norm": (
        "the MLP is added to the stream after its norm, not before",
        {OUTPUT: lambda s: s["post_attention_norm"] + s[DOWN]},
    ),
    "stream.attention_lost": ("the MLP is added to the stream before attention", {OUTPUT: lambda s: s.x + s[DOWN]}),
    "stream.attention_ignored": ("what attention adds is left out", {RESIDUAL: lambda s: s.x}),
    "stream.mlp_ignored": ("what the MLP adds is left out", {OUTPUT: lambda s: s[RESIDUAL]}),
    "stream.residual_subtracted": ("attention is subtracted from the stream", {RESIDUAL: lambda s: s.x - s[OUT]}),
    "stream.output_subtracted": ("the MLP is subtracted from the stream", {OUTPUT: lambda s: s[RESIDUAL] - s[DOWN]}),
    "stream.residual_doubled": ("the stream is added twice to attention", {RESIDUAL: lambda s: 2 * s.x + s[OUT]}),
    "stream.output_doubled": ("the stream is added twice to the MLP", {OUTPUT: lambda s: 2 * s[RESIDUAL] + s[DOWN]}),
    "stream.input_added_again": (
        "the layer's input is added once more",
        {OUTPUT: lambda s: s.x + s[RESIDUAL] + s[DOWN]},
    ),
}


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    yield from table(TABLE)
    for local, branch, said in ((RESIDUAL, OUT, "attention"), (OUTPUT, DOWN, "the MLP")):
        if case.target.local != local:
            continue
        for other in LAYER:
            if other not in (local, branch) and case.beside(other) is not None:
                yield Hypothesis(
                    "stream.other_branch",
                    f"{other} is added to the stream, and not {branch}",
                    {local: lambda s, b=branch, o=other: (s.x if b == OUT else s[RESIDUAL]) + s[o]},  # type: ignore[misc]
                )
        stream = case.honest.value(case.target) - (added := case.honest.value(case.target._replace(local=branch)))
        if stream.shape == case.theirs.shape and added.any():
            factor = float(np.sum((case.theirs - stream) * added) / np.sum(added * added))  # least squares
            yield Hypothesis(
                "stream.branch_scale",
                f"what {said} adds is multiplied by {factor:.6g}",
                {local: lambda s, b=branch, c=factor: (s.x if b == OUT else s[RESIDUAL]) + c * s[b]},  # type: ignore[misc]
            )
