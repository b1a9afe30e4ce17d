"""Runs a predicted partition as the hardware would, so that a test can compare it with the model.

A compiled subgraph works on copies: its inputs are copied in when it starts, its weights were copied when it was
compiled, its operators give new tensors (an in-place operator too, as torch-neuron's translation does), and what
leaves it is a new tensor. The host runs PyTorch's own operators, views and in-place writes included. Levels run in
order; host nodes of a level in program order.
"""

from __future__ import annotations

import re
from typing import Any

import torch

from compile.analysis.partition import Plan
from compile.ir.graph import Graph, Node, constant


class Machine:
    """`run` executes a plan once; state (the model's buffers) is kept between runs, as on a server."""

    def __init__(self, graph: Graph, plan: Plan, module: torch.nn.Module) -> None:
        self.graph = graph
        self.plan = plan
        self.makers = {output: node for node in graph.nodes for output in node.outputs}
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        self.state = {value: tensors[name].detach().clone() for value, name in graph.parameters.items()}
        for node in graph.nodes:
            if node.kind == "prim::Constant":
                self.state[node.outputs[0]] = copy(constant(node.handle.outputsAt(0)))
        self.baked = {value: copy(item) for value, item in self.state.items()}

    def run(self, *inputs: torch.Tensor) -> list[Any]:
        memory: dict[int, Any] = {**self.state, **dict(zip(self.graph.inputs, inputs, strict=True))}
        with torch.no_grad():
            for unit in self.schedule():
                if isinstance(unit, list):
                    self.device(unit, memory)
                else:
                    self.host(unit, memory)
            return [self.read(value, memory) for value in self.graph.outputs]

    def schedule(self) -> list[Any]:
        """Host nodes and subgraphs in the order in which the plan runs them."""
        units: list[tuple[int, int, Any]] = []
        compiled = set()
        for part in self.plan.compiled_segments:
            compiled.update(part.nodes)
            units.append((part.level, part.nodes[0], [self.graph.nodes[index] for index in part.nodes]))
        for node in self.graph.nodes:
            if node.counted and node.index not in compiled and node.index not in self.plan.fixed:
                assert node.owner is None, "the machine does not run scripted control flow"
                units.append((self.plan.levels[node.index], node.index, node))
        units.sort(key=lambda unit: unit[:2])
        return [unit[2] for unit in units]

    def read(self, value: int, memory: dict[int, Any]) -> Any:
        """The current content of a value; lists are put together on the way, fixed nodes computed from the shapes."""
        if value in memory:
            return memory[value]
        node = self.makers[value]
        if node.index in self.plan.fixed and node.kind == "aten::size":
            shape = self.graph.values[node.inputs[0]].shape
            return shape[self.read(node.inputs[1], memory)] if len(node.inputs) > 1 else list(shape)
        items = [self.read(item, memory) for item in node.inputs]
        if node.kind in ("prim::ListUnpack", "prim::TupleUnpack"):
            return items[0][node.outputs.index(value)]
        assert node.index in self.plan.fixed or node.kind in _PRIMITIVES, f"{node.kind} was read before it ran"
        return call(node, items)

    def host(self, node: Node, memory: dict[int, Any]) -> None:
        result = call(node, [self.read(value, memory) for value in node.inputs])
        memory.update(zip(node.outputs, result if len(node.outputs) > 1 else [result], strict=True))

    def device(self, nodes: list[Node], memory: dict[int, Any]) -> None:
        inside = {output for node in nodes for output in node.outputs}
        entering = {value for node in nodes for value in self.leaves(node)} - inside
        local = {value: copy(memory[value]) for value in entering if value in memory} | self.baked
        for node in nodes:
            result = copy(call(node, [copy(self.read(value, local)) for value in node.inputs]))
            local.update(zip(node.outputs, result if len(node.outputs) > 1 else [result], strict=True))
        memory.update({value: local[value] for value in inside})

    def leaves(self, node: Node) -> list[int]:
        """The values that a node reads, those inside lists and tuples included."""
        waiting, found = list(node.inputs), []
        while waiting:
            value = waiting.pop()
            found.append(value)
            maker = self.makers.get(value)
            if maker is not None and (not maker.counted or maker.index in self.plan.fixed):
                waiting.extend(maker.inputs)
        return found


_PRIMITIVES = {
    "prim::ListConstruct": list,
    "prim::TupleConstruct": tuple,
    "prim::NumToTensor": lambda items: torch.tensor(items[0]),
    "prim::ImplicitTensorToNum": lambda items: items[0].item(),
}


def copy(item: Any) -> Any:
    if isinstance(item, torch.Tensor):
        return item.detach().clone()
    if isinstance(item, (list, tuple)):
        return type(item)(copy(part) for part in item)
    return item


def call(node: Node, items: list[Any]) -> Any:
    """One aten operator, called by its schema, or a primitive."""
    if node.kind in _PRIMITIVES:
        return _PRIMITIVES[node.kind](items)
    if node.kind in ("aten::Int", "aten::Float", "aten::Bool", "aten::ScalarImplicit"):
        return {"aten::Int": int, "aten::Float": float, "aten::Bool": bool}.get(node.kind, torch.Tensor.item)(items[0])
    arguments = re.match(r"[\w:.]+\((.*)\) -> ", node.schema).group(1)
    names = [part.split("=")[0].split(" ")[-1] for part in re.split(r",\s*(?![^\[(]*[\])])", arguments)]
    star = names.index("*") if "*" in names else len(names)
    operation, _ = torch._C._jit_get_operation(node.kind)
    return operation(*items[:star], **dict(zip(names[star + 1 :], items[star:], strict=True)))
