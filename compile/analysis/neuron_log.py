"""Read a torch-neuron compile log: what the SDK itself counted, fused, compiled and refused.

Tolerant of what stands around the messages: logging prefixes, time stamps, a container's name, colours, every message
twice (torch-neuron and the root logger), and lines wrapped by a terminal or a web page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compile.analysis.report import percent
from compile.errors import CompileError

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# Where a message starts. What stands before it on the line is a prefix; a line without a start continues the last.
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
    """What a log states; None where it does not. Counts are nodes of the counting rule."""

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
        return None if self.total is None or self.supported is None else percent(self.supported, self.total)

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
        names = ("name", "total", "supported", "percent", "fallback", "failed", "failed_graphs", "errors", "traces")
        logged = {
            name: getattr(self, name) for name in ("fused", "percent_fused", "compiled", "subgraphs", "candidates")
        }
        return {
            **{"format": 1, "target": "inf1", "source": "torch-neuron log"},
            **{name: getattr(self, name) for name in names},
            "operators": self.operators(),
            "partition": {"predicted": False, "logged": {**logged, "percent": self.percent_compiled}},
            "compiler": {"exit_codes": self.exit_codes, "subgraph_inputs": self.subgraph_inputs},
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
        self.list: str | None = None  # which list the coming lines belong to
        self.not_supported = 0

    def take(self, message: str) -> None:
        for pattern, handler in _RULES:
            match = pattern.search(message)
            if match:
                self.seen = self.seen or handler not in (_Reader.error, _Reader.listed)
                try:
                    handler(self, match)
                except ValueError:  # Python reads no number of more than 4300 digits
                    start = match[0][:60]
                    raise LogError(f"{self.report.name}: {start!r}... holds a number beyond all counts.") from None
                return

    def finish(self) -> LogReport:
        report = self.report
        if report.supported is None and report.total is not None:
            report.supported = report.total - self.not_supported
        report.traces = max(report.traces, 1)
        return report

    def opens_list(self, match: re.Match[str]) -> None:
        self.list = match.lastgroup

    def listed(self, match: re.Match[str]) -> None:
        if self.list == "unsupported":
            self.report.unsupported.setdefault(match[1], None)

    def figures(self, match: re.Match[str]) -> None:
        """Each named group is a figure of the report."""
        for name, text in match.groupdict().items():
            setattr(self.report, name, text and (float(text) if name.startswith("percent") else int(text)))

    def not_compiled(self, match: re.Match[str]) -> None:
        self.not_supported = int(match[1])
        for kind in re.findall(r"(?:aten|prim)::\w+", match[2].split("(For more", maxsplit=1)[0]):
            self.report.unsupported.setdefault(kind, None)

    def all_supported(self, _: re.Match[str]) -> None:
        self.not_supported = 0

    def before(self, match: re.Match[str]) -> None:
        """Of a further trace: forget the figures of the last, keep what announced this one."""
        old = self.report
        if (old.total, old.fused) != (int(match["total"]), int(match["fused"])) or old.compiled is not None:
            if old.fused is not None:
                self.report = LogReport(old.name, traces=old.traces, unsupported=dict.fromkeys(old.unsupported))
            self.report.traces += 1
        self.figures(match)

    def row(self, match: re.Match[str]) -> None:
        kind, count, mark, negated = match.groups()
        if mark is None and self.list == "compiled":
            self.report.compiled_operators[kind] = int(count)
            return
        self.report.other_operators[kind] = int(count)
        if negated:
            self.report.unsupported[kind] = int(count)

    def returned(self, match: re.Match[str]) -> None:
        self.report.exit_codes.append(int(match[1]))

    def io_config(self, match: re.Match[str]) -> None:
        try:
            _add(self.report.subgraph_inputs, json.loads(match[1]))
        except json.JSONDecodeError:
            return  # cut off where the log was published; the counts do not need it

    def fell_back(self, match: re.Match[str]) -> None:
        _add(self.report.failed_graphs, match[1].rstrip(";"))

    def placed_nothing(self, _: re.Match[str]) -> None:
        self.report.cpu_trace = True

    def partitioned_nothing(self, match: re.Match[str]) -> None:
        self.report.compiled = 0
        self.error(match)

    def error(self, match: re.Match[str]) -> None:
        _add(self.report.errors, re.sub(r"\s+", " ", match[1]).strip()[:400])


def _add(found: list[Any], item: Any) -> None:
    if item not in found:
        found.append(item)


# The first that is found in a message takes it.
_RULES: tuple[tuple[re.Pattern[str], Callable[[_Reader, re.Match[str]], None]], ...] = tuple(
    (re.compile(pattern), handler)
    for pattern, handler in (
        (r"operations\s+are\s+currently\s+(?P<supported>supported)\s+in", _Reader.opens_list),
        (r"operations\s+are\s+currently\s+not\s+(?P<unsupported>supported)\s+in", _Reader.opens_list),
        (r"of\s+arithmetic\s+operations\s*\(\s*(?P<supported>\d+)\s+of\s+(?P<total>\d+)\s*\)", _Reader.figures),
        (r"There\s+are\s+(\d+)\s+ops\s+of\s+\d+\s+different\s+types.*?neuron-cc:(.*)", _Reader.not_compiled),
        (r"All\s+operators\s+are\s+compiled\s+by\s+neuron-cc", _Reader.all_supported),
        (
            r"\(pre-compilation\)\s+before\s*=\s*(?P<total>\d+),\s*fused\s*=\s*(?P<fused>\d+)"
            r"(?:,\s*percent\s+fused\s*=\s*(?P<percent_fused>[\d.]+))?",
            _Reader.before,
        ),
        (
            r"\(post-compilation\)\s+before\s*=\s*(?P<total>\d+),\s*compiled\s*=\s*(?P<compiled>\d+)"
            r"(?:,\s*percent\s+compiled\s*=\s*(?P<percent_compiled>[\d.]+))?",
            _Reader.figures,
        ),
        (r"partitioner\s+created\s+(?P<candidates>\d+)\s+sub-graphs", _Reader.figures),
        (
            r"successfully\s+compiled\s+(?P<subgraphs>\d+)\s+sub-graphs,"
            r"\s*Total\s+fused\s+subgraphs\s*=\s*(?P<candidates>\d+)",
            _Reader.figures,
        ),
        (r"(?P<other>Not)\s+compiled\s+operators\s*\(", _Reader.opens_list),
        (r"(?P<compiled>Compiled)\s+these\s+operators\s*\(", _Reader.opens_list),
        (r"=>\s*((?:aten|prim)::\w+)\s*:\s*(\d+)\s*(\[\s*(not\s+)?supported\s*\])?", _Reader.row),
        (r"Compile\s+command\s+returned:\s*(-?\d+)", _Reader.returned),
        (r"--io-config\s+'?(\{.*?\})'?\s+--", _Reader.io_config),
        (r"trace\s+failed\s+on\s+(\S+?);?\s+falling\s+back", _Reader.fell_back),
        (r"No\s+operator\s+is\s+placed\s+on\s+Neuron", _Reader.placed_nothing),
        (r"(No\s+operations\s+were\s+successfully\s+partitioned[^!]*)", _Reader.partitioned_nothing),
        (r"ERROR\s*:\s*Neuron\s*:\s*(.+)", _Reader.error),
        (r"(PyTorch\s+to\s+TF\s+conversion\s+failed[^\[]*)", _Reader.error),
        (r":\s*((?:aten|prim)::\w+)\s*$", _Reader.listed),
    )
)
