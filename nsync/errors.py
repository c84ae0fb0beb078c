"""The one error that a user of this project is meant to read."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input, told once: which input, what was expected, what came, what to do.

    Args:
        name: the input, as the user knows it (a node's input id, a file's name).
        expected: the rule, as a phrase ("a folder under input/ or datasets/").
        got: the received value, as a phrase; quoted values are the caller's choice.
        remedy: what to do about it, as a sentence; empty if the rule already says it.
    """

    def __init__(self, name: str, expected: str, got: str, remedy: str = "") -> None:
        self.name, self.expected, self.got, self.remedy = name, expected, got, remedy
        tail = f" {remedy}" if remedy else ""
        super().__init__(f"`{name}`: expected {expected}; got {got}.{tail}")


@contextmanager
def told_as(name: str) -> Iterator[None]:
    """What is raised in the block tells of the input `name`, as the user of a caller knows it."""
    try:
        yield
    except InputError as error:
        raise InputError(name, error.expected, error.got, error.remedy) from error
