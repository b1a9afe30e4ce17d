"""What a lowering did: per rewrite how often and where, what it adds, and what was left alone with the reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class RewriteUse:
    """One rewrite's work in one model. ``flops`` counts a multiply-add as two; both figures may be negative."""

    name: str
    mechanism: str
    why: str
    cost: str
    where: Counter[str] = field(default_factory=Counter)
    flops: int = 0
    bytes: int = 0

    @property
    def applied(self) -> int:
        """How often the rewrite was applied."""
        return sum(self.where.values())

    def to_json(self) -> dict[str, Any]:
        """A JSON-able description."""
        return {
            "name": self.name,
            "mechanism": self.mechanism,
            "applied": self.applied,
            "where": dict(self.where),
            "flops_added": self.flops,
            "bytes_added": self.bytes,
            "why": self.why,
            "cost": self.cost,
        }


@dataclass(frozen=True)
class LeftAlone:
    """An operator that a rewrite looked at and did not touch."""

    rewrite: str
    operator: str
    where: str
    reason: str


@dataclass
class LoweringReport:
    """The account of one call of ``lower``; module paths are relative to the module that was given, "" is the module
    itself."""

    uses: dict[str, RewriteUse] = field(default_factory=dict)
    left: Counter[LeftAlone] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    disabled: tuple[str, ...] = ()
    constants: int = 0
    constant_bytes: int = 0

    @property
    def applied(self) -> dict[str, int]:
        """Rewrite name -> how often it was applied, rewrites that found nothing to do omitted."""
        return {name: use.applied for name, use in self.uses.items() if use.applied}

    @property
    def flops_added(self) -> int:
        """FLOPs that all rewrites together add to one inference."""
        return sum(use.flops for use in self.uses.values())

    @property
    def bytes_added(self) -> int:
        """Bytes of constants that all rewrites together add to the artifact."""
        return sum(use.bytes for use in self.uses.values())

    def to_json(self) -> dict[str, Any]:
        """A JSON-able description, rewrites in the order of the registry."""
        return {
            "rewrites": [use.to_json() for use in self.uses.values() if use.applied],
            "left_alone": [{**asdict(left), "times": times} for left, times in self.left.items()],
            "notes": list(self.notes),
            "disabled": list(self.disabled),
            "constants": self.constants,
            "constant_bytes": self.constant_bytes,
            "flops_added": self.flops_added,
            "bytes_added": self.bytes_added,
        }
