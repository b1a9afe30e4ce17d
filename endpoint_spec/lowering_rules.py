"""Rules about compile.lowering."""

from __future__ import annotations

from collections.abc import Iterator

from .endpoint import EndpointSpec
from .errors import near
from .findings import Finding, Rules
from .places import rewrites
from .rules import names_in

RULES = Rules()
rule = RULES.register


@rule("compile.lowering.off")
def known_rewrites(spec: EndpointSpec) -> Iterator[Finding]:
    """A switch is the name of a built-in rewrite."""
    chosen, known = spec.compile.lowering, rewrites()
    for name in (chosen and chosen.off) or ():
        if name not in known:
            remedy = f"{near(name, known)}The rewrites are {', '.join(known)}."
            yield Finding("compile.lowering.off", name, "is not a built-in rewrite", remedy)


@rule("compile.lowering.rewrites")
def rewrites_exist(spec: EndpointSpec) -> Iterator[Finding]:
    """Rewrites of one's own are Python files of the project."""
    chosen = spec.compile.lowering
    for file in (chosen and chosen.rewrites) or ():
        names, wrong = names_in(spec.root, file)
        if not file.endswith(".py"):
            yield Finding("compile.lowering.rewrites", file, "is not a Python file", "Name a .py file of the project.")
        elif wrong:
            yield Finding("compile.lowering.rewrites", file, *wrong)
        elif not names:
            remedy = "Define subclasses of compile.lowering.FunctionRewrite or ModuleRewrite; see docs/lowering.md."
            yield Finding("compile.lowering.rewrites", file, "defines nothing", remedy)
