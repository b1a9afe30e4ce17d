"""Read a torch-neuron compile log: what the SDK itself counted, fused, compiled and refused.

Tolerant of what stands around the messages: logging prefixes, time stamps, a container's name, colours, every message
twice (torch-neuron and the root logger), and lines wrapped by a terminal or a web page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compile.errors import CompileError

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# Where a message starts. What stands before it on the line is a prefix; a line without a start goes on with the last.
_START = re.compile(
    r"(?:INFO|WARNING|ERROR|DEBUG|CRITICAL)\s*:\s*Neuron\s*:"
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?Z?(?:\s*[:-]?\s*(?:INFO|WARNING|ERROR|DEBUG)\s*:?)?"
    r"|\d\d/\d\d/\d{4} \d\d:\d\d:\d\d [AP]M (?:INFO|WARNING|ERROR)"
    r"|=>\s*(?=aten::|prim::)"
    r"|(?<![\w'])(?=RuntimeError:|Traceback \(most|subprocess\.)"
)


class LogError(CompileError):
    """The text is not a torch-neuron compile log."""


@dataclass
class LogReport:
    """What a log says; None where it does not say. Counts are nodes of the counting rule."""

    name: str = ""
    total: int | None = None
    supported: int | None = None
    fused: int | None = None
    percent_fused: float | None = None
    compiled: int | None = None
    percent_compiled: float | None = None
    subgraphs: int | None = None
    candidates: int | None = None
    compiled_operators: dict[str, int] = field(default_factory=dict)
    other_operators: dict[str, int] = field(default_factory=dict)
    unsupported: dict[str, int | None] = field(default_factory=dict)
    listed_supported: set[str] = field(default_factory=set)
    exit_codes: list[int] = field(default_factory=list)
    subgraph_inputs: list[dict[str, Any]] = field(default_factory=list)
    failed_graphs: list[str] = field(default_factory=list)
    cpu_trace: bool = False
    errors: list[str] = field(default_factory=list)
    traces: int = 0

    @property
    def fallback(self) -> bool:
        """Whether a subgraph that should have been compiled runs as plain PyTorch on the host."""
        return self.cpu_trace or bool(self.failed_graphs)

    @property
    def failed(self) -> bool:
        """Whether the log ends without anything compiled, or with a compiler that failed."""
        return self.fallback or self.compiled == 0 or any(self.exit_codes)

    @property
    def percent(self) -> float | None:
        """Supported nodes in percent of all."""
        if self.total is None or self.supported is None:
            return None
        return round(100.0 * self.supported / self.total, 2) if self.total else 0.0

    def operators(self) -> dict[str, dict[str, Any]]:
        """Per kind: count, how many were compiled, and whether torch-neuron supports it."""
        kinds = {**self.compiled_operators, **self.other_operators, **self.unsupported}
        return {
            kind: {
                "count": self.count(kind),
                "compiled": self.compiled_operators.get(kind, 0),
                "supported": kind not in self.unsupported,
                "reason": "torch-neuron lists it as not supported" if kind in self.unsupported else "",
            }
            for kind in sorted(kinds)
        }

    def count(self, kind: str) -> int | None:
        """How often the log counts a kind; None when it only names it."""
        if kind in self.compiled_operators or kind in self.other_operators:
            return self.compiled_operators.get(kind, 0) + self.other_operators.get(kind, 0)
        return self.unsupported.get(kind)

    def to_json(self) -> dict[str, Any]:
        """The same form as CoverageReport.to_json, with the partition as it was and not as predicted."""
        return {
            "format": 1,
            "name": self.name,
            "target": "inf1",
            "source": "torch-neuron log",
            "total": self.total,
            "supported": self.supported,
            "percent": self.percent,
            "operators": self.operators(),
            "partition": {
                "predicted": False,
                "logged": {
                    "fused": self.fused,
                    "percent_fused": self.percent_fused,
                    "compiled": self.compiled,
                    "percent": self.percent_compiled,
                    "subgraphs": self.subgraphs,
                    "candidates": self.candidates,
                },
            },
            "fallback": self.fallback,
            "failed": self.failed,
            "failed_graphs": self.failed_graphs,
            "compiler": {"exit_codes": self.exit_codes, "subgraph_inputs": self.subgraph_inputs},
            "errors": self.errors,
            "traces": self.traces,
        }


def read_log(text: str, name: str = "log") -> LogReport:
    """Read a log. Of several traces in one log the last is reported; `traces` says how many there were.

    Raises LogError when there is no message of torch-neuron in it.
    """
    reader = _Reader(LogReport(name))
    last = ""
    for message in _messages(text):
        content = _START.sub("", message).strip()
        if content and content != last:  # two loggers print every message twice
            reader.take(message)
            last = content
    if not reader.seen:
        raise LogError(
            f"{name}: there is no message of torch-neuron in it.",
            "Give the output of torch_neuron.trace or torch_neuron.analyze_model (logging level INFO), for example "
            "`python compile.py 2>&1 | tee compile.log`.",
        )
    return reader.finish()


def read_log_file(path: Path) -> LogReport:
    """Read a log from a file. Raises LogError when it cannot be read or is not one."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise LogError(f"{path}: {error.strerror}.", "Give the path of a torch-neuron compile log.") from error
    return read_log(text, path.name)


