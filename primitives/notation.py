"""How numbers, arguments, operations and docstrings stand in a program text."""

from __future__ import annotations

from evolion.primitives.op import Op

__all__ = ["argument_text", "docstring_lines", "number_text", "operation_text"]


def operation_text(op: Op, args: tuple[str | float, ...]) -> str:
    """Print an operation: infix where it has a symbol, else as a call."""
    texts = [argument if isinstance(argument, str) else number_text(argument) for argument in args]
    if op.symbol:
        left, right = texts
        # `-2 ** x` would be read as -(2 ** x).
        left = f"({left})" if op.name == "power" and left.startswith("-") else left
        return f"{left} {op.symbol} {right}"
    if op.name == "identity":
        return texts[0]
    return f"{op.name}({', '.join(texts)})"


def argument_text(argument: str | float) -> str:
    """Print the name of a variable or a constant."""
    return argument if isinstance(argument, str) else number_text(argument)


def number_text(value: float) -> str:
    """Print the shortest number that reads back as the same one, whole numbers without a point."""
    text = repr(value)
    return text[:-2] if text.endswith(".0") and text != "-0.0" else text


def docstring_lines(documentation: str) -> list[str]:
    """Print a docstring with its quotes, or nothing for an empty one."""
    if not documentation:
        return []
    escaped = documentation.replace("\\", "\\\\")
    if '"""' in escaped or escaped.endswith('"'):
        escaped = escaped.replace('"', '\\"')
    first, *others = escaped.split("\n")
    return [f'"""{first}', *others, '"""'] if others else [f'"""{first}"""']
