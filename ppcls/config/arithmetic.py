"""Reads sums such as ``1.0/255.0``: numbers, + - * / and parentheses, and nothing else."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable

OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
LONGEST = 100  # characters; far more than any published value needs


def evaluate(text: str) -> float:
    """The value of an arithmetic expression.

    Raises:
        ValueError: the text is not a sum of numbers, or divides by zero.
    """
    if len(text) > LONGEST:
        raise ValueError(f"expected at most {LONGEST} characters, received {len(text)}")
    unreadable = (SyntaxError, ZeroDivisionError, RecursionError, OverflowError, MemoryError)
    try:
        return _value(ast.parse(text.strip().replace("\0", "?"), mode="eval").body)
    except unreadable as error:
        raise ValueError(f"expected a number or a sum of numbers, received '{text}'") from error


def _value(node: ast.expr) -> float:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
            raise ValueError(f"expected a number, received {node.value!r}")
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _value(node.operand)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError(f"expected numbers, + - * / and parentheses, received '{ast.unparse(node)}'")
