"""PARSeq's loop on the host: spell a text a character at a time, then refine all characters at once.

The logits are those of the original decoding (github.com/baudm/parseq), which grows its inputs instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from inference_code.generation import Graph
from inference_code.generation.beam_search import slots


@dataclass(frozen=True)
class Alphabet:
    """The special tokens, the places of the longest text with its end, and how often a text is refined."""

    end: int
    beginning: int
    padding: int
    places: int
    refinements: int


def spell(
    graphs: Mapping[str, Graph],
    pixel_values: torch.Tensor,
    alphabet: Alphabet,
    *,
    cache: Mapping[str, torch.Tensor],
) -> torch.Tensor:
    """The logits of the original decoding, (batch, n, characters + 1), from graphs by role.

    pixel_values: float32 (batch, 3, height, width). cache: before the first step, of one row (nothing for a step that
    computes the whole prefix). The loop stops when every text of the batch has ended; n is `places` after a refinement,
    else what was spelt.
    """
    cross = dict(graphs["encoder"](pixel_values=pixel_values))
    logits = _steps(graphs["step"], cross, alphabet, cache)
    for _ in range(alphabet.refinements):
        tokens, visible = _refinement_inputs(logits, alphabet)
        logits = graphs["refine"](tokens=tokens, visible=visible, **cross)["logits"]
    return logits


def _steps(
    step: Graph, cross: Mapping[str, torch.Tensor], alphabet: Alphabet, cache: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    batch, places = len(next(iter(cross.values()))), alphabet.places
    state = {name: value.expand(batch, *value.shape[1:]) for name, value in cache.items()}
    text = torch.full((batch, places + 1), alphabet.padding)
    text[:, 0] = alphabet.beginning
    ended = torch.zeros(batch, 1, dtype=torch.bool)
    logits = []
    for place in range(places):
        tokens = {"token": text[:, place : place + 1]} if state else {"tokens": text[:, :places]}
        state = dict(step(**tokens, slot=slots(place, places, batch), **cross, **state))
        logits.append(state.pop("logits"))
        text[:, place + 1] = logits[-1].argmax(-1)
        ended |= text[:, place + 1 : place + 2] == alphabet.end
        if bool(ended.all()):
            break
    return torch.stack(logits, 1)


def _refinement_inputs(logits: torch.Tensor, alphabet: Alphabet) -> tuple[torch.Tensor, torch.Tensor]:
    """The text so far behind the beginning, padded to all places, and which of them are before the text's end."""
    text = logits[:, :-1].argmax(-1)
    tokens = torch.full((logits.shape[0], alphabet.places), alphabet.padding)
    tokens[:, 0] = alphabet.beginning
    tokens[:, 1 : 1 + text.shape[1]] = text
    over = ((tokens == alphabet.end) | (tokens == alphabet.padding)).long().cumsum(-1) > 0
    return tokens, (~over).float()
