"""MMVP (Tong et al., arXiv:2401.06209): pairs of images that CLIP takes for alike, with one question whose answer differs. tsb0601/MMVP; the hub's MMVP/MMVP is mmvp/ here.

    mmvp/Questions.csv      300 questions with two options; rows 2k − 1 and 2k are a pair
    mmvp/MMVP Images        ROW.jpg

`sets` is the share of pairs that are right in both images, the number that is published. The publisher asks openly and has GPT-4 compare; here it is asked and read as Cambrian-1 does it (cambrian-mllm/cambrian, eval/eval/mmvp), with a letter. The published answers of two
pairs are swapped (tsb0601/MMVP, issues 14 and 30); `sets/corrected` has them as lmms-eval corrected them.
"""
import csv
import io
import re
from collections.abc import Sequence

from vlmjax.data.datasets.published import PublishedSource
from vlmjax.data.files_at import File, join
from vlmjax.errors import UserError
from vlmjax.evaluate import benchmark, scoring
from vlmjax.evaluate.task import Item, Task, exact_match
from vlmjax.evaluate.texts import letters

FILE, IMAGES = "mmvp/Questions.csv", "mmvp/MMVP Images"
CORRECTED = {"99": "B", "100": "A", "279": "B", "280": "A"}


def read(data_dir: str, split: str) -> tuple[PublishedSource, list[Item]]:
    benchmark.splits("mmvp", split, {"test": FILE})
    try:
        _, *rows = csv.reader(io.StringIO(File(join(data_dir, FILE)).read().decode("utf-8-sig"), newline=""))
    except (ValueError, csv.Error) as error:
        raise UserError(f"{FILE}: is not a table: {error}") from None
    return benchmark.images("mmvp", data_dir, IMAGES), [_item(f"{FILE}: row {i}", i, row) for i, row in enumerate(filter(None, rows))]


def _item(where: str, i: int, row: list[str]) -> Item:
    if len(row) != 4 or not (found := re.fullmatch(r"\(a\)(.+)\(b\)(.+)", row[2].strip(), re.DOTALL)):
        raise UserError(f"{where}: {row!r:.120} is not a number, a question, options '(a) … (b) …' and an answer")
    options = found[1].strip(), found[2].strip()
    answer = benchmark.one_of(where, row[3].strip().lower(), ("(a)", "(b)"))[1].upper()
    return Item(row[0], f"{row[0]}.jpg", letters.ask(f"{row[1]} Options:", options), answer, group=f"pair {i // 2 + 1}", options=options)


def more(rows: Sequence[scoring.Row]) -> dict[str, scoring.Metric]:
    return {"sets/corrected": scoring.sets([{**row, "score": float(row["parsed"] == CORRECTED.get(row["id"], row["answer"]))} for row in rows], "pairs, with the answers to 99, 100, 279 and 280 corrected")}


MMVP = Task(name="mmvp", about="what differs between images that CLIP takes for alike (MMVP); alone and by pairs", open=read, prior=None, parse=letters.stated, parser="Cambrian-1's: behind the last 'answer is' or 'answer:', the letter or the text of an option",
            score=exact_match, metric="accuracy", max_new_tokens=16, more=more, files="mmvp")
