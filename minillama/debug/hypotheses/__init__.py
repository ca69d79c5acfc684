"""What can be wrong with an implementation, a file a component: each hypothesis says how a step is computed then.

A hypothesis is a key, a sentence and the steps it exchanges. It is tried on the data (minillama/debug/diagnosis.py); to
add one, add a line to a table.
"""

from __future__ import annotations

from collections.abc import Iterator

from minillama.debug.hypotheses import (
    attention,
    buffers,
    cache,
    embedding,
    frequencies,
    head,
    layer,
    mlp,
    norm,
    norm_reads,
    one_by_one,
    part,
    positions,
    precision,
    projection,
    quantization,
    rope,
    stream,
    strides,
    temperature,
)
from minillama.debug.hypotheses.base import Case, Hypothesis

COMPONENTS = (
    *(
        embedding,
        norm,
        norm_reads,
        projection,
        rope,
        frequencies,
        positions,
        attention,
        temperature,
        cache,
        one_by_one,
        strides,
        buffers,
        mlp,
        stream,
        layer,
        head,
    ),
    *(precision, quantization, part),  # any step
)


def hypotheses(case: Case) -> Iterator[Hypothesis]:
    """All that can be tried."""
    for component in COMPONENTS:
        yield from component.hypotheses(case)


__all__ = ["Case", "Hypothesis", "hypotheses"]
