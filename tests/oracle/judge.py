"""transformers in a process of its own, to be asked for its numbers:  python tests/oracle/judge.py float64|float32

Reads pickled questions from standard input and writes pickled answers to standard output. A process of its own, because
float64 needs transformers' casts to float32 lifted before it is imported, and nobody else may meet a torch like that.
Works with transformers 5 and 4.34.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

Question = dict[str, Any]
Answer = dict[str, Any]


class Judge:
    """The other end of the pipe."""

    def __init__(self, dtype: str):
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, dtype],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        self.version = str(self._receive())  # of transformers

    def ask(self, question: Question) -> list[Answer]:
        """question: "class", "config" (a dictionary), "weights", and "calls": the arguments of one forward after the
        other, on one cache. An answer for each: the fields of what it returned, past_key_values as pairs."""
        assert self._process.stdin is not None
        pickle.dump(question, self._process.stdin)
        self._process.stdin.flush()
        answer = self._receive()
        if isinstance(answer, str):
            raise RuntimeError(f"transformers could not answer: {answer}")
        return answer

    def _receive(self) -> Any:
        assert self._process.stdout is not None
        return pickle.load(self._process.stdout)

    def close(self) -> None:
        self._process.communicate()


def serve(dtype: str) -> None:
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what libraries print must not come between
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.golden.make import lift_casts

    if dtype == "float64":
        lift_casts()
    import torch
    import transformers

    def send(what: Any) -> None:
        pickle.dump(what, answers)
        answers.flush()

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    send(transformers.__version__)
    with torch.no_grad():
        while True:
            try:
                question = pickle.load(questions)
            except EOFError:
                return
            try:
                send(answer(question, torch, transformers))
            except Exception as error:  # whatever it is, the asker is to know
                send(f"{type(error).__name__}: {error}")


def answer(question: Question, torch: Any, transformers: Any) -> list[Answer]:
    dtype = torch.get_default_dtype()
    config = transformers.LlamaConfig(**question["config"])
    kind = getattr(transformers, question["class"])
    four = transformers.__version__.startswith("4.")
    model = kind(config) if four else kind._from_config(config, attn_implementation="eager")
    weights = {name: torch.from_numpy(w).to(dtype) for name, w in question["weights"].items()}
    model.load_state_dict(weights, strict=not config.tie_word_embeddings)
    if config.tie_word_embeddings:
        model.tie_weights()
    model = model.to(dtype).eval()

    past, found = None, []
    for call in question["calls"]:
        tensors = {name: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for name, v in call.items()}
        for name in ("inputs_embeds", "labels"):
            if name in tensors and tensors[name].is_floating_point():
                tensors[name] = tensors[name].to(dtype)
        out = model(**tensors, past_key_values=past, use_cache=True)
        past = out.past_key_values
        pairs = past if four else [(layer.keys, layer.values) for layer in past.layers]
        fields: Answer = {"past_key_values": [(k.numpy().copy(), v.numpy().copy()) for k, v in pairs]}
        for name in ("last_hidden_state", "logits", "loss"):
            if getattr(out, name, None) is not None:
                fields[name] = getattr(out, name).numpy()
        for name in ("hidden_states", "attentions"):
            if getattr(out, name, None) is not None:
                fields[name] = [array.numpy() for array in getattr(out, name)]
        found.append(fields | {"problem_type": config.problem_type})
    return found


if __name__ == "__main__":
    serve(sys.argv[1])
