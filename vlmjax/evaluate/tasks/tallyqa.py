"""TallyQA (Acharya et al., arXiv:1810.12440): how many are there. manoja328/TallyQA_dataset.

    tallyqa/test.json     a list of {answer, image, image_id, issimple, question, question_id}
    tallyqa/VG_100K, tallyqa/VG_100K_2     images of Visual Genome; a question names its own as VG_100K_2/2410408.jpg

A `simple` question names objects and no more, a `complex` one also attributes or relations; accuracy is reported of each. Accuracy and RMSE are those of manoja328/tallyqacode, utils.py, whose models choose
one of the numbers 0 to 15 where ours write; how an answer is read is ours, and where it differs from open-compass/VLMEvalKit's on the same answers stands in tests/evaluate/texts/counting_test.py. The prior is
of other images: most complex questions have no equal in the training split.
"""
import functools

from vlmjax.data.example import Source
from vlmjax.errors import UserError
from vlmjax.evaluate import benchmark
from vlmjax.evaluate.task import Item, Task, exact_match
from vlmjax.evaluate.texts import counting

KINDS = ("simple", "complex")
SPLITS = {"test": "tallyqa/test.json"}


def read(data_dir: str, split: str) -> tuple[Source, list[Item]]:
    items = []
    for where, row in benchmark.rows(data_dir, benchmark.splits("tallyqa", split, SPLITS), ("image", "question"), ("question_id", "image_id"), ("answer", "issimple")):
        if not isinstance(row["issimple"], bool):
            raise UserError(f"{where}: issimple is {row['issimple']!r:.80}, not true or false")
        items.append(Item(f"{row['image_id']}/{row['question_id']}", row["image"], benchmark.ask(row["question"]), counting.answer(where, row["answer"]), KINDS[not row["issimple"]]))
    return benchmark.images("tallyqa", data_dir, "tallyqa"), items


TALLYQA = Task(name="tallyqa", about="counting: how many are there (TallyQA); accuracy of simple and complex questions, and distance in objects", open=read, prior=None, parse=counting.parse,
               parser=counting.PARSER, score=exact_match, metric="accuracy", max_new_tokens=16, more=functools.partial(counting.more, kinds=KINDS), files="tallyqa")
