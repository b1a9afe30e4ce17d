"""Read a torch-neuron compile log: what the SDK itself counted, fused, compiled and refused.

Messages are known by how they begin, so anything may stand before them: the prefixes of loggers, pytest, containers and
log services, time stamps, colours. Every message may be there twice (torch-neuron and the root logger), lines may be
wrapped by a terminal or a web page, and the whole may be a notebook or lines of JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compile.analysis.report import percent
from compile.errors import CompileError

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_MESSAGES = (
    r"The\s+following\s+operations\s+are\s+currently",
    r"\d{1,3}(?:\.\d+)?%\s+of\s+(?:all|arithmetic)\s+operations",
    r"There\s+are\s+\d+\s+ops\s+of",
    r"All\s+operators\s+are\s+compiled\s+by",
    r"Number\s+of\s+(?:arithmetic\s+operators|neuron\s+graph)",
    r"Compiling\s+(?:function\s|with\s+command\s+line)",
    r"Compile\s+command\s+returned",
    r"The\s+neuron\s+partitioner\s+created",
    r"Neuron\s+successfully\s+compiled",
    r"Compiled\s+these\s+operators",
    r"Not\s+compiled\s+operators",
    r"torch\.neuron\.trace\s+failed\s+on",
    r"No\s+oper(?:ator\s+is\s+placed|ations\s+were\s+successfully)",
)
# Where a message starts. What stands before it on the line is a prefix; a line without a start continues the last.
_START = re.compile(
    r"(?:INFO|WARNING|ERROR|DEBUG|CRITICAL)\s*:\s*(?:Neuron|root)\s*:"
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?Z?(?:\s*[:-]?\s*(?:INFO|WARNING|ERROR|DEBUG)\s*:?)?"
    r"|\d\d/\d\d/\d{4} \d\d:\d\d:\d\d [AP]M (?:INFO|WARNING|ERROR)"
    r"|=>\s*(?=aten::|prim::)"
    r"|(?<![\w'])(?=RuntimeError:|Traceback \(most|subprocess\.)"
    rf"|(?<![\w'.])(?={'|'.join(_MESSAGES)})"
)
# A line of a list: an operator alone, behind any prefix.
_LISTED = re.compile(r"^(?:[^:]|:(?!:))*?(?<![\w.$])((?:aten|prim)::\w+)\s*$")

_LONGEST_PREFIX = 40  # characters before a message that are no end of the message before


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
    marked_supported: set[str] = field(default_factory=set)
    all_supported: bool = False
    cpu_trace: bool = False
    errors: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)
    traces: int = 0

    @property
    def partial(self) -> bool:
        """Whether some of what was to be compiled was, and some was not."""
        if self.subgraphs is not None and self.candidates is not None:
            return 0 < self.subgraphs < self.candidates
        return self.compiled is not None and self.fused is not None and 0 < self.compiled < self.fused

    @property
    def fallback(self) -> bool | None:
        """Whether a subgraph that should have been compiled runs as plain PyTorch on the host; None: not in the log."""
        if self.cpu_trace or self.failed_graphs or self.compiled == 0 or self.partial or self.subgraphs == 0:
            return True
        if self.compiled is None or any(self.exit_codes):
            return None
        if self.subgraphs is not None and self.candidates is not None:
            return False
        return None if self.fused is None else False

    @property
    def failed(self) -> bool | None:
        """Whether less was compiled than was to be, or a compiler failed; None: not in the log."""
        return True if any(self.exit_codes) else self.fallback

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
                "supported": self._supports(kind),
                "reason": "torch-neuron lists it as not supported" if kind in self.unsupported else "",
            }
            for kind in sorted(kinds)
        }

    def _supports(self, kind: str) -> bool | None:
        if kind in self.unsupported:
            return False
        stated = kind in self.compiled_operators or kind in self.marked_supported or self.all_supported
        return True if stated else None

    def count(self, kind: str) -> int | None:
        """How often the log counts a kind; None when it only names it."""
        if kind in self.compiled_operators or kind in self.other_operators:
            return self.compiled_operators.get(kind, 0) + self.other_operators.get(kind, 0)
        return self.unsupported.get(kind)

    def to_json(self) -> dict[str, Any]:
        """The same form as CoverageReport.to_json, with the partition as it was and not as predicted."""
        names = ("name", "total", "supported", "percent", "fallback", "failed", "failed_graphs", "errors", "traces")
        of_partition = ("fused", "percent_fused", "compiled", "subgraphs", "candidates", "partial")
        logged = {name: getattr(self, name) for name in of_partition}
        return {
            **{"format": 1, "target": "inf1", "source": "torch-neuron log"},
            **{name: getattr(self, name) for name in names},
            "contradictions": self.contradictions,
            "operators": self.operators(),
            "partition": {"predicted": False, "logged": {**logged, "percent": self.percent_compiled}},
            "compiler": {"exit_codes": self.exit_codes, "subgraph_inputs": self.subgraph_inputs},
        }


def read_log(text: str, name: str = "log") -> LogReport:
    """Read a log. Of several traces in one log the last is reported; `traces` says how many there were.

    Raises LogError when there is no message of torch-neuron in it.
    """
    reader = _Reader(LogReport(name))
    text, last = _unwrapped(text), ""
    for message in _messages(text):
        content = _START.sub("", message).strip()
        if content and content != last:  # two loggers print every message twice
            reader.take(message)
            last = content
    if not reader.seen:
        raise _no_log(text, name)
    return reader.finish()


def _no_log(text: str, name: str) -> LogError:
    remedy = (
        "Give the output of torch_neuron.trace or torch_neuron.analyze_model (logging level INFO), for example "
        "`python compile.py 2>&1 | tee compile.log`."
    )
    compiler = re.search(r"\b(neuronx?-cc)\b", text)
    if not compiler:
        return LogError(f"{name}: there is no message of torch-neuron in it.", remedy)
    status = re.findall(r"Compiler status (\w+)", text)
    result = f" (its status is {status[-1][:20]})" if status else ""
    whose = f"there is no message of torch-neuron in it. It looks like the log of the compiler itself, {compiler[1]}"
    return LogError(f"{name}: {whose}{result}, which counts no operators of PyTorch.", remedy)


def read_log_file(path: Path) -> LogReport:
    """Read a log from a file. Raises LogError when it cannot be read or is not one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LogError(f"{path}: {error.strerror}.", "Give the path of a torch-neuron compile log.") from error
    half = len(data[:4000]) // 2
    if half and max(data[:4000:2].count(0), data[1:4000:2].count(0)) > 0.8 * half:
        raise LogError(
            f"{path.name}: it is UTF-16, as PowerShell's > writes it.",
            f"Make it UTF-8 first: iconv -f UTF-16 -t UTF-8 {path.name} > utf8.log",
        )
    return read_log(data.decode("utf-8", errors="replace"), path.name)