def _messages(text: str) -> Iterable[str]:
    """Messages without their prefixes, wrapped lines put together again."""
    lines = [_COLOUR.sub("", line).rstrip("\r\n") for line in text.splitlines()]
    width = max((len(line) for line in lines), default=0)
    current: str | None = None
    full = False  # the last line reached the terminal's edge: it was cut inside a word
    for line in lines:
        starts = list(_START.finditer(line))
        head = line[: starts[0].start()] if starts else line
        # Only a short prefix, such as a container's name, may stand before a message.
        if current is not None and (not starts or len(head.strip()) > 40):
            current += head if full else " " + head.strip()
        ends = [match.start() for match in starts[1:]] + [len(line)]
        for match, end in zip(starts, ends, strict=False):
            if current is not None:
                yield current.strip()
            current = line[match.start() : end]
        if current is None:
            current = line
        full = len(line) == width and width > 60
    if current is not None:
        yield current.strip()


class _Reader:
    """Takes one message after the other."""

    def __init__(self, report: LogReport) -> None:
        self.report = report
        self.seen = False
        self.list: str = ""  # which list the coming lines belong to
        self.not_supported = 0
        self.rules = [
            (re.compile(pattern), handler)
            for pattern, handler in (
                (r"operations\s+are\s+currently\s+supported\s+in", self.supported_list),
                (r"operations\s+are\s+currently\s+not\s+supported\s+in", self.unsupported_list),
                (r"of\s+arithmetic\s+operations\s*\(\s*(\d+)\s+of\s+(\d+)\s*\)", self.arithmetic),
                (r"There\s+are\s+(\d+)\s+ops\s+of\s+\d+\s+different\s+types.*?neuron-cc:(.*)", self.not_compiled),
                (r"All\s+operators\s+are\s+compiled\s+by\s+neuron-cc", self.all_supported),
                (
                    r"\(pre-compilation\)\s+before\s*=\s*(\d+),\s*fused\s*=\s*(\d+)(?:,\s*percent\s+fused\s*=\s*([\d.]+))?",
                    self.before,
                ),
                (
                    r"\(post-compilation\)\s+before\s*=\s*(\d+),\s*compiled\s*=\s*(\d+)"
                    r"(?:,\s*percent\s+compiled\s*=\s*([\d.]+))?",
                    self.after,
                ),
                (r"partitioner\s+created\s+(\d+)\s+sub-graphs", self.partitioner),
                (
                    r"successfully\s+compiled\s+(\d+)\s+sub-graphs,\s*Total\s+fused\s+subgraphs\s*=\s*(\d+)",
                    self.sub_graphs,
                ),
                (r"Not\s+compiled\s+operators\s*\(", self.other_table),
                (r"Compiled\s+these\s+operators\s*\(", self.compiled_table),
                (r"=>\s*((?:aten|prim)::\w+)\s*:\s*(\d+)\s*(\[\s*(not\s+)?supported\s*\])?", self.row),
                (r"Compile\s+command\s+returned:\s*(-?\d+)", self.returned),
                (r"--io-config\s+'?(\{.*?\})'?\s+--", self.io_config),
                (r"trace\s+failed\s+on\s+(\S+?);?\s+falling\s+back", self.fell_back),
                (r"No\s+operator\s+is\s+placed\s+on\s+Neuron", self.placed_nothing),
                (r"(No\s+operations\s+were\s+successfully\s+partitioned[^!]*)", self.partitioned_nothing),
                (r"ERROR\s*:\s*Neuron\s*:\s*(.+)", self.error),
                (r"(PyTorch\s+to\s+TF\s+conversion\s+failed[^\[]*)", self.error),
                (r":\s*((?:aten|prim)::\w+)\s*$", self.listed),
            )
        ]

    def take(self, message: str) -> None:
        for pattern, handler in self.rules:
            match = pattern.search(message)
            if match:
                self.seen = self.seen or handler not in (self.error, self.listed)
                handler(*match.groups())
                return

    def finish(self) -> LogReport:
        report = self.report
        if report.supported is None and report.total is not None:
            report.supported = report.total - self.not_supported
        report.traces = max(report.traces, 1)
        return report

    def supported_list(self) -> None:
        self.list = "supported"

    def unsupported_list(self) -> None:
        self.list = "unsupported"

    def listed(self, kind: str) -> None:
        if self.list == "supported":
            self.report.listed_supported.add(kind)
        elif self.list == "unsupported":
            self.report.unsupported.setdefault(kind, None)

    def arithmetic(self, supported: str, total: str) -> None:
        self.report.supported, self.report.total = int(supported), int(total)
        self.list = ""

    def not_compiled(self, count: str, kinds: str) -> None:
        self.not_supported = int(count)
        for kind in re.findall(r"(?:aten|prim)::\w+", kinds.split("(For more", maxsplit=1)[0]):
            self.report.unsupported.setdefault(kind, None)

    def all_supported(self) -> None:
        self.not_supported = 0

    def before(self, total: str, fused: str, percent: str | None) -> None:
        report = self.report
        if (report.total, report.fused) != (int(total), int(fused)) or report.compiled is not None:
            if report.fused is not None:
                self.restart()
                report = self.report
            report.traces += 1
        report.total, report.fused = int(total), int(fused)
        report.percent_fused = float(percent) if percent else None

    def restart(self) -> None:
        """A further trace begins: forget the figures of the last, keep what announced this one."""
        old = self.report
        self.report = LogReport(old.name, traces=old.traces, unsupported=dict.fromkeys(old.unsupported))

    def after(self, total: str, compiled: str, percent: str | None) -> None:
        self.report.total, self.report.compiled = int(total), int(compiled)
        self.report.percent_compiled = float(percent) if percent else None

    def partitioner(self, count: str) -> None:
        self.report.candidates = int(count)

    def sub_graphs(self, compiled: str, fused: str) -> None:
        self.report.subgraphs, self.report.candidates = int(compiled), int(fused)

    def other_table(self) -> None:
        self.list = "other"

    def compiled_table(self) -> None:
        self.list = "compiled"

    def row(self, kind: str, count: str, mark: str | None, negated: str | None) -> None:
        if mark is None and self.list == "compiled":
            self.report.compiled_operators[kind] = int(count)
            return
        self.report.other_operators[kind] = int(count)
        if negated:
            self.report.unsupported[kind] = int(count)

    def returned(self, code: str) -> None:
        self.report.exit_codes.append(int(code))

    def io_config(self, text: str) -> None:
        try:
            parsed = json.loads(text)
        except json.JSONDecodeError:
            return  # cut off where the log was published; the counts do not need it
        if parsed not in self.report.subgraph_inputs:
            self.report.subgraph_inputs.append(parsed)

    def fell_back(self, graph: str) -> None:
        name = graph.rstrip(";")
        if name not in self.report.failed_graphs:
            self.report.failed_graphs.append(name)

    def placed_nothing(self) -> None:
        self.report.cpu_trace = True

    def partitioned_nothing(self, text: str) -> None:
        self.report.compiled = 0
        self.error(text)

    def error(self, text: str) -> None:
        line = re.sub(r"\s+", " ", text).strip()[:400]
        if line not in self.report.errors:
            self.report.errors.append(line)
