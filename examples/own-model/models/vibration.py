"""Is a bearing wearing out? A small autoencoder over windows of an acceleration sensor.

The entry of endpoints/vibration.yaml: `build` returns a ModelDefinition, which is all that the project asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from windows import BANDS, CHANNELS, SAMPLES

from compile import GraphDefinition, ModelDefinition, SampleRequest


@dataclass
class Wear:
    """A score per window, (batch,), and how strong each band of frequencies is, (batch,) each."""

    score: torch.Tensor
    bands: dict[str, torch.Tensor]


class Vibration(nn.Module):
    """Takes `samples`, (batch, 3, 256), in g. `recorded_at` is part of the sensor's record, but not used."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Conv1d(CHANNELS, 16, 8, stride=4), nn.ReLU(), nn.Conv1d(16, 32, 8, stride=4))
        width = 32 * self.encode(torch.zeros(1, CHANNELS, SAMPLES)).shape[-1]
        self.narrow = nn.Linear(width, 64)
        self.refine = nn.Linear(64, 64)
        self.refine_again = nn.Linear(64, 64)
        self.refine_again.weight = self.refine.weight  # one matrix, used twice
        self.bands = nn.Linear(64, len(BANDS))
        self.decode = nn.Linear(64, CHANNELS * SAMPLES)

    def forward(self, samples: torch.Tensor, recorded_at: torch.Tensor) -> dict[str, object]:  # noqa: ARG002
        code = torch.relu(self.narrow(torch.flatten(self.encode(samples), 1)))
        code = torch.relu(self.refine_again(torch.relu(self.refine(code))))
        rebuilt = self.decode(code).reshape(samples.shape)
        score = (samples - rebuilt).abs().mean(dim=(1, 2))
        bands = torch.sigmoid(self.bands(code))
        named = {name: bands[:, place] for place, name in enumerate(BANDS)}
        return {"wear": Wear(score, named), "rebuilt": rebuilt}


def window(seed: int, batch: int) -> dict[str, torch.Tensor]:
    """A made-up record: two tones and noise."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(SAMPLES) / SAMPLES
    pitch = 4 + 60 * torch.rand(batch, CHANNELS, 1, generator=generator)
    noise = torch.randn(batch, CHANNELS, SAMPLES, generator=generator)
    samples = torch.sin(6.2832 * pitch * time) + 0.3 * torch.sin(12.566 * pitch * time) + 0.1 * noise
    return {"samples": samples, "recorded_at": torch.full((batch, 1), 1000.0 + seed)}


def references(_bucket: object, batch: int) -> Sequence[dict[str, torch.Tensor]]:
    """Inputs on which the artifact must equal the model; at least 5."""
    return [window(seed, batch) for seed in range(1, 7)]


def sample(_bucket: object) -> SampleRequest:
    """A request as a client sends it, one line for each moment; and another one to send beside it."""
    bodies = []
    for seed in (99, 100):
        rows = window(seed, 1)["samples"][0].T.tolist()
        bodies.append("\n".join(",".join(f"{value:.5f}" for value in row) for row in rows).encode())
    return SampleRequest(bodies[0], "text/csv", "application/json", neighbour=bodies[1])


def build() -> ModelDefinition:
    """The definition: one graph, its inputs, and the task that the handler serves."""
    graph = GraphDefinition(Vibration().eval(), lambda _, batch: window(0, batch), references)
    return ModelDefinition({"main": graph}, buckets=[{"samples": SAMPLES}], task="vibration", sample=sample)
