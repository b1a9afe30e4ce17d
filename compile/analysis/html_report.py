"""The report as one HTML page that needs nothing else: the module tree coloured by device, and the partition drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from html import escape
from pathlib import Path

from compile.analysis.report import CoverageReport, ModuleLoad, Partition, Stage
from compile.analysis.terminal_report import UNSUPPORTED, summary_rows, title, unsupported_rows
from compile.files import write_text

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: #1c2330; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; } td, th { text-align: left; padding: .25rem .8rem .25rem 0;
vertical-align: top; border-bottom: 1px solid #d8dde6; } code { font-size: 90%; } details { margin-left: 1.1rem; }
summary, .leaf { padding: .1rem .3rem; } .leaf { margin-left: 1.1rem; } .bar { display: inline-block; width: 7rem;
height: .7rem; margin-right: .5rem; background: #e2703a; } .bar i { display: block; height: 100%; background: #2f7fd1; }
.quiet { color: #667085; } .device { fill: #2f7fd1; } .host { fill: #e2703a; } svg text { font: 11px sans-serif; }
.scroll { overflow-x: auto; } td { overflow-wrap: anywhere; min-width: 3rem; }
td:first-child { white-space: nowrap; }
.fit { width: 100%; max-height: 150px; }
"""
_MOST_STAGES = 120


@dataclass
class _Module:
    own: ModuleLoad = field(default_factory=lambda: ModuleLoad(0, 0, 0, 0))
    children: dict[str, _Module] = field(default_factory=dict)

    def total(self) -> ModuleLoad:
        loads = [astuple(self.own), *(astuple(child.total()) for child in self.children.values())]
        return ModuleLoad(*map(sum, zip(*loads, strict=True)))


def write(reports: Sequence[CoverageReport], path: Path) -> None:
    """Write the page to `path`, whole or not at all."""
    write_text(path, page(reports))


def page(reports: Sequence[CoverageReport]) -> str:
    """The whole page."""
    names = escape(", ".join(dict.fromkeys(report.name for report in reports)))
    body = "\n".join(_report(report) for report in reports)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Coverage: {names}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n<body>\n{body}\n'
        "</body></html>\n"
    )


def _report(report: CoverageReport) -> str:
    parts = [f"<h1>{escape(title(report))}</h1>", _table((), list(summary_rows(report)))]
    unsupported = unsupported_rows(report)
    if unsupported:
        parts += ["<h2>Not supported</h2>", _table(UNSUPPORTED, unsupported)]
    if report.safe:
        parts += ["<h2>Partition (predicted)</h2>", _LEGEND, _drawing(report.safe.stages), _subgraphs(report.safe)]
    parts += ["<h2>Modules</h2>", _LEGEND if report.safe else "", _tree(report.modules, report.safe is not None)]
    operators = [
        (kind, str(found.count), "yes" if found.supported else "no", found.since)
        for kind, found in report.operators.items()
    ]
    parts += ["<h2>All operators</h2>", _table(("operator", "count", "supported", "since torch-neuron"), operators)]
    if report.notes:
        parts += ["<h2>Notes</h2>", "<ul>", *(f"<li>{escape(note)}</li>" for note in report.notes), "</ul>"]
    return "\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Variants are escaped; a line break in a variant stays one."""
    header = "<tr>" + "".join(f"<th>{escape(variant)}</th>" for variant in head) + "</tr>" if head else ""
    lines = [
        "<tr>" + "".join(f"<td>{escape(variant)}</td>".replace("\n", "<br>") for variant in row) + "</tr>"
        for row in rows
    ]
    return f'<div class="scroll"><table>{header}{"".join(lines)}</table></div>'


_LEGEND = (
    '<p class="quiet"><svg width="330" height="14"><rect class="device" width="14" height="14"/>'
    '<text x="20" y="11">device</text><rect class="host" x="90" width="14" height="14"/>'
    '<text x="110" y="11">host</text></svg></p>'
)


def _drawing(stages: Sequence[Stage]) -> str:
    """Stages from left to right in the order in which they run; the height is the share of the nodes."""
    shown = stages[:_MOST_STAGES]
    most = max((stage.nodes for stage in shown), default=1)
    bars = []
    for position, stage in enumerate(shown):
        height = max(3, round(120 * stage.nodes / most))
        x, side = 34 * position, "device" if stage.device else "host"
        label = f"{side}, step {position + 1}: {stage.nodes} operators, {stage.flops / 1e9:.2f} GFLOP"
        bars.append(
            f'<g><title>{label}</title><rect class="{side}" x="{x}" y="{130 - height}" width="30" height="{height}"/>'
            f'<text x="{x + 15}" y="145" text-anchor="middle">{stage.nodes}</text></g>'
        )
    rest = f'<p class="quiet">and {len(stages) - len(shown)} more steps</p>' if len(stages) > len(shown) else ""
    width = 34 * len(shown) + 10
    # Few stages are drawn as they are; many shrink to the width of the page.
    size = f'width="{width}" height="150"' if width < 1100 else f'class="fit" viewBox="0 0 {width} 150"'
    return f'<div class="scroll"><svg {size}>{"".join(bars)}</svg></div>{rest}'


def _subgraphs(plan: Partition) -> str:
    rows = []
    for number, part in enumerate(plan.details[:_MOST_STAGES]):
        inputs = "\n".join(f"{tensor.dtype} {list(tensor.shape or ())}" for tensor in part.inputs[:8])
        outputs = "\n".join(f"{tensor.dtype} {list(tensor.shape or ())}" for tensor in part.outputs[:8])
        state = f"{part.roofline.least_ms:.3f} ms, {part.roofline.bound}" if part.roofline else "on the host"
        crossing = f"{(part.bytes_in + part.bytes_out) / 1e6:.2f} MB"
        rows.append((str(number), str(part.nodes), inputs, outputs, crossing, f"{part.flops / 1e9:.2f}", state))
    head = ("subgraph", "operators", "inputs", "outputs", "crossing", "GFLOP", "least time on one core (estimate)")
    return _table(head, rows)


def _tree(modules: Mapping[str, ModuleLoad], placed: bool) -> str:
    root = _Module()
    for path, load in modules.items():
        node = root
        for name in [] if path == "." else path.split("."):
            node = node.children.setdefault(name, _Module())
        node.own = load
    return _branch("model", root, depth=0, placed=placed)


def _branch(name: str, module: _Module, depth: int, placed: bool) -> str:
    load = module.total()
    count = load.device + load.host
    share = 100 * load.device / count if count else 0
    work = (load.flops_device + load.flops_host) / 1e9
    bar = f'<span class="bar"><i style="width:{share:.0f}%"></i></span>' if placed else ""
    where = f"{load.device} of {count} operators on the device" if placed else f"{count} operators"
    line = f'{bar}<code>{escape(name)}</code> <span class="quiet">{where}, {work:.2f} GFLOP</span>'
    if not module.children:
        return f'<div class="leaf">{line}</div>'
    inner = "".join(_branch(child, part, depth + 1, placed) for child, part in module.children.items())
    return f"<details{' open' if depth < 2 else ''}><summary>{line}</summary>{inner}</details>"
