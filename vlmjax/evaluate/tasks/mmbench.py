"""MMBench (Liu et al., arXiv:2307.06281): 20 abilities by multiple choice, each question once for each rotation of its options.

    mmbench/mmbench_dev_20230712.tsv        dev: 4,377 rows, which are 1,164 questions; images in base64
    mmbench/mmbench_dev_cn_20231003.tsv     dev_cn: the same in Chinese

Row `index` k·10⁶ + q is question q with its options moved by k places. `sets` is CircularEval, the number that is published: a question is right when it is in all its rows; `sets/CATEGORY` the same by `l2-category`; `vanilla` only the rows
with the options in their first order, `accuracy` all rows.

Asked as LLaVA 1.5 does; an option that pandas reads as missing ends the options, as there. Answers are read by VLMEvalKit's rules, with its `exact_matching`: the server asks a language model about answers that these rules cannot read; here they are unparsed and
wrong, so that the number can only be lower than the server's.
"""
from collections.abc import Sequence

from vlmjax.data import tsv_file
from vlmjax.data.datasets.published import PublishedSource
from vlmjax.data.files_at import File, join
from vlmjax.errors import UserError
from vlmjax.evaluate import benchmark, scoring
from vlmjax.evaluate.task import Item, Task, exact_match
from vlmjax.evaluate.texts import letters

SPLITS = {"dev": ("mmbench/mmbench_dev_20230712.tsv", benchmark.LETTER), "dev_cn": ("mmbench/mmbench_dev_cn_20231003.tsv", "请直接回答选项字母。")}
OPTIONS = "ABCD"
# Cells that pandas reads as missing values.
MISSING = frozenset(("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"))


def read(data_dir: str, split: str) -> tuple[PublishedSource, list[Item]]:
    path, how = benchmark.splits("mmbench", split, SPLITS)
    rows, images = tsv_file.read(File(join(data_dir, path)), ("question", "hint", *OPTIONS, "answer"))
    return PublishedSource("mmbench", (), images, {}, {}), [_item(f"{path}: index {row['index']}", row, how) for row in rows]


def _item(where: str, row: dict[str, str], how: str) -> Item:
    if not row["index"].isdecimal():
        raise UserError(f"{where}: its index is not a number")
    offered = next((n for n, letter in enumerate(OPTIONS) if _missing(row[letter])), len(OPTIONS))
    options = tuple(row[letter] for letter in OPTIONS[:offered])
    benchmark.one_of(where, row["answer"], tuple(OPTIONS[:offered]))
    question = row["question"] if _missing(row["hint"]) else f"{row['hint']}\n{row['question']}"
    category = row.get("l2-category") or row.get("L2-category") or ""
    return Item(row["index"], row["image"], letters.ask(question, options, how), row["answer"], category, str(int(row["index"]) % 10**6), options=options)


def _missing(cell: str) -> bool:
    return cell in MISSING or cell.lower() in ("nan", "none")


def more(rows: Sequence[scoring.Row]) -> dict[str, scoring.Metric]:
    """Accuracy of the rows with the options in their first order; the share of questions that are right in all rows, by category."""
    out = {"vanilla": scoring.mean([row for row in rows if row["id"] == row["group"]], "options in their first order")}
    for kind in dict.fromkeys(row["kind"] for row in rows if row["kind"]):
        out[f"sets/{kind}"] = scoring.sets([row for row in rows if row["kind"] == kind], f"sets of {kind}")
    return out


MMBENCH = Task(name="mmbench", about="abilities by multiple choice (MMBench); right in all rotations of the options (sets), in their first order (vanilla), by category", open=read, prior=None, parse=letters.inferred,
               parser="VLMEvalKit's rules with exact_matching: the letter, else the only option named; no language model is asked", score=exact_match, metric="accuracy", max_new_tokens=16, more=more, split="dev", files="mmbench")