def _unwrapped(text: str) -> str:
    """The text of a notebook's outputs, and that in lines of JSON, as containers and log services write them."""
    if text.lstrip("\ufeff \r\n\t").startswith("{"):
        try:
            content = json.loads(text.lstrip("\ufeff"))
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, dict):
            return "\n".join(_texts(content))
    return "\n".join(_of_json_line(line) for line in text.splitlines())


_TEXTS = ("cells", "outputs", "text", "traceback", "events", "message", "log", "msg", "textPayload", "logEvents")


def _texts(content: dict[str, Any]) -> Iterator[str]:
    """Of a notebook the outputs of its cells; of an export of a log service its messages."""
    for key in _TEXTS:
        value = content.get(key)
        if isinstance(value, str):
            yield value
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            yield ("" if key == "text" else "\n").join(value)
        elif isinstance(value, list):
            for item in value:
                if isinstance(item, dict):
                    yield from _texts(item)


def _of_json_line(line: str) -> str:
    start = line.find("{")
    if not 0 <= start <= _LONGEST_PREFIX or not line.rstrip().endswith("}"):
        return line
    try:
        content = json.loads(line[start:])
    except (ValueError, RecursionError):
        return line
    return "\n".join(_texts(content)) or line if isinstance(content, dict) else line


def _messages(text: str) -> Iterable[str]:
    """Messages without their prefixes, wrapped lines put together again."""
    lines = [_COLOUR.sub("", line).rstrip("\r\n") for line in text.splitlines()]
    width = max((len(line) for line in lines), default=0)
    current: str | None = None
    full = False  # the last line reached the terminal's edge: it was cut inside a word
    for line in lines:
        starts = list(_START.finditer(line))
        listed = _LISTED.match(line)
        if listed and not (current or "").rstrip().endswith((",", "neuron-cc:")):
            if current is not None:
                yield current.strip()
            current, full = listed[1], False
            continue
        head = line[: starts[0].start()] if starts else line
        # Only a short prefix, such as a container's name, may stand before a message.
        if current is not None and (not starts or len(head.strip()) > _LONGEST_PREFIX):
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
        self.not_supported: int | None = None

    def take(self, message: str) -> None:
        for pattern, handler in _RULES:
            match = pattern.search(message)
            if match:
                self.seen = self.seen or handler not in _PROVE_NOTHING
                try:
                    handler(self, match)
                except ValueError:  # Python reads no number of more than 4300 digits
                    start = match[0][:60]
                    raise LogError(f"{self.report.name}: {start!r}... holds a number beyond all counts.") from None
                return

    def finish(self) -> LogReport:
        report = self.report
        if report.supported is None and report.total is not None and self.not_supported is not None:
            report.supported = report.total - self.not_supported
        rows = sum(report.compiled_operators.values()) + sum(report.other_operators.values())
        if report.supported is None and rows == report.total and None not in report.unsupported.values():
            report.supported = rows - sum(count or 0 for count in report.unsupported.values())
        report.contradictions += list(_contradictions(report))
        report.traces = max(report.traces, 1)
        return report

    def opens_list(self, match: re.Match[str]) -> None:
        self.list = match.lastgroup

    def listed(self, match: re.Match[str]) -> None:
        if self.list == "unsupported" and match[1].startswith("aten::"):
            self.report.unsupported.setdefault(match[1], None)
        elif self.list == "supported":
            self.report.marked_supported.add(match[1])

    def figures(self, match: re.Match[str]) -> None:
        """Each named group is a figure of the report."""
        for name, text in match.groupdict().items():
            setattr(self.report, name, text and (float(text) if name.startswith("percent") else int(text)))

    def not_compiled(self, match: re.Match[str]) -> None:
        kinds = re.findall(r"(?:aten|prim)::\w+", match[2].split("(For more", maxsplit=1)[0])
        own = [kind for kind in kinds if kind.startswith("aten::")]
        # How many of the number are prim:: is not there; those are no operators of the counting rule.
        self.not_supported = int(match[1]) if len(own) == len(kinds) else None
        for kind in own:
            self.report.unsupported.setdefault(kind, None)

    def all_supported(self, _: re.Match[str]) -> None:
        self.not_supported, self.report.all_supported = 0, True

    def before(self, match: re.Match[str]) -> None:
        """Of a further trace: forget the figures of the last, keep what announced this one."""
        old = self.report
        if (old.total, old.fused) != (int(match["total"]), int(match["fused"])) or old.compiled is not None:
            if old.fused is not None:
                self.report = LogReport(old.name, traces=old.traces, unsupported=dict.fromkeys(old.unsupported))
            self.report.traces += 1
        self.figures(match)

    def after(self, match: re.Match[str]) -> None:
        if self.report.total not in (None, int(match["total"])):
            before = f"{self.report.total} operators before compilation"
            _add(self.report.contradictions, f"{before}, {match['total']} after it")
        self.figures(match)

    def found(self, match: re.Match[str]) -> None:
        if self.report.candidates not in (None, int(match["candidates"])):
            before = f"{self.report.candidates} subgraphs found"
            _add(self.report.contradictions, f"{before}, and {match['candidates']} fused")
        self.figures(match)

    def row(self, match: re.Match[str]) -> None:
        kind, count, mark, negated = match.groups()
        if kind.startswith("prim::"):
            return
        if mark is None and self.list == "compiled":
            self.report.compiled_operators[kind] = int(count)
            return
        self.report.other_operators[kind] = int(count)
        if negated:
            self.report.unsupported[kind] = int(count)
        elif mark:
            self.report.marked_supported.add(kind)

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


