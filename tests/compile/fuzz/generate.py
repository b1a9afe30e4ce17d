"""A seed's module: a tree of operators with hazards at random places and depths, its inputs, and what its spec allows.

The tree is made with what runs: a part that fails on the tensor that reaches it is left out, unless it is a hazard
whose failing is the point.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compile.definition import GraphDefinition, Inputs
from endpoint_spec.endpoint import FINDINGS
from tests.compile.fuzz import operators
from tests.compile.fuzz.hazards import INPUTS, OUTPUTS, hazards, inside

SHAPES = ((6,), (3, 6), (4, 6), (2, 5, 6), (3, 4, 4))
MOST = 2000  # elements of an item, at any place
# What a build never sees is drawn with these scales and offsets: other decisions, other magnitudes.
UNSEEN = ((1.0, 0.0), (3.0, 0.0), (1.0, -100.0), (0.01, 0.0), (1.0, 60.0))
_INSIDE = [name for name in hazards() if not name.startswith(("output", "input"))]


class Deep(nn.Module):
    """A part three attributes deep."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.block = nn.Module()
        self.block.inner = nn.Module()
        self.block.inner.part = part

    def forward(self, x: Tensor) -> Any:
        return self.block.inner.part(x)  # type: ignore[operator, union-attr]


class Listed(nn.Module):
    """Parts in a ModuleList or ModuleDict, one after the other."""

    def __init__(self, parts: list[nn.Module], *, named: bool) -> None:
        super().__init__()
        self.parts: Any = (
            nn.ModuleDict({f"part{n}": part for n, part in enumerate(parts)}) if named else nn.ModuleList(parts)
        )

    def forward(self, x: Tensor) -> Any:
        for part in self.parts.values() if isinstance(self.parts, nn.ModuleDict) else self.parts:
            x = part(x)
        return x


class Residual(nn.Module):
    """What comes in is added to what a part makes of it, at one number an item where the shapes differ."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Any:
        found = self.part(x)
        if found.shape == x.shape:
            return found + x
        return found + x.flatten(1).mean(1).view(-1, *[1] * (found.dim() - 1))


class Branches(nn.Module):
    """Two parts side by side."""

    def __init__(self, one: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x: Tensor) -> Any:
        return torch.cat([self.one(x).flatten(1), self.other(x).flatten(1)], 1)


class Root(nn.Module):
    """The model: its input as float32 of moderate size, the tree, the output's form."""

    def __init__(self, body: nn.Module, output: str | None, second: str | None) -> None:
        super().__init__()
        self.body, self.output, self.second = body, output, second

    def forward(self, x: Tensor, more: Tensor | None = None) -> Any:
        if x.is_complex():
            x = x.real
        if x.dtype != torch.float32:
            x = x.float()
        if more is not None:
            x = x + more.float().flatten(1).mean(1).view(-1, *[1] * (x.dim() - 1))
        x = self.body(x)
        return OUTPUTS[self.output](x) if self.output else x


@dataclass
class Case:
    """One generated module, ready to build."""

    seed: int
    graph: GraphDefinition
    batch: int
    target: str
    accept: tuple[str, ...]
    unseen: list[Inputs]
    operators: list[str] = field(default_factory=list)
    hazards: list[str] = field(default_factory=list)


class _Maker:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.operators: list[str] = []
        self.hazards: list[str] = []

    def operator(self, x: Tensor) -> tuple[nn.Module, Tensor]:
        for _ in range(60):
            name = self.random.choice(operators.ALL)
            try:
                part = operators.make(name, x.shape).eval()
                found = part(x)
            except (RuntimeError, ValueError, IndexError, AssertionError):
                continue
            valid = found.dtype == torch.float32 and found.dim() > 1 and found.shape[:1] == x.shape[:1]
            if valid and 0 < found[0].numel() < MOST:
                self.operators.append(name)
                return part, found
        part = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 6)).eval()  # nothing fits, as for no features
        return part, part(x)

    def leaf(self, x: Tensor, wanted: list[str]) -> tuple[nn.Module, Tensor]:
        part, found = self.operator(x)
        if not wanted:
            return part, found
        hazard = wanted.pop()
        try:
            whole = inside(hazard, part, found)
            self.hazards.append(hazard)
        except Exception:
            return part, found
        if hazard == "wrapper:compiled":  # its first run would compile
            return whole, found
        try:
            answered = whole.eval()(x.clone())
            whole = inside(hazard, part, found).eval()  # that has not run
        except (Exception, SystemExit):
            return whole, found
        valid = isinstance(answered, Tensor) and answered.dim() > 1 and answered.shape[:1] == x.shape[:1]
        if not valid or answered.is_complex() or answered.dtype != torch.float32 or answered.is_meta:
            return whole, found
        return whole, torch.randn(answered.shape)

    def tree(self, x: Tensor, depth: int, wanted: list[str]) -> tuple[nn.Module, Tensor]:
        form = self.random.choice(("sequential", "list", "dict", "deep", "residual", "branches")) if depth else "leaf"
        if form == "leaf":
            return self.leaf(x, wanted)
        if form in ("deep", "residual"):
            part, found = self.tree(x, depth - 1, wanted)
            return (Deep if form == "deep" else Residual)(part), found
        if form == "branches":
            one, first = self.tree(x, depth - 1, wanted)
            other, second = self.tree(x, depth - 1, wanted)
            return Branches(one, other), torch.cat([first.flatten(1), second.flatten(1)], 1)
        parts = []
        for _ in range(self.random.randint(1, 3)):
            part, x = self.tree(x, depth - 1, wanted)
            parts.append(part)
        return nn.Sequential(*parts) if form == "sequential" else Listed(parts, named=form == "dict"), x


