"""What a pickle would build, found out without building it.

A kilobyte can say "twice the list before" fifty times. Whatever walks, prints or hashes the result
then takes for ever, and hashing begins while the pickle is still being read.
"""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Iterator
from typing import Any, BinaryIO

MAX_VALUES = 10_000_000
"""Values of one pickle, shared ones counted as often as they are met."""
MAX_DEPTH = 100
"""Containers within one another."""

_OPCODES = {opcode.code.encode("latin1"): opcode for opcode in pickletools.opcodes}
_PLAIN = {
    opcode.name
    for opcode in pickletools.opcodes
    if opcode.stack_after
    and not opcode.stack_before
    and not opcode.name.startswith(("EMPTY", "EXT"))
    and opcode.name not in ("MARK", "GET", "BINGET", "LONG_BINGET", "GLOBAL", "PERSID")
}
"""Operators that put a number or a text on the stack."""
_FILLING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
_TO_MEMO = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_FROM_MEMO = ("GET", "BINGET", "LONG_BINGET")


def check_structure(stream: BinaryIO) -> None:
    """Check that a pickle builds no more than `MAX_VALUES` and `MAX_DEPTH`, and no circle.

    Args:
        stream: at the start of the pickle; left at its end.

    Raises:
        pickle.UnpicklingError: It does.
        Exception: of any other type, for a damaged one.
    """
    for node in _Machine().run(stream):
        _count(node)


class _Node:
    """A container, or anything else that is made of other values."""

    __slots__ = ("children", "depth", "size")

    def __init__(self) -> None:
        self.children: list[_Node] = []
        self.size = 0  # its own values at first, then also those of all below
        self.depth = 1

    def add(self, values: list[_Node | None]) -> None:
        self.size += len(values)
        self.children += [value for value in values if value is not None]


class _Machine:
    """Goes through the operators of a pickle with a node, or None, in place of every value."""

    def __init__(self) -> None:
        self.stack: list[_Node | None] = []
        self.below: list[list[_Node | None]] = []  # what lies under each mark
        self.memo: dict[int, _Node | None] = {}
        self.nodes: list[_Node] = []

    def run(self, stream: BinaryIO) -> list[_Node]:
        for opcode, argument in _operators(stream):
            self._obey(opcode, argument)
        return self.nodes

    def _obey(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name = opcode.name
        if name in _PLAIN:
            self.stack.append(None)
        elif name == "MARK":
            self.below.append(self.stack)
            self.stack = []
        elif name in _TO_MEMO:
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name in _FROM_MEMO:
            self.stack.append(self.memo[argument])
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        elif name == "POP" and not self.stack:
            self.stack = self.below.pop()
        else:
            taken = self._take(opcode.stack_before)
            if name in _FILLING:
                target = taken[0]
                if target is None:
                    raise pickle.UnpicklingError("a number or a text that holds values")
                target.add(taken[1:])
                self.stack.append(target)
            elif opcode.stack_after:
                self.stack.append(self._new(taken))

    def _take(self, kinds: list[pickletools.StackObject]) -> list[_Node | None]:
        above: list[_Node | None] = []
        count = len(kinds)
        if pickletools.markobject in kinds:
            above, self.stack = self.stack, self.below.pop()
            count = kinds.index(pickletools.markobject)
        if count > len(self.stack):
            raise IndexError("too few values before an operator")
        start = len(self.stack) - count
        taken = self.stack[start:] + above
        del self.stack[start:]
        return taken

    def _new(self, values: list[_Node | None]) -> _Node:
        node = _Node()
        node.add(values)
        self.nodes.append(node)
        return node


def _operators(stream: BinaryIO) -> Iterator[tuple[pickletools.OpcodeInfo, Any]]:
    """Yield operators and their arguments up to the end of the pickle.

    `pickletools.genops` does not, since it stops at Python 2's texts that are not ASCII.
    """
    while True:
        code = stream.read(1)
        if code not in _OPCODES:
            raise EOFError(f"no operator {code!r}" if code else "it ends too early")
        opcode, argument = _OPCODES[code], None
        if opcode.name == "STRING":
            stream.readline()
        elif opcode.arg is not None:
            argument = opcode.arg.reader(stream)
        yield opcode, argument
        if opcode.name == "STOP":
            return


def _count(root: _Node) -> None:
    """Find size and depth of a node and of all below; those that are done have no children left."""
    path = [(root, iter(root.children))]
    on_path = {id(root)}
    while path:
        node, children = path[-1]
        child = next(children, None)
        if child is None:
            path.pop()
            on_path.remove(id(node))
            node.size += sum(child.size for child in node.children)
            node.depth += max((child.depth for child in node.children), default=0)
            node.children = []
            _check_size(node)
        elif id(child) in on_path:
            raise pickle.UnpicklingError("one of its containers holds itself")
        elif child.children:
            path.append((child, iter(child.children)))
            on_path.add(id(child))


def _check_size(node: _Node) -> None:
    if node.size > MAX_VALUES:
        raise pickle.UnpicklingError(
            f"its containers are shared so often that they hold more than {MAX_VALUES:,} values"
        )
    if node.depth > MAX_DEPTH:
        raise pickle.UnpicklingError(f"it has more than {MAX_DEPTH} containers in one another")
