"""The scheduler of the stock container's worker, which has one request at a time: batches run on the calling thread."""

from __future__ import annotations

from collections.abc import Sequence

from inference_code.artifact.manifest import PackagedVariant
from inference_code.errors import EndpointError
from inference_code.execution.batching import ItemResult, Run, fitting, run_batch, split_outputs
from inference_code.request import Item


class DirectScheduler:
    """Groups the items of one call by graph, fills batches, and runs them one after the other."""

    def __init__(self, graphs: Sequence[PackagedVariant], run: Run) -> None:
        self._graphs = tuple(graphs)
        self._run = run

    def run(self, items: Sequence[Item]) -> list[ItemResult]:
        """See Scheduler. An item that fits no graph fails alone; a batch that fails, fails for all of its items."""
        results: dict[int, ItemResult] = {}
        groups: dict[tuple[str, ...], tuple[list[PackagedVariant], list[int]]] = {}
        for index, item in enumerate(items):
            try:
                graphs = fitting(item, self._graphs)
                groups.setdefault(tuple(graph.file for graph in graphs), (graphs, []))[1].append(index)
            except EndpointError as error:
                results[index] = error
        for graphs, indices in groups.values():
            start = 0
            for graph, count in plan(len(indices), graphs):
                part = indices[start : start + count]
                start += count
                batch = [items[index] for index in part]
                try:
                    found: Sequence[ItemResult] = split_outputs(graph, batch, run_batch(graph, batch, self._run))
                except EndpointError as error:
                    found = [error] * count
                results.update(zip(part, found, strict=True))
        return [results[index] for index in range(len(items))]


def plan(count: int, graphs: Sequence[PackagedVariant]) -> list[tuple[PackagedVariant, int]]:
    """Which graph takes how many of `count` items: full large batches first, the rest in the smallest that holds it.

    `graphs` differ in batch size alone, smallest first.
    """
    batches = []
    while count > 0:
        graph = next((graph for graph in graphs if graph.batch_size >= count), graphs[-1])
        taken = min(count, graph.batch_size)
        batches.append((graph, taken))
        count -= taken
    return batches
