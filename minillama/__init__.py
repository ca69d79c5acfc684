"""minillama: LLaMA as readable NumPy. The folders follow the way of the data:

text -> tokenizer -> ids (B, T)
     -> embedding (B, T, D)
     -> [ rms_norm -> attention( rope, cache ) -> + -> rms_norm -> swiglu mlp -> + ] x L
     -> rms_norm -> head -> logits (B, T, V) -> sampling -> id -> tokenizer -> text

    config.py      LlamaConfig: the sizes and settings of a model
    tokenizer/     text <-> ids
    model/         THE MODEL: norm, rope, attention, cache, mlp, decoder, heads; a file each
    kernels/       its Numba twins, by the same names; runtime/ makes an engine of them
    weights/       checkpoints in and out: tensor names, files, number formats
    generation/    logits -> next id -> text
    loading.py     the tokenizer of a model, wherever it is
    llama.py       LlamaModel, LlamaForCausalLM, LlamaForSequenceClassification, which tie them together
    generate.py    python -m minillama.generate, and with --chat a conversation (chat.py)
    convert.py     python -m minillama.convert (converting.py, checking.py, staging.py)
    bench.py       python -m minillama.bench: how fast it is, beside others (benchmarks/)
    trace.py       python -m minillama.trace: every intermediate of a run, in a file (debug/)
    compare.py     python -m minillama.compare: where another implementation parts from it, and why (debug/)
    evaluate.py    python -m minillama.evaluate: perplexity, and how far other weights are from it (debug/)
    testing/       properties that any LLaMA must have, and a suite that tries another implementation
    notebooks.py   python -m minillama.notebooks: the course, to work through
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from minillama.config import LlamaConfig as LlamaConfig
    from minillama.generation import GenerationConfig as GenerationConfig
    from minillama.generation import TextStreamer as TextStreamer
    from minillama.llama import LlamaForCausalLM as LlamaForCausalLM
    from minillama.llama import LlamaForSequenceClassification as LlamaForSequenceClassification
    from minillama.llama import LlamaModel as LlamaModel
    from minillama.loading import load_tokenizer as load_tokenizer
    from minillama.shipped import tale_model as tale_model
    from minillama.tokenizer import AutoTokenizer as AutoTokenizer
    from minillama.tokenizer import LlamaTokenizer as LlamaTokenizer
    from minillama.tokenizer import LlamaTokenizerFast as LlamaTokenizerFast

_HOMES = {
    "AutoTokenizer": "minillama.tokenizer",
    "GenerationConfig": "minillama.generation",
    "LlamaConfig": "minillama.config",
    "LlamaForCausalLM": "minillama.llama",
    "LlamaForSequenceClassification": "minillama.llama",
    "LlamaModel": "minillama.llama",
    "LlamaTokenizer": "minillama.tokenizer",
    "LlamaTokenizerFast": "minillama.tokenizer",
    "TextStreamer": "minillama.generation",
    "load_tokenizer": "minillama.loading",
    "tale_model": "minillama.shipped",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that `import minillama` costs next to nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'minillama' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
