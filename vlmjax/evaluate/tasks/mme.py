"""MME (Fu et al., arXiv:2306.13394): 14 abilities, each image with one question to answer yes and one to answer no. tools/eval_tool.zip of BradyFU/Awesome-Multimodal-Large-Language-Models, branch Evaluation.

    MME/MME_Benchmark_release_version/CATEGORY/{0001.txt,0001.jpg,…}                              of nine categories; png where they are of cognition
    MME/MME_Benchmark_release_version/CATEGORY/{questions_answers_YN/100.txt,images/100.jpg,…}    of artwork, celebrity, landmark, posters, scene

1,187 images, 2,374 questions, a line each: question, tab, Yes or No. Newer archives have one more folder in between, MME_Benchmark. LLaVA 1.5 asks with its own last line in place of
"Please answer yes or no." (its llava_mme.jsonl: every one of the 2,374 is what is asked here).

A category's points are 100 · accuracy + 100 · `sets`, the share of images with both answers right; perception sums ten categories, cognition four. Guessing is 50 + 25 points each.
"""
from collections.abc import Iterator, Sequence

from vlmjax.data.example import Source
from vlmjax.data.files_at import File, join
from vlmjax.errors import UserError
from vlmjax.evaluate import benchmark, scoring
from vlmjax.evaluate.task import Item, Task, exact_match

TOTALS = {
    "perception": ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR"),
    "cognition": ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"),
}
SPLITS = {"release": "MME/MME_Benchmark_release_version"}
ENDING = "Please answer yes or no."


def read(data_dir: str, split: str) -> tuple[Source, list[Item]]:
    folder = benchmark.splits("mme", split, SPLITS)
    if File(join(data_dir, f"{folder}/MME_Benchmark")).exists():
        folder += "/MME_Benchmark"
    items = [item for categories in TOTALS.values() for category in categories for item in _of(data_dir, folder, category)]
    return benchmark.images("mme", data_dir, folder), items


def _of(data_dir: str, folder: str, category: str) -> Iterator[Item]:
    """The items of a category, by the names of their images."""
    apart = File(join(data_dir, f"{folder}/{category}/images")).exists()
    pictures = File(join(data_dir, f"{folder}/{category}" + "/images" * apart))
    files = {_stem(path): path.rsplit("/", 1)[-1] for suffix in (".jpg", ".png") for path in pictures.listing(suffix)}
    texts = f"{folder}/{category}" + "/questions_answers_YN" * apart
    for path in File(join(data_dir, texts)).listing(".txt"):
        stem = _stem(path)
        where = f"{texts}/{stem}.txt"
        if stem not in files:
            raise UserError(f"{where}: there is no image of this name, .jpg or .png")
        for k, (question, answer) in enumerate(_pair(where, File(path).read())):
            yield Item(f"{category}/{files[stem]}/{k}", f"{category}/{'images/' * apart}{files[stem]}", benchmark.ask(question.removesuffix(ENDING).strip()),
                       benchmark.one_of(where, answer.lower(), ("yes", "no")), category, f"{category}/{stem}")


def _pair(where: str, content: bytes) -> list[tuple[str, str]]:
    """(question, answer), twice."""
    try:
        found = [line.strip().split("\t") for line in content.decode().split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: is not text in UTF-8: {error}") from None
    if [len(line) for line in found] != [2, 2]:
        raise UserError(f"{where}: is not two lines of a question, a tab and an answer")
    return [(question, answer) for question, answer in found]


def _stem(path: str) -> str:
    return path.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def parse(text: str) -> str | None:
    """yes where it is within the first four letters, else no where that is: Know is no. Line breaks do not count, as the program's readme wants them deleted."""
    start = text.replace("\n", "").lower()[:4]
    return "yes" if "yes" in start else "no" if "no" in start else None


def more(rows: Sequence[scoring.Row]) -> dict[str, scoring.Metric]:
    """The points of each category and their two totals."""
    of = {category: [row for row in rows if row["kind"] == category] for categories in TOTALS.values() for category in categories}
    out = {total: _points([of[category] for category in categories], total) for total, categories in TOTALS.items()}
    return out | {f"score/{category}": _points([own], category) for category, own in of.items() if own}


def _points(categories: Sequence[Sequence[scoring.Row]], variant: str) -> scoring.Metric:
    score, one = (lambda row: row["score"]), (lambda row: 1.0)
    parts = [(100.0, part, score, one) for own in categories for part in (own, scoring.grouped(own))]
    return {**scoring.total(parts, variant, "points"), "n": sum(map(len, categories))}


MME = Task(name="mme", about="14 abilities, two yes/no questions for each image (MME); accuracy, images with both right, points of perception and cognition", open=read, prior=None, parse=parse,
           parser="official: yes or no within the first four letters", score=exact_match, metric="accuracy", max_new_tokens=16, more=more, split="release", files="mme")
