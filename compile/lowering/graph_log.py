"""The graph around what lowering changed, for the log at DEBUG."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from compile.errors import described
from compile.ir.graph import Node, trace
from compile.lowering.module_copy import duplicate
from compile.lowering.report import LoweringReport
from compile.lowering.rewrite import Rewrite

_LOG = logging.getLogger(__name__)
_NOISE = re.compile(r"(, strides=\[[\d, ]*\])?, requires_grad=\d, device=\w+|, scope: .*")
_AROUND = 2  # nodes shown before and behind those that are marked


def log_graphs(
    before: nn.Module, after: nn.Module, inputs: tuple[Tensor, ...], report: LoweringReport, rewrites: Iterable[Rewrite]
) -> None:
    """Marked before: the nodes of the modules where a rewrite was applied; after: those that a rewrite's code made."""
    if not _LOG.isEnabledFor(logging.DEBUG) or not report.applied:
        return
    places = {where or "." for use in report.uses.values() for where in use.where}
    files = [str(inspect.getsourcefile(type(one))) for one in rewrites if one.name in report.applied]
    _log("before", before, inputs, lambda node: node.scope in places)
    _log("after", after, inputs, lambda node: any(file in node.handle.sourceRange() for file in files))


def _log(title: str, module: nn.Module, inputs: tuple[Tensor, ...], is_marked: Callable[[Node], Any]) -> None:
    try:
        nodes = [node for node in trace(duplicate(module), inputs, grad=False).nodes if node.counted]
    except Exception as error:  # for one log line nothing may fail
        _LOG.debug("the graph %s lowering cannot be traced: %s", title, described(error))
        return
    marked = {at for at, node in enumerate(nodes) if is_marked(node)}
    near = {one for at in marked for one in range(at - _AROUND, at + _AROUND + 1) if 0 <= one < len(nodes)}
    lines = [f"{'>' if at in marked else ' '} {_NOISE.sub('', str(nodes[at].handle)).strip()}" for at in sorted(near)]
    _LOG.debug("%d of %d nodes %s lowering:\n%s", len(lines), len(nodes), title, "\n".join(lines))
