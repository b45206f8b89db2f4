"""Errors that people cause: one line that says what, where and what to do. Commands print it and exit with status 2."""
import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a config, a data set, a file or a checkpoint. The message is one line and needs no traceback."""


class Stopped(Exception):
    """A run that ended early without anybody's mistake, and that the same command resumes: one line, and its exit status."""

    def __init__(self, text: str, status: int):
        super().__init__(text)
        self.status = status


def at_least(where: str, node: object, **least: int) -> None:
    """Refuses numbers of a group of keys that are below these; `where` names the group, and is empty for the outermost."""
    for key, number in least.items():
        if getattr(node, key) < number:
            raise UserError(f"{where and where + '.'}{key}: {getattr(node, key)} is less than {number}")


def nearest(name: str, options: Iterable[str], n: int = 1) -> list[str]:
    """The `n` options most like `name`, best first; the closest ones even when none is close."""
    return difflib.get_close_matches(name, list(options), n=n, cutoff=0.0)


def did_you_mean(name: str, options: Iterable[str], n: int = 1) -> str:
    """`"; did you mean 'x'?"`, or the empty string where there is nothing to offer."""
    found = nearest(name, options, n)
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""
