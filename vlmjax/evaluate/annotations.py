"""Files of benchmarks whose rows are a list inside of one object, and what is in a row: texts, and what several people answered."""
import collections
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from vlmjax.data.datasets import published
from vlmjax.data.files_at import File, join
from vlmjax.errors import UserError
from vlmjax.evaluate.benchmark import fields, text


def rows(data_dir: str, path: str, key: str, texts: Sequence[str] = (), ids: Sequence[str] = (), need: Sequence[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, row) of the list that the file's object has under a key, each an object with these keys (benchmark.fields)."""
    found = fields(path, published.read_json(File(join(data_dir, path)), _small), need=(key,))[key]
    if not isinstance(found, list):
        raise UserError(f"{path}: {key} is {found!r:.80}, not a list")
    for i, row in enumerate(found):
        where = f"{path}: {key}[{i}]"
        yield where, fields(where, row, texts, ids, need)


def _small(pairs: list[tuple[str, Any]]) -> Any:
    """The text of one annotator's answer in place of all that is known of it: VQAv2 has two million, and as objects they need a gigabyte."""
    row = dict(pairs)
    answer = row.get("answer")
    return sys.intern(answer) if "answer_confidence" in row and isinstance(answer, str) else row


def answers(where: str, value: Any) -> tuple[str, ...]:
    """A list of texts, or of objects that have one as their `answer`. UserError where it is none, or empty."""
    said = [answer.get("answer") if isinstance(answer, dict) else answer for answer in value] if isinstance(value, list) else []
    if not said or not all(isinstance(answer, str) for answer in said):
        raise UserError(f"{where}: {value!r:.80} is not a list of answers")
    return tuple(text(where, answer) for answer in said)


def most_said(answers: Sequence[str]) -> str:
    """Of equals the first."""
    return collections.Counter(answers).most_common(1)[0][0]
