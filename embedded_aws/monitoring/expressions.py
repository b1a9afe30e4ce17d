"""CloudWatch metric math, as far as it is supported here; anything else is an error that names it.

Source: "Using math expressions with CloudWatch metrics",
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html

Supported: numbers, ids, + - * / ^ and unary minus, comparisons (they give 1 or 0), AND OR (also && ||), parentheses,
IF(condition, then, else), FILL(metric, number), ABS, CEIL, FLOOR, and MIN, MAX, SUM, AVG of an array [m1, m2, ...],
value by value. A period in which a needed value is missing, or in which a division by zero happens, has no value.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ValidationError

_BINARY: dict[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.AST], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_SINGLE: dict[str, Callable[[float], float]] = {"ABS": abs, "CEIL": math.ceil, "FLOOR": math.floor}
_ARRAY: dict[str, Callable[[list[float]], float]] = {
    "MIN": min,
    "MAX": max,
    "SUM": sum,
    "AVG": lambda values: sum(values) / len(values),
}


class ExpressionError(ValidationError):
    """An expression that cannot be read, or that uses what is not supported."""


class _MissingError(Exception):
    """A needed value is not there."""


class Expression:
    """A parsed expression. Raises ExpressionError when it uses anything that is not supported."""

    def __init__(self, text: str) -> None:
        self.text = text
        python = re.sub(r"&&|\bAND\b", " and ", text)
        python = re.sub(r"\|\||\bOR\b", " or ", python).replace("^", "**")
        try:
            self._tree = ast.parse(python.strip(), mode="eval").body
        except SyntaxError as error:
            raise ExpressionError(f"Metric math {text!r} cannot be read: {error.msg}") from error
        self.names: set[str] = set()
        self._check(self._tree)

    def value(self, values: Mapping[str, float]) -> float | None:
        """The value in one period from the values of that period; None when there is none."""
        try:
            result = self._value(self._tree, values)
        except (_MissingError, ZeroDivisionError):
            return None
        return float(result)

    def _check(self, node: ast.AST) -> None:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return
        if isinstance(node, ast.Name):
            self.names.add(node.id)
            return
        for child in self._children(node):
            self._check(child)

    def _children(self, node: ast.AST) -> list[ast.expr]:
        """The operands of a supported node; raises ExpressionError for any other."""
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            return [node.left, node.right]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return [node.operand]
        if isinstance(node, ast.BoolOp):
            return node.values
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
            return [node.left, *node.comparators]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self._arguments(node.func.id, node.args)
        raise ExpressionError(f"Metric math {self.text!r}: the embedded AWS does not support {ast.unparse(node)!r}")

    def _arguments(self, function: str, arguments: list[ast.expr]) -> list[ast.expr]:
        counts = {"IF": 3, "FILL": 2, **dict.fromkeys(_SINGLE, 1), **dict.fromkeys(_ARRAY, 1)}
        if function not in counts:
            raise ExpressionError(f"Metric math {self.text!r}: the embedded AWS does not support {function}()")
        if len(arguments) != counts[function]:
            raise ExpressionError(f"Metric math {self.text!r}: {function}() takes {counts[function]} arguments here")
        if function in _ARRAY:
            if not isinstance(arguments[0], ast.List):
                raise ExpressionError(f"Metric math {self.text!r}: {function}() takes an array such as [m1, m2] here")
            return arguments[0].elts
        if function == "FILL" and not isinstance(arguments[1], (ast.Constant, ast.UnaryOp)):
            raise ExpressionError(f"Metric math {self.text!r}: FILL() takes a number as its second argument here")
        return arguments

    def _value(self, node: Any, values: Mapping[str, float]) -> float:
        if isinstance(node, ast.Constant):
            return float(node.value)  # type: ignore[arg-type]
        if isinstance(node, ast.Name):
            if node.id not in values:
                raise _MissingError
            return values[node.id]
        if isinstance(node, ast.BinOp):
            return _BINARY[type(node.op)](self._value(node.left, values), self._value(node.right, values))
        if isinstance(node, ast.UnaryOp):
            return -self._value(node.operand, values)
        if isinstance(node, ast.BoolOp):
            parts = [self._value(part, values) != 0 for part in node.values]
            return float(all(parts) if isinstance(node.op, ast.And) else any(parts))
        return self._compared(node, values) if isinstance(node, ast.Compare) else self._call(node, values)

    def _compared(self, node: ast.Compare, values: Mapping[str, float]) -> float:
        left, right = self._value(node.left, values), self._value(node.comparators[0], values)
        return float(_COMPARE[type(node.ops[0])](left, right))

    def _call(self, node: Any, values: Mapping[str, float]) -> float:
        function, arguments = node.func.id, node.args
        if function == "IF":
            condition = self._value(arguments[0], values) != 0
            return self._value(arguments[1] if condition else arguments[2], values)
        if function == "FILL":
            try:
                return self._value(arguments[0], values)
            except _MissingError:
                return self._value(arguments[1], values)
        if function in _SINGLE:
            return float(_SINGLE[function](self._value(arguments[0], values)))
        return float(_ARRAY[function]([self._value(item, values) for item in arguments[0].elts]))
