"""The number that an answer states, as VLMEvalKit reads it for TallyQA (0 to 20, or none)."""
import importlib.util
import pathlib
import random

CODE = "open-compass/VLMEvalKit, vlmeval/dataset/utils/tallyqa.py"
WORDS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty none many several a no few couple dozen "
         "twenty-one no-one someone tone").split()
BEGIN = ("", "", "", "There are ", "I count ", "The answer is ", "About ", "(", "**", "It's ", "At least ", "I see\n", "共有", "№", "~", "-", "Answer: ")
END = ("", "", "", ".", " dogs.", " of them", ", maybe 7", " or five", "%", "!", " in the picture, and 3 on the left", "\n", "th", "x", ".5", ",000", " – or more", "?")


def make(checkout: pathlib.Path) -> dict:
    spec = importlib.util.spec_from_file_location("tallyqa", checkout / "vlmeval/dataset/utils/tallyqa.py")
    spec.loader.exec_module(official := importlib.util.module_from_spec(spec))
    rng = random.Random(0)

    def number() -> str:
        text = rng.choice((rng.choice(WORDS), str(rng.randrange(21)), str(rng.randrange(21)), str(rng.randrange(3000)), "0" + str(rng.randrange(12))))
        return rng.choice((text, text, text.title(), text.upper()))

    cases = ["", " ", ".", "yes", "no", "٣", "½", "four hundred and 3"] + [rng.choice(BEGIN) + number() + rng.choice(END) for _ in range(392)]
    return {"answers": cases, "read as": [official.extract_count_from_prediction(case) for case in cases]}
