"""Logits to the next id to text: sampling, beam search, stopping, and the one loop that any engine runs in."""

from minillama.generation.config import GenerationConfig
from minillama.generation.engine import Engine
from minillama.generation.loop import Continuation, generate
from minillama.generation.mixin import GenerationMixin
from minillama.generation.processors import (
    LogitsProcessorList,
    MinLengthLogitsProcessor,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)
from minillama.generation.sampling import Sampling
from minillama.generation.search import GenerateOutput
from minillama.generation.stopping import (
    EosTokenCriteria,
    MaxLengthCriteria,
    StoppingCriteriaList,
    StopStringCriteria,
)
from minillama.generation.streamers import TextStreamer

__all__ = [
    "Continuation",
    "Engine",
    "EosTokenCriteria",
    "GenerateOutput",
    "GenerationConfig",
    "GenerationMixin",
    "LogitsProcessorList",
    "MaxLengthCriteria",
    "MinLengthLogitsProcessor",
    "MinNewTokensLengthLogitsProcessor",
    "MinPLogitsWarper",
    "NoBadWordsLogitsProcessor",
    "NoRepeatNGramLogitsProcessor",
    "RepetitionPenaltyLogitsProcessor",
    "Sampling",
    "StopStringCriteria",
    "StoppingCriteriaList",
    "TemperatureLogitsWarper",
    "TextStreamer",
    "TopKLogitsWarper",
    "TopPLogitsWarper",
    "TypicalLogitsWarper",
    "generate",
]
