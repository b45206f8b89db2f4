"""Many files by one name: a file, a folder, a range such as `{00000..00331}`, alternatives `{a,b}`, or a pattern with `*`, `**`, `?` and `[…]`."""
import os
import posixpath
import re

from vlmjax.data.files_at import File, join, shown
from vlmjax.errors import UserError

# A name of more files than this is a slip; LAION-2B has 231,350 shards.
MOST = 1_000_000

_BRACES = re.compile(r"\{(?P<first>\d+)\.\.(?P<last>\d+)\}|\{(?P<options>[^{}]*,[^{}]*)\}")


def find(data_dir: str | os.PathLike, name: str, suffix: str) -> list[str]:
    """The files' paths: those of a range or of alternatives in the order in which it names them, of a folder (those that end with `suffix`) or a pattern
    by name. UserError where there are none, or where one that is named by itself is not there."""
    found, whole = [], join(os.fspath(data_dir), name)
    for path in [whole] if File(whole).exists() else _spelled(whole):
        file = File(path)
        if file.is_folder():
            found += file.listing(suffix)
            if not found:
                raise UserError(f"{shown(path)}: holds no file {suffix} itself; of folders inside it, name {shown(path.rstrip('/'))}/**/*{suffix}")
        elif file.exists():
            found.append(path)
        elif re.search(r"[*?\[]", path):
            found += file.matches()
            if not found:
                raise UserError(f"{shown(path)}: there is no such file")
        else:
            raise UserError(f"{shown(path)}: there is no such file")
    if len(set(found)) < len(found):
        raise UserError(f"{shown(whole)}: names {shown(next(path for path in found if found.count(path) > 1))} more than once")
    return found


def labels(paths: list[str]) -> list[str]:
    """What tells files apart, without what all have in common: their paths below the folder that holds them all, without their last suffix."""
    parent = posixpath.commonprefix([path.rsplit("/", 1)[0] + "/" for path in paths])
    start = parent.rfind("/") + 1
    short = [path[start:].rsplit(".", 1)[0] for path in paths]
    return short if len(set(short)) == len(paths) else [path[start:] for path in paths]


def _spelled(path: str) -> list[str]:
    """All paths that the braces of a path stand for."""
    made, rest = [""], path
    while found := _BRACES.search(rest):
        if found["first"] is not None:
            first, last, width = int(found["first"]), int(found["last"]), len(found["first"])
            if len(found["first"]) != len(found["last"]) and "0" in (found["first"][0], found["last"][0]) or last < first:
                raise UserError(f"{shown(path)}: {found[0]} is not a range of numbers that begins with the lowest and keeps its zeros, such as {{000..031}}")
            count, options = last - first + 1, (f"{n:0{width}d}" for n in range(first, last + 1))
        else:
            options = found["options"].split(",")
            count = len(options)
        if len(made) * count > MOST:
            raise UserError(f"{shown(path)}: stands for more than {MOST:,} files")
        options = list(options)
        made = [f"{begin}{rest[: found.start()]}{option}" for begin in made for option in options]
        rest = rest[found.end() :]
    return [begin + rest for begin in made]
