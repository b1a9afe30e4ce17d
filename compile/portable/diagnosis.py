"""Why a compilation failed: the log's own line, the cause in words, and the way out. Standard library alone."""

from __future__ import annotations

import re
from dataclasses import dataclass

from compile.portable.process import Cost

STATED = "ERROR: "  # begins what the driver itself has to say of a failure
_SHOWN = 300
_SMALLER = "Compile on a machine with more memory, or make the graph smaller (smaller bucket or batch, fewer roles)."


@dataclass(frozen=True)
class Kind:
    """A known failure. `pattern` is searched in single lines of the log."""

    pattern: str
    cause: str
    remedy: str


@dataclass(frozen=True)
class Finding:
    """A failure in a log: its line as it stands there, the cause, and the way out."""

    line: str
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.cause}\n    the log says: {self.line}" if self.line else self.cause


# What went wrong first: a cause stands before what follows from it, since the first kind that is found is reported.
KINDS: tuple[Kind, ...] = (
    Kind(
        r"compile\.errors\.CompileError: ",
        "the variant could not be prepared for the compiler",
        "See the line above.",
    ),
    Kind(
        r"unrecognized arguments?|invalid choice:|argument --?\w[\w-]*: ",
        "the compiler does not know one of its arguments",
        "Correct compile.inf1.arguments or compile.inf2.arguments in the spec; --optlevel is the right spelling.",
    ),
    Kind(
        r"No space left on device",
        "the disk is full",
        "Make room, or name a larger disk with --work-directory.",
    ),
    Kind(
        r"returned: -9\b|failed with -9\b|\bSIGKILL\b|forcibly killed|\[F137\]|Out of memory: Kill",
        "the compiler was killed (-9): almost always the machine ran out of memory",
        _SMALLER,
    ),
    Kind(
        r"TimeoutExpired|timed out after",
        "the compiler did not finish within compile.timeout",
        "Write a longer compile.timeout, a smaller bucket or batch, or compile on a faster machine.",
    ),
    Kind(
        r"protobuf.*2 ?GB|exceeds (the )?maximum protobuf|larger than 2GB|Cannot serialize protocol buffer",
        "the weights are too large for the compiler's message (about 1.9 GB)",
        "Write compile: {inf1: {separate_weights: true}}.",
    ),
    Kind(
        r"expected scalar type Double but found Float|\bfloat64\b.*not supported",
        "a tensor of the model is float64, which Inferentia does not have",
        "Cast it to float32 where the model makes it.",
    ),
    Kind(
        r"Unknown builtin op: neuron::",
        "a compiled graph was loaded without the Neuron runtime",
        "Import torch_neuron (or torch_neuronx) before torch.jit.load.",
    ),
    Kind(
        r"neuronx?-cc'?: (command )?not found|No such file or directory: '?neuronx?-cc",
        "the compiler itself is not installed",
        "Install neuron-cc (Inf1) or neuronx-cc (Inf2) from AWS's Neuron repository.",
    ),
    Kind(
        r"PyTorch to TF conversion failed",
        "torch_neuron could not hand the graph to the compiler",
        "See which operator the log names; inferentia analyze NAME lists what can be lowered.",
    ),
    Kind(
        r"Compile command returned: (?!0\b)-?\d+|neuronx?-cc failed with",
        "the compiler ended with an error",
        "Read the compiler's own log in the record's folder compiler/; try --verbose INFO in the arguments.",
    ),
    Kind(
        r"No operations were successfully partitioned",
        "not one operator was compiled: the graph would run on the host alone",
        "Run inferentia analyze NAME; the model must be an ordinary module, not one that is scripted already.",
    ),
    Kind(
        r"falling back to native python function call|No operator is placed on Neuron",
        "a subgraph silently fell back to the host",
        "Read the log before that line, and the compiler's own log in the record's folder compiler/.",
    ),
)


def first(text: str) -> Finding | None:
    """The first kind of failure (in the order of causes) that a log shows, with its line."""
    lines = text.splitlines()
    for kind in KINDS:
        for line in lines:
            if re.search(kind.pattern, line):
                return Finding(line.strip()[:_SHOWN], kind.cause, kind.remedy)
    return None


def line_with(text: str, pattern: str) -> str:
    """The last line of a log that has a pattern; empty when none has."""
    found = [line.strip()[:_SHOWN] for line in text.splitlines() if re.search(pattern, line)]
    return found[-1] if found else ""


def ended(text: str, code: int, timed_out: bool, limit: str, cost: Cost) -> Finding:
    """Why a driver that wrote the log `text` did not end well. limit: the time that it had, in words."""
    last, found = line_with(text, r"\S") or "(nothing)", first(text)
    _, stated, words = text.rpartition(f"\n{STATED}")
    if stated or text.startswith(STATED):  # by the driver itself, before or after the compiler ran
        words = words.removeprefix(STATED).strip()
        return Finding("", words, "Build with -v, or see docs/portable-graph.md for what a graph file promises.")
    if timed_out:
        cause = f"the compiler did not finish within compile.timeout, {limit}, and was ended after {cost.seconds:.0f} s"
        return Finding(last, cause, "Write a longer compile.timeout, a smaller bucket or batch.")
    if code == -9 and (found is None or "killed" not in found.cause):
        peak = f"{cost.peak_bytes / 2**30:.1f} GiB at most were in use"
        return Finding(last, f"the compiling process was killed (-9); {peak}", _SMALLER)
    return found or Finding(last, f"compiling ended with exit code {code}", "Read the whole log in the record.")
