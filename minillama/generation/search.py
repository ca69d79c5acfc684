"""Ways to search for a continuation: the likeliest id each time, drawn ids, or several beams at once.

Both classes are driven by minillama.generation.loop: `step` takes the logits of the rows at hand, and says which go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from minillama.arrays import Array
from minillama.fields import ModelOutput
from minillama.generation.config import GenerationConfig
from minillama.generation.processors import LogitsProcessorList
from minillama.generation.sampling import check_choice, draw, log_softmax
from minillama.generation.stopping import StoppingCriteriaList

NEVER = -1e9  # the score of a beam that is not there


class Streamer(Protocol):
    """Is shown the ids as they come: the prompts (B, T) first, then one id (B,) for each row at a time."""

    def put(self, value: Array) -> None: ...
    def end(self) -> None: ...


@dataclass(eq=False)
class GenerateOutput(ModelOutput):
    """What `generate` returns with return_dict_in_generate. R rows: the prompts times num_return_sequences, one after
    the other.

    sequences: ids (R, L), the prompt first. scores, logits: of each step, after and before the processors, one row
    (V,) a sequence or beam; those of beams are log probabilities, and those of sequences that have ended count for
    nothing. sequences_scores: (R,), of beam search: the sum of log probabilities over length ** length_penalty.
    beam_indices: (R, L - T), the row of `scores` that each id was chosen from, -1 after the end.
    """

    sequences: Array
    sequences_scores: Array | None = None
    scores: tuple[Array, ...] | None = None
    logits: tuple[Array, ...] | None = None
    beam_indices: Array | None = None


class _Search:
    """What every search has: the rows so far, what to do with their logits, and what to keep of them.

    ids: (R, T), padding on the left. pad: what fills rows that end before others.
    """

    def __init__(
        self,
        ids: Array,
        config: GenerationConfig,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
        pad: int,
    ):
        self.ids, self.prompt_length = ids, ids.shape[1]
        self.config, self.processors, self.criteria, self.pad = config, processors, criteria, pad
        self._scores: tuple[Array, ...] | None = () if config.output_scores else None
        self._logits: tuple[Array, ...] | None = () if config.output_logits else None

    def _processed(self, logits: Array, scores: Array) -> Array:
        """Scores (R, V) as the processors leave them; both are kept if asked for."""
        if self._logits is not None:
            self._logits += (logits.copy(),)
        scores = self.processors(self.ids, scores)
        if self._scores is not None:
            self._scores += (scores.copy(),)
        return scores

    def _generators(self, count: int) -> list[np.random.Generator]:
        """One for each row, so that what a row gets does not depend on how long others run."""
        return [np.random.default_rng([self.config.seed, number]) for number in range(count)]


class Sampler(_Search):
    """The likeliest id each time, or with do_sample one that is drawn. Rows that have ended leave the engine."""

    def __init__(
        self,
        ids: Array,
        config: GenerationConfig,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
        pad: int,
        streamer: Streamer | None = None,
    ):
        super().__init__(ids, config, processors, criteria, pad)
        self.streamer = streamer
        self._active = np.arange(len(ids))
        self._rngs = self._generators(len(ids))

    def step(self, logits: Array) -> tuple[Sequence[int], Array]:
        R = len(self.ids)
        everywhere = np.zeros((R, logits.shape[1]), logits.dtype)
        everywhere[self._active] = logits
        scores = self._processed(everywhere, everywhere)[self._active]
        check_choice(scores)
        if self.config.do_sample:
            chosen = np.array([draw(row, self._rngs[number]) for number, row in zip(self._active, scores, strict=True)])
        else:
            chosen = scores.argmax(axis=1)
        following = np.full(R, self.pad)
        following[self._active] = chosen
        self.ids = np.concatenate((self.ids, following[:, None]), axis=1)
        if self.streamer is not None:
            self.streamer.put(following)
        going = np.flatnonzero(~self.criteria(self.ids, self._scores)[self._active])
        self._active = self._active[going]
        return going.tolist(), chosen[going]

    def output(self) -> GenerateOutput:
        return GenerateOutput(self.ids, None, self._scores, self._logits)


class _Hypothesis(NamedTuple):
    """A continuation that has ended."""

    score: float
    ids: Array  # (L,)
    beams: Array  # (L - T,) the rows its ids were chosen from


class BeamSearch(_Search):
    """The num_beams best beginnings of each prompt go on side by side; the best that have ended are the result.

    Each step looks at the best continuations of all beams of a prompt, enough that num_beams of them do not end; with
    do_sample they are drawn without replacement. Of the first num_beams, those that end are finished. The last step
    finishes all. Graves 2012; the penalty for length is that of Wu et al. 2016 without its constant.
    """

    def __init__(
        self,
        ids: Array,
        config: GenerationConfig,
        processors: LogitsProcessorList,
        criteria: StoppingCriteriaList,
        pad: int,
    ):
        B, K = len(ids), config.num_beams
        super().__init__(np.repeat(ids, K, axis=0), config, processors, criteria, pad)
        self._prompts, self._rngs = ids, self._generators(B)
        self._beams = np.zeros((B * K, 0), np.int64)  # the rows that the ids of each beam were chosen from
        self._totals = np.full((B, K), NEVER)  # log probabilities; at first the beams of a prompt are all the same
        self._totals[:, 0] = 0
        self._finished: list[list[_Hypothesis]] = [[] for _ in range(B)]  # the best first
        self._over = np.zeros(B, bool)

    def step(self, logits: Array) -> tuple[Sequence[int], Array]:
        (B, K), V = self._totals.shape, logits.shape[1]
        check_choice(logits)
        log_probs = self._processed(logits, log_softmax(logits))
        totals = (self._totals[:, :, None] + log_probs.reshape(B, K, V)).reshape(B, K * V)
        check_choice(totals[~self._over])
        places = np.array([self._candidates(row, rng) for row, rng in zip(totals, self._rngs, strict=True)])  # (B, N)
        totals = np.take_along_axis(totals, places, axis=1)
        origins, following = places // V + K * np.arange(B)[:, None], places % V
        ids = np.concatenate((self.ids[origins], following[:, :, None]), axis=2)  # (B, N, T + 1)
        beams = np.concatenate((self._beams[origins], origins[:, :, None]), axis=2)
        ended = self.criteria(ids.reshape(-1, ids.shape[2]), self._scores).reshape(places.shape)

        going = np.argsort(-(totals + NEVER * ended), axis=1, kind="stable")[:, :K]
        self._totals = np.take_along_axis(totals + NEVER * ended, going, axis=1)
        for b in np.flatnonzero(~self._over).tolist():
            self._finish(b, totals[b], ids[b], beams[b], ended[b])
            self._over[b] = ended[b].all() or self._is_over(b, beams.shape[2])
        self.ids = np.take_along_axis(ids, going[:, :, None], axis=1).reshape(B * K, -1)
        self._beams = np.take_along_axis(beams, going[:, :, None], axis=1).reshape(B * K, -1)
        if self._over.all():
            return [], following[:0, 0]
        return self._beams[:, -1].tolist(), self.ids[:, -1]

    def _candidates(self, totals: Array, rng: np.random.Generator) -> Array:
        """The places in totals (K * V,) to look at, the best first, or in the order they are drawn."""
        ends = self.config.eos_token_id
        count = max(2, 1 + (len(ends) if isinstance(ends, list) else 1)) * self.config.num_beams
        if self.config.do_sample:  # the largest after Gumbel noise are draws without replacement (Vieira 2014)
            totals = totals + rng.gumbel(size=totals.shape)
        count = min(count, len(totals))
        least = np.partition(totals, -count)[-count]
        places = np.flatnonzero(totals >= least)
        return places[np.argsort(-totals[places], kind="stable")][:count]

    def _finish(self, b: int, totals: Array, ids: Array, beams: Array, ended: Array) -> None:
        """Note those of the first num_beams candidates of a prompt that have ended, and keep the best num_beams."""
        K, length = self.config.num_beams, beams.shape[1]
        for i in np.flatnonzero(ended[:K]):
            score = float(totals[i] / length**self.config.length_penalty)
            self._finished[b].append(_Hypothesis(score, ids[i], beams[i]))
        self._finished[b] = sorted(self._finished[b], key=lambda one: -one.score)[:K]

    def _is_over(self, b: int, length: int) -> bool:
        """Whether a prompt has num_beams finished continuations, and by early_stopping no better one is to come."""
        early, penalty, finished = self.config.early_stopping, self.config.length_penalty, self._finished[b]
        best = float(self._totals[b, 0])  # of those that go on
        if len(finished) < self.config.num_beams:
            return best <= NEVER  # none goes on
        if early == "never" and penalty > 0:
            length = self.config.max_length - self.prompt_length
        return early is True or bool(best / length**penalty <= finished[-1].score)

    def output(self) -> GenerateOutput:
        count = self.config.num_return_sequences
        best = []
        for prompt, finished in zip(self._prompts, self._finished, strict=True):
            # Where so little was allowed that fewer have ended, the prompt alone stands for the others
            nothing = _Hypothesis(NEVER, prompt, np.zeros(0, np.int64))
            best += (finished + [nothing] * count)[:count]
        width = max(len(one.beams) for one in best)
        sequences = np.full((len(best), self.prompt_length + width), self.pad)
        beam_indices = np.full((len(best), width), -1)
        for i, one in enumerate(best):
            sequences[i, : len(one.ids)], beam_indices[i, : len(one.beams)] = one.ids, one.beams
        scores = np.array([one.score for one in best]) if self.config.output_scores else None
        return GenerateOutput(sequences, scores, self._scores, self._logits, beam_indices)