def _contradictions(report: LogReport) -> Iterator[str]:
    """Statements of a log that cannot all hold."""
    supported, total = report.supported, report.total
    kinds = ", ".join(f"{kind}: {count}" if count else kind for kind, count in report.unsupported.items())
    left = None if total is None or supported is None else total - supported
    negated = sum(1 if count is None else count for count in report.unsupported.values())
    if kinds and (report.all_supported or (left is not None and negated > left)):
        stated = "all operators" if left is None else f"{supported} of {total} operators"
        yield f"{stated} are supported, and not supported: {kinds}"
    both = sorted(set(report.unsupported) & {*report.compiled_operators, *report.marked_supported})
    if both:
        yield f"supported or compiled, and not supported: {', '.join(both)}"
    if report.failed_graphs and report.subgraphs and report.subgraphs == report.candidates:
        yield f"{', '.join(report.failed_graphs)} fell back, and all {report.subgraphs} subgraphs were compiled"
    yield from _figures_that_differ(report)


def _figures_that_differ(report: LogReport) -> Iterator[str]:
    listed = sum(report.compiled_operators.values()) or None
    for name, count, of, limit in (
        ("supported", report.supported, "operators", report.total),
        ("fused", report.fused, "operators", report.total),
        ("compiled", report.compiled, "operators", report.total),
        ("compiled by the list", listed, "compiled", report.compiled),
        ("subgraphs compiled", report.subgraphs, "subgraphs found", report.candidates),
    ):
        if count is not None and limit is not None and count > limit:
            yield f"{name}: {count}, {of}: {limit}"
    for name, share, count in (
        ("fused", report.percent_fused, report.fused),
        ("compiled", report.percent_compiled, report.compiled),
    ):
        if share is not None and count is not None and report.total and abs(share - 100 * count / report.total) > 0.1:
            yield f"{name}: {count} of {report.total}, and {share} %"
    if report.compiled is not None and report.subgraphs is not None and bool(report.compiled) != bool(report.subgraphs):
        yield f"operators compiled: {report.compiled}, subgraphs compiled: {report.subgraphs}"
    if report.compiled and report.cpu_trace:
        yield f"operators compiled: {report.compiled}, and nothing placed on Neuron"


# What is no proof of a log of torch-neuron: the compiler's own log and other texts have such lines, too.
_PROVE_NOTHING = (_Reader.error, _Reader.listed, _Reader.row, _Reader.io_config, _Reader.returned)
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
            _Reader.after,
        ),
        (r"partitioner\s+created\s+(?P<candidates>\d+)\s+sub-graphs", _Reader.figures),
        (
            r"successfully\s+compiled\s+(?P<subgraphs>\d+)\s+sub-graphs,"
            r"\s*Total\s+fused\s+subgraphs\s*=\s*(?P<candidates>\d+)",
            _Reader.found,
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
        (r"(neuron-cc\s+failed\s+with[^\[]*)", _Reader.error),
        (r"^((?:aten|prim)::\w+)", _Reader.listed),
    )
)
