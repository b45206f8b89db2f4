"""What published benchmarks share: their files under the data directory as their publishers lay them out, what is asked, and how answers are read.

Every task asks as LLaVA 1.5 does (haotian-liu/LLaVA, docs/Evaluation.md) and scores as the benchmark's own program; tests hold what those programs say of the same answers (tests/golden/scorers).
"""
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vlmjax.data import json_rows
from vlmjax.data.datasets import published
from vlmjax.data.datasets.published import PublishedSource
from vlmjax.data.example import IMAGE_MARK, Turn
from vlmjax.data.files_at import File, join
from vlmjax.data.folders import Folder, open_folder
from vlmjax.errors import UserError
from vlmjax.evaluate.scoring import Metric, Row, Value, ratio

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."


def ask(question: str, how: str = SHORT) -> tuple[Turn, ...]:
    """The image, the question, and in which form to answer."""
    return (Turn("user", f"{IMAGE_MARK}\n{question}\n{how}"),)


def images(name: str, data_dir: str, folder: str) -> PublishedSource:
    """A folder of images under the data directory, unpacked or in an archive beside it that holds the folder: `pope/val2014`, or val2014/ in `pope/val2014.zip`."""
    parent, _, last = folder.rpartition("/")
    return PublishedSource(name, (), Under(open_folder(join(data_dir, parent) if parent else data_dir), last), {}, {})


@dataclasses.dataclass(frozen=True)
class Under:
    """Reads the images of a folder by keys inside one that lies in it; other processes can take it along."""

    folder: Folder
    last: str

    def __call__(self, key: str) -> bytes:
        return self.folder.read(f"{self.last}/{key}")


def rows(data_dir: str, path: str, texts: Sequence[str] = (), ids: Sequence[str] = (), need: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, row) of a JSON list of objects or of JSON lines, each with these keys (`fields`)."""
    file = File(join(data_dir, path)).held()
    lines = not file.read(0, 64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    for i, (_, raw) in enumerate(json_rows.scan(file, lines)):
        where = f"{path}[{i}]"
        try:
            row = json_rows.parse(raw)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: {' '.join(str(error).split())}") from None
        yield where, fields(where, row, texts, ids, need)


def fields(where: str, row: Any, texts: Sequence[str] = (), ids: Sequence[str] = (), need: Sequence[str] = ()) -> dict[str, Any]:
    """The row; UserError where it is no object with these keys, or one of `texts` is no text, or one of `ids` neither a text nor a whole number."""
    if not isinstance(row, dict):
        raise UserError(f"{where}: is {row!r:.80}, not an object")
    if missing := [key for key in (*texts, *ids, *need) if key not in row]:
        raise UserError(f"{where}: has no {missing[0]!r}")
    for key in texts:
        text(f"{where}: {key}", row[key])
    for key in ids:
        if type(row[key]) is not int:
            text(f"{where}: {key}", row[key])
    return row


def text(where: str, value: Any) -> str:
    """UserError where it is none that can be written."""
    try:
        return published.text(value)
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None


def one_of(where: str, value: Any, options: Sequence[Any]) -> Any:
    if value not in options:
        raise UserError(f"{where}: {value!r:.80} is none of {', '.join(map(str, options))}")
    return value


def splits(task: str, split: str, known: Mapping[str, Any]) -> Any:
    """What is known of a split."""
    if split not in known:
        raise UserError(f"{task}: has no split {split!r}; it has {', '.join(known)}")
    return known[split]


def of_yes(rows: Sequence[Row], name: Callable[[str], str] = lambda metric: metric, yes: str = "yes") -> dict[str, Metric]:
    """Precision, recall and F1 of `yes`, and its share among the answers; what is neither yes nor no counts as no."""
    said: Value = lambda row: float(row["parsed"] == yes)
    right: Value = lambda row: float(row["answer"] == yes)
    both: Value = lambda row: said(row) * right(row)
    return {name("f1"): ratio(rows, lambda row: 2 * both(row), lambda row: said(row) + right(row), name("f1")), name("precision"): ratio(rows, both, said, name("precision")),
            name("recall"): ratio(rows, both, right, name("recall")), name("yes"): ratio(rows, said, lambda row: 1.0, name("yes"))}
