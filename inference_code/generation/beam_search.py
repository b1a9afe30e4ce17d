"""Greedy and beam search over an encoder graph and a step graph: the host's part of decoding.

The tokens are those of transformers' `generate` with the same settings. What `Settings` does not name (sampling,
penalties of repetition, several answers a text, constraints) is not supported and has no field that could be set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional

from inference_code.errors import BadRequest
from inference_code.generation import Graph

_CROSS = ("cross_keys", "cross_values", "cross_visible")


@dataclass(frozen=True)
class Settings:
    """The options of a generation, named and meant as in transformers' GenerationConfig.

    max_length counts the start token and the end. Single tokens of bad_words are never chosen. Versions of
    transformers differ in one case, early_stopping without forced_eos, when a row gets its last ended text in the very
    step that reaches max_length: here, as in 4.44, texts cut off in that step do not compete; in 4.57 they do.
    """

    start: int
    end: int
    padding: int
    max_length: int
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False
    min_length: int = 0
    forced_bos: int | None = None
    forced_eos: int | None = None
    bad_words: tuple[int, ...] = ()
    no_repeat_ngram_size: int = 0

    def check(self, target: int) -> None:
        """Raises BadRequest when a graph with `target` places cannot hold such a text, or for less than one beam."""
        if not 2 <= self.max_length <= target + 1:
            raise BadRequest(
                f"max_length {self.max_length} does not fit a model of {target} places; give 2 to {target + 1}"
            )
        if self.num_beams < 1:
            raise BadRequest(f"num_beams is {self.num_beams}; give 1 for greedy search, or more")


def generate(
    graphs: Mapping[str, Graph],
    inputs: Mapping[str, torch.Tensor],
    settings: Settings,
    *,
    places: int,
    cache: Mapping[str, torch.Tensor],
) -> list[list[int]]:
    """Token lists, one a row of `inputs`, with the start token and, where the text ended, the end token.

    graphs: "encoder" and "step". inputs: the encoder's. places: of the step. cache: before the first step, of one row
    (nothing for a step that computes the whole prefix). The step runs with rows x num_beams.
    """
    settings.check(places)
    cross = {name: value for name, value in graphs["encoder"](**inputs).items() if name in _CROSS}
    rows = cross["cross_visible"].shape[0]
    wide = {name: value.repeat_interleave(settings.num_beams, 0) for name, value in cross.items()}
    start = {name: value.expand(rows * settings.num_beams, *value.shape[1:]) for name, value in cache.items()}
    state = _State(graphs["step"], wide, start, places, settings)
    return _greedy(state, rows) if settings.num_beams == 1 else _beams(state, rows)


def slots(place: int, places: int, rows: int) -> torch.Tensor:
    """float32 (rows, places), 1 at `place`: marks for the graphs where they write."""
    return functional.one_hot(torch.full((rows,), place), places).float()


class _State:
    """The texts so far and their caches; rows can be reordered between steps."""

    def __init__(
        self,
        step: Graph,
        cross: Mapping[str, torch.Tensor],
        cache: Mapping[str, torch.Tensor],
        places: int,
        settings: Settings,
    ) -> None:
        self.step, self.cross, self.settings, self.places = step, cross, settings, places
        self.cache = dict(cache)
        self.texts = [[settings.start] for _ in range(cross["cross_visible"].shape[0])]

    @property
    def length(self) -> int:
        """How many tokens each text has."""
        return len(self.texts[0])

    def logits(self) -> torch.Tensor:
        """Logits of the next token, (rows, vocabulary); the last token is written to the cache where there is one."""
        place = self.length - 1
        slot = slots(place, self.places, len(self.texts))
        if self.cache:
            tokens = {"token": torch.tensor([[text[place]] for text in self.texts])}
        else:
            empty = [self.settings.padding] * (self.places - self.length)
            tokens = {"tokens": torch.tensor([[*text, *empty] for text in self.texts])}
        answer = dict(self.step(**tokens, slot=slot, **self.cross, **self.cache))
        logits = answer.pop("logits")
        self.cache = answer
        return logits

    def extend(self, tokens: list[int], sources: list[int] | None = None) -> None:
        """One token more a text; text i continues text sources[i]."""
        if sources is not None:
            order = torch.tensor(sources)
            self.cache = {name: value.index_select(0, order) for name, value in self.cache.items()}
            self.texts = [self.texts[source] for source in sources]
        self.texts = [[*text, token] for text, token in zip(self.texts, tokens, strict=True)]

    def allowed(self, scores: torch.Tensor) -> torch.Tensor:
        """Scores with -inf where the settings forbid a token; transformers' processors in their order."""
        settings, scores = self.settings, scores.clone()
        for row, text in enumerate(self.texts):
            scores[row, _repeating(text, settings.no_repeat_ngram_size)] = -math.inf
        scores[:, list(settings.bad_words)] = -math.inf
        if self.length < settings.min_length:
            scores[:, settings.end] = -math.inf
        if settings.forced_bos is not None and self.length == 1:
            scores = _only(scores, settings.forced_bos)
        if settings.forced_eos is not None and self.length == settings.max_length - 1:
            scores = _only(scores, settings.forced_eos)
        return scores


