"""Answers in a few words, many of them ugly, and questions that ten people answered with them."""
import random

PLAIN = ("yes", "Yes", "no", "No.", "YES", "red", "Red.", "two", "2", "Two.", "none", "0", "eleven", "twenty-one", "a", "the", "an apple", "A Red Ball", "the dog's bowl", "dogs", "t-shirt", "well-known",
         "new york, ny", "1,000", "1,000 - 2,000", "1,a", "3.5.", "3.5", "10:30", "50%", "$5.00", "1/2", "black/white", "a.m.", "u.s.a.", "U.S.A", "[red]", "(red)", "red, blue", "red,blue", "red , blue",
         "what?", "?", ".", "", " ", "\n", "yes\nno", "\tyes", "yes\t", "yes  no", "unanswerable", "Unsuitable image", "the the a", "one-two", "one two", "a, b", "`quoted`", '"quoted"', "don't", "DONT",
         "Dont go", "I'm", "she's", "she 's", "it's a 's", "caf\u00e9", "CAF\u00c9.", "na\u00efve", "\u4e8c", "\U0001f600", "5\u00a0km", "\u0663,\u0664", "x\u2019s", "a_b", "a-b", "a - b", "-5", "+5", "=5", "5>4", "x@y.com", "www.x.com",
         "\\", "a\\b", "{x}", "...", "." * 40, "1.", ".5", "a.b", "v1.2.3", "no one", "none of them", "It is a long sentence, with a comma; and more - dashes (and brackets)!", "zero", "ten", "The", "yes!", "no!no", "red;blue", "x;y z")


def questions(texts: list[str], count: int, people: int = 10) -> list[list[int]]:
    """`count` times [which of the texts is said, which `people` answer]: several agree with each other, and often with what is said, also in another form of it."""
    rng, out = random.Random(0), []
    for _ in range(count):
        some = [rng.randrange(len(texts)) for _ in range(rng.choice((1, 2, 2, 3, 4)))]
        answers = [some[min(int(rng.expovariate(1.0)), len(some) - 1)] for _ in range(people)]
        forms = [i for i, text in enumerate(texts) if text.strip(" .\n\t!?").lower() == texts[answers[0]].strip(" .\n\t!?").lower()]
        out.append([rng.choice((answers[0], rng.choice(forms), rng.choice(some), rng.randrange(len(texts)))), *answers])
    return out


def packed(questions: list[list[int]]) -> list[str]:
    return [" ".join(map(str, question)) for question in questions]


def unpacked(texts: list[str], questions: list[str]) -> list[tuple[str, tuple[str, ...]]]:
    """(what is said, what people answered) of each question."""
    out = []
    for question in questions:
        said, *answers = (texts[int(i)] for i in question.split())
        out.append((said, tuple(answers)))
    return out