def case(seed: int) -> Case:
    """The module of a seed; half of them and more have three hazards or more."""
    choose = random.Random(seed)
    shape, batch, count = (
        choose.choice(SHAPES),
        choose.choice((1, 2, 3, 4)),
        choose.choice((0, 1, 1, 2, 3, 3, 4, 4, 5, 6)),
    )
    # Hazards that refuse at once would hide the others: most cases draw from three kinds.
    kinds = choose.sample(sorted({name.split(":")[0] for name in _INSIDE}), 3)
    pool = [name for name in _INSIDE if name.split(":")[0] in kinds] if choose.random() < 0.8 else _INSIDE
    wanted = choose.sample(pool, min(count, len(pool)))
    head = choose.choice(list(INPUTS)) if choose.random() < 0.15 else None
    output = choose.choice(list(OUTPUTS)) if choose.random() < 0.35 else None
    more = choose.choice(("bool", "int64", "uint8", "float32", None, None, None, None, None))
    accept = tuple(FINDINGS) if choose.random() < 0.5 else ()
    target = choose.choice(("inf1", "inf2"))
    maker = _Maker(seed)
    with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        parts, x = [], torch.randn(batch, *shape)
        while wanted or not parts:
            part, x = maker.tree(x, maker.random.randint(1, 3), wanted)
            parts.append(part)
        model = Root(nn.Sequential(*parts) if len(parts) > 1 else parts[0], output, more)
    ends = [f"output:{output}"] if output else []
    ends += [f"input:{head}"] if head else []
    return _case(seed, model, shape, batch, head, accept, target, maker.operators, maker.hazards + ends)


def single(hazard: str, batch: int = 3) -> Case:
    """Two layers with one hazard deep between them, of which nothing is accepted."""
    kind, name = hazard.split(":")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        part: nn.Module = nn.Linear(6, 6)
        if kind not in ("input", "output"):
            part = inside(hazard, part.eval(), torch.randn(batch, 4, 6))
        body = nn.Sequential(nn.Linear(6, 6), Deep(part))
    head, output = (name if kind == "input" else None), (name if kind == "output" else None)
    return _case(7, Root(body, output, None), (4, 6), batch, head, (), "inf2", [], [hazard])


def _case(  # noqa: PLR0917 (what a case is made of)
    seed: int,
    model: Root,
    shape: tuple[int, ...],
    batch: int,
    head: str | None,
    accept: tuple[str, ...],
    target: str,
    drawn_operators: list[str],
    drawn_hazards: list[str],
) -> Case:
    def drawn(seed: int, batch: int, scale: float = 1.0, offset: float = 0.0) -> Inputs:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(batch, *shape, generator=generator) * scale + offset
        found = {"x": INPUTS[head](x) if head else x}
        if model.second:
            second = torch.randn(batch, 4, generator=generator) * scale
            found["more"] = INPUTS[model.second](second) if model.second in INPUTS else second
        return found

    def references(bucket: Mapping[str, Any], batch: int) -> list[Inputs]:
        del bucket
        return [drawn(number, batch) for number in range(5)]

    graph = GraphDefinition(model.eval(), lambda bucket, batch: references(bucket, batch)[0], references)
    unseen = [drawn(100 + number, batch, *scale) for number, scale in enumerate(UNSEEN)]
    return Case(seed, graph, batch, target, accept, unseen, drawn_operators, drawn_hazards)