def _only(scores: torch.Tensor, token: int) -> torch.Tensor:
    forced = torch.full_like(scores, -math.inf)
    forced[:, token] = 0
    return forced


def _repeating(text: list[int], size: int) -> list[int]:
    """Tokens that would complete an n-gram that the text has already."""
    if size == 0 or len(text) + 1 < size:
        return []
    prefix = text[len(text) - size + 1 :]
    starts = range(len(text) - size + 1)
    return [text[start + size - 1] for start in starts if text[start : start + size - 1] == prefix]


def _greedy(state: _State, rows: int) -> list[list[int]]:
    settings = state.settings
    ended = [False] * rows
    while state.length < settings.max_length and not all(ended):
        best = state.allowed(state.logits()).argmax(-1).tolist()
        tokens = [settings.padding if over else token for token, over in zip(best, ended, strict=True)]
        state.extend(tokens)
        ended = [over or token == settings.end for token, over in zip(tokens, ended, strict=True)]
    return [_until_end(text, settings) for text in state.texts]


def _until_end(text: list[int], settings: Settings) -> list[int]:
    for place, token in enumerate(text[1:], 1):  # the start token may be the end token
        if token == settings.end:
            return text[: place + 1]
    return text


class _Finished:
    """The best ended texts of one row, by their log probability over length ** length_penalty."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.texts: list[tuple[float, list[int]]] = []
        self.done = False

    def add(self, total: float, text: list[int], length: int) -> None:
        """Keep a text of `length` generated tokens if it is among the num_beams best."""
        self.texts.append((total / length**self.settings.length_penalty, text))
        self.texts.sort(key=lambda entry: -entry[0])  # stable: the older of two equals stays first
        del self.texts[self.settings.num_beams :]

    def check(self, best_running: float, length: int) -> None:
        """Done when enough texts have ended and no running one can still win (or none is asked to)."""
        if len(self.texts) >= self.settings.num_beams:
            reachable = best_running / length**self.settings.length_penalty
            self.done = self.done or self.settings.early_stopping or self.texts[-1][0] >= reachable


def _beams(state: _State, rows: int) -> list[list[int]]:
    settings, beams = state.settings, state.settings.num_beams
    finished = [_Finished(settings) for _ in range(rows)]
    totals = torch.full((rows, beams), -1e9)
    totals[:, 0] = 0  # all beams are the same text at first: only one of them may speak
    while state.length < settings.max_length and not all(row.done for row in finished):
        scores = state.allowed(torch.log_softmax(state.logits(), -1)) + totals.view(-1, 1)
        best, choices = scores.view(rows, -1).topk(2 * beams, -1)
        vocabulary = scores.shape[-1]
        chosen = [
            _advance(state, finished[row], best[row].tolist(), choices[row].tolist(), vocabulary, row)
            for row in range(rows)
        ]
        totals = torch.tensor([[total for total, _, _ in row] for row in chosen])
        flat = [entry for row in chosen for entry in row]
        state.extend([token for _, token, _ in flat], [source for _, _, source in flat])
    return [_winner(state, finished[row], totals[row].tolist(), row) for row in range(rows)]


def _advance(
    state: _State, finished: _Finished, best: list[float], choices: list[int], vocabulary: int, row: int
) -> list[tuple[float, int, int]]:
    """The next beams of one row as (total, token, text that is continued); ended texts go to `finished`."""
    settings, beams = state.settings, state.settings.num_beams
    if finished.done:
        return [(0.0, settings.padding, row * beams)] * beams
    running: list[tuple[float, int, int]] = []
    length = state.length  # generated tokens, the new one included, the start token not
    for rank, (total, choice) in enumerate(zip(best, choices, strict=True)):
        source, token = row * beams + choice // vocabulary, choice % vocabulary
        if token != settings.end:
            running.append((total, token, source))
        elif rank < beams:
            finished.add(total, [*state.texts[source], token], length)
        if len(running) == beams:
            break
    finished.check(best[0], length)
    return running


def _winner(state: _State, finished: _Finished, totals: list[float], row: int) -> list[int]:
    """The best text of a row; texts that were cut off by max_length compete too, unless the row was done."""
    if not finished.done:
        for beam, total in enumerate(totals):
            text = state.texts[row * state.settings.num_beams + beam]
            finished.add(total, text, len(text) - 1)
    return finished.texts[0][1]
