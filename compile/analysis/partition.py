"""Predict which nodes torch-neuron compiles and how they fall into subgraphs.

AWS has not published its rule, so every result here is a prediction. Known from its documents: subgraphs smaller than
`minimum_segment_size` nodes stay on the host, and when one subgraph holds more than `single_fusion_ratio_threshold` of
all nodes, only that one is compiled. The rest of the scheme is ours: nodes get a level, which counts the changes of
device on the longest way to them (host levels are even, device levels odd); the level that most supported nodes can
join is filled first; connected nodes of one level form a subgraph. No path leaves a level and comes back to it, so a
subgraph never waits for itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from compile.analysis.support import Verdict
from compile.ir.aliases import OPAQUE, Aliases
from compile.ir.graph import INTEGER_TYPES, Graph, Node

MINIMUM_SEGMENT_SIZE = 2
SINGLE_FUSION_RATIO = 0.6


@dataclass(frozen=True)
class Rules:
    """What torch_neuron.trace takes under the same names, with its defaults."""

    minimum_segment_size: int = MINIMUM_SEGMENT_SIZE
    single_fusion_ratio_threshold: float = SINGLE_FUSION_RATIO


@dataclass(frozen=True)
class Segment:
    """One candidate subgraph: its nodes in program order and whether the rules let it be compiled."""

    level: int
    nodes: tuple[int, ...]
    compiled: bool


@dataclass(frozen=True)
class Plan:
    """A predicted partition. `levels` orders host nodes and segments: lower ones run first.

    `fixed` are the nodes that depend on nothing but static shapes and weights; a compiled subgraph has them built in.
    `host_reasons` says why a supported node stays on the host.
    """

    segments: tuple[Segment, ...]
    levels: dict[int, int]
    device: frozenset[int]
    fixed: frozenset[int]
    host_reasons: dict[int, str]

    @property
    def compiled_segments(self) -> tuple[Segment, ...]:
        return tuple(segment for segment in self.segments if segment.compiled)


@dataclass
class _Problem:
    """The planning problem: units in program order, what each waits for, and which may run on the device."""

    units: list[int]
    before: dict[int, list[int]]
    able: set[int]
    reasons: dict[int, str]
    fixed: set[int]


def plan_as_logged(graph: Graph, verdicts: dict[int, Verdict], rules: Rules) -> Plan:
    """The partition from data edges alone, to compare with a torch-neuron log. It may compute something else when the
    model writes through views: use `plan_safe` for anything but the comparison."""
    able = {index for index, verdict in verdicts.items() if verdict.supported and graph.nodes[index].owner is None}
    problem = _problem(graph, able, fixed=set(), edges=(), reasons={})
    plan = _solve(graph, problem, verdicts, rules)
    on_host = _numbers_for_host(graph, plan.device)
    return replace(plan, device=plan.device - on_host, host_reasons=dict.fromkeys(on_host, _NUMBER))


def plan_safe(graph: Graph, verdicts: dict[int, Verdict], aliases: Aliases, rules: Rules) -> Plan:
    """The partition that computes what the model computes: writes through views, integer data and numbers that the
    data decides stay on the host, and nothing moves across a write to memory that it reads."""
    fixed = _fixed_nodes(graph, verdicts, aliases)
    reasons = dict(aliases.host)
    for index, reason in _integer_nodes(graph, fixed).items():
        reasons.setdefault(index, reason)
    able = {
        index
        for index, verdict in verdicts.items()
        if verdict.supported and graph.nodes[index].owner is None and index not in reasons and index not in fixed
    }
    return _solve(graph, _problem(graph, able, fixed, aliases.edges, reasons), verdicts, rules)


_NUMBER = "makes a number that a host operator needs; a subgraph returns tensors only"


def _numbers_for_host(graph: Graph, device: Collection[int]) -> set[int]:
    """Nodes of the device whose number (not tensor) a host operator reads: they are counted on the host."""
    needed: set[int] = set()
    found: set[int] = set()
    for node in reversed(graph.nodes):
        read, values = (
            any(output in needed for output in node.outputs),
            [graph.values[output] for output in node.outputs],
        )
        if node.index in device:
            numbers = (not value.is_tensor or (value.shape == () and value.dtype in INTEGER_TYPES) for value in values)
            if not (read and all(numbers)):
                continue
            found.add(node.index)
        if node.counted or node.kind in OPAQUE or read:
            needed.update(node.inputs)
    return found


def _problem(
    graph: Graph, able: set[int], fixed: set[int], edges: Sequence[tuple[int, int]], reasons: dict[int, str]
) -> _Problem:
    """Resolve values to the units that make them; constructors of lists and tuples are looked through."""
    makers: dict[int, tuple[int, ...]] = {}
    before: dict[int, list[int]] = {}
    units = []
    for node in graph.nodes:
        sources = [maker for value in node.inputs for maker in makers.get(value, ())]
        if node.index in fixed:
            continue
        if node.owner is not None:
            before[node.owner].extend(maker for maker in sources if maker != node.owner)
            made: tuple[int, ...] = (node.owner,)
        elif node.counted or node.kind in OPAQUE:
            units.append(node.index)
            before[node.index] = sources
            made = (node.index,)
        else:
            made = tuple(dict.fromkeys(sources))
        for output in node.outputs:
            makers[output] = made
    for earlier, later in edges:
        if earlier in before and later in before:
            before[later].append(earlier)
    return _Problem(units, before, able, reasons, fixed)


def _solve(graph: Graph, problem: _Problem, verdicts: dict[int, Verdict], rules: Rules) -> Plan:
    earliest = _levels(problem, {})
    main = _main_level(problem, earliest)
    levels = _levels(problem, dict.fromkeys(_joining(problem, earliest, main), main))
    total = len(verdicts)
    segments = _segments(problem, levels, total, rules)
    device = {index for segment in segments if segment.compiled for index in segment.nodes}
    device |= _fixed_on_device(graph, problem.fixed, device, verdicts)
    return Plan(segments, levels, frozenset(device), frozenset(problem.fixed), problem.reasons)


def _levels(problem: _Problem, pulled: dict[int, int]) -> dict[int, int]:
    """The lowest level of every unit, given the ones that are pulled up to a level."""
    levels: dict[int, int] = {}
    for unit in problem.units:
        parity = int(unit in problem.able)
        level = pulled.get(unit, parity)
        for earlier in problem.before[unit]:
            level = max(level, levels[earlier])
        levels[unit] = level + (level % 2 != parity)
    return levels


def _main_level(problem: _Problem, earliest: dict[int, int]) -> int:
    """The device level that most able units can join, each taken alone: it lies between their earliest and latest."""
    top = max(earliest.values(), default=0) + 1
    latest = dict.fromkeys(problem.units, top)
    change = [0] * (top + 3)
    for unit in reversed(problem.units):
        parity = int(unit in problem.able)
        level = latest[unit]
        level -= level % 2 != parity
        latest[unit] = level
        for earlier in problem.before[unit]:
            latest[earlier] = min(latest[earlier], level)
        if parity:
            change[earliest[unit]] += 1
            change[level + 1] -= 1
    best, most, running = 1, 0, 0
    for level, step in enumerate(change):
        running += step
        if level % 2 and running > most:
            best, most = level, running
    return best


def _joining(problem: _Problem, earliest: dict[int, int], main: int) -> set[int]:
    """The able units that can all be in the main level together: none reaches another through a unit outside it."""
    joining: set[int] = set()
    reaching: set[int] = set()  # has a way to the main level
    leaving: set[int] = set()  # has a way to the main level that passes a unit outside it
    for unit in reversed(problem.units):
        if unit in problem.able and earliest[unit] <= main and unit not in leaving:
            joining.add(unit)
            reaching.update(problem.before[unit])
        elif unit in reaching or unit in leaving:
            reaching.update(problem.before[unit])
            leaving.update(problem.before[unit])
    return joining


def _segments(problem: _Problem, levels: dict[int, int], total: int, rules: Rules) -> tuple[Segment, ...]:
    """Connected able units of one level; then the two rules that decide which of them are compiled."""
    parent = {unit: unit for unit in problem.able}

    def root(unit: int) -> int:
        while parent[unit] != unit:
            parent[unit] = parent[parent[unit]]
            unit = parent[unit]
        return unit

    for unit in problem.units:
        if unit in problem.able:
            for earlier in problem.before[unit]:
                if earlier in problem.able and levels[earlier] == levels[unit]:
                    parent[root(earlier)] = root(unit)
    members: dict[int, list[int]] = {}
    for unit in problem.units:
        if unit in problem.able:
            members.setdefault(root(unit), []).append(unit)
    groups = sorted(members.values(), key=lambda group: (levels[group[0]], group[0]))
    kept = [group for group in groups if len(group) >= rules.minimum_segment_size]
    largest = max(kept, key=len, default=[])
    if len(largest) > rules.single_fusion_ratio_threshold * total:
        kept = [largest]
    return tuple(Segment(levels[group[0]], tuple(group), compiled=group in kept) for group in groups)


def _fixed_nodes(graph: Graph, verdicts: dict[int, Verdict], aliases: Aliases) -> set[int]:
    """Nodes whose result is known before the first request: shape arithmetic, and integers made of weights.

    Float tensors made of weights alone are not among them: they are ordinary nodes of the subgraph that needs them.
    """
    known = set(graph.parameters)
    fixed: set[int] = set()
    for node in graph.nodes:
        # A write changes what memory holds, never its size.
        free = node.kind in ("aten::size", "aten::dim", "aten::numel", "prim::Constant")
        changes = node.index in aliases.host or node.index in aliases.changing
        if node.owner is not None or (changes and not free):
            continue
        if not free and not all(value in known for value in node.inputs):
            continue
        is_random = "rand" in node.kind or "!" in node.schema or node.kind.startswith("aten::empty")
        if node.counted and (is_random or not (verdicts[node.index].supported and _small(graph, node))):
            continue
        if node.kind in OPAQUE:
            continue
        known.update(node.outputs)
        if node.counted:
            fixed.add(node.index)
    return fixed


def _small(graph: Graph, node: Node) -> bool:
    """Whether all results are numbers, lists of numbers or integer tensors."""
    values = [graph.values[output] for output in node.outputs]
    return all(not value.is_tensor or value.dtype in INTEGER_TYPES or value.shape == () for value in values)


def _integer_nodes(graph: Graph, fixed: Collection[int]) -> dict[int, str]:
    """Nodes that take or give integer tensors or numbers that depend on the data: the Neuron runtime takes no int64
    from the host, and a number cannot cross the boundary at all."""
    reasons: dict[int, str] = {}
    loose = {value for value in graph.inputs if graph.values[value].dtype in INTEGER_TYPES}
    numbers: set[int] = set()
    for node in graph.nodes:
        if node.index in fixed or node.kind == "prim::Constant":
            continue
        if not node.counted and not any(value in loose or value in numbers for value in node.inputs):
            continue
        for output in node.outputs:
            value = graph.values[output]
            if value.is_tensor and value.dtype in INTEGER_TYPES:
                loose.add(output)
            elif value.type in ("IntType", "FloatType", "BoolType", "NumberType"):
                numbers.add(output)
            elif not node.counted:  # a list that holds some of them
                (numbers if any(item in numbers for item in node.inputs) else loose).add(output)
        if node.counted:
            touched = (*node.inputs, *node.outputs)
            if any(value in numbers for value in touched):
                reasons[node.index] = "makes or uses a number that the data decides"
            elif any(value in loose for value in touched):
                reasons[node.index] = "works on integer data, which stays on the host"
    return reasons


def _fixed_on_device(
    graph: Graph, fixed: Collection[int], device: Collection[int], verdicts: dict[int, Verdict]
) -> set[int]:
    """Fixed nodes count as compiled where a compiled node needs them, as torch-neuron counts them."""
    wanted: set[int] = set()
    found: set[int] = set()
    for node in reversed(graph.nodes):
        needed = node.index in device or any(output in wanted for output in node.outputs)
        if needed and (node.index in device or node.index in fixed or not node.counted):
            wanted.update(node.inputs)
            if node.index in fixed and verdicts[node.index].supported:
                found.add(node.index)
    return found
