"""MMBench: each answer as VLMEvalKit reads it without a language model, and its numbers over all of them. Needs pandas."""
import importlib.util
import pathlib
import pickle
import random
import sys
import tempfile
import types

CODE = "open-compass/VLMEvalKit, vlmeval/utils/matching_util.py and vlmeval/dataset/utils/multiple_choice.py"
OPTIONS = ("red", "Red", "blue", "dark blue", "a cat", "A cat and a dog", "1", "10", "None of the above", "left", "Paris, France", "café", "B", "C is right", "yes", "no", "the answer is B", "(b)", "x", "photo")
ANSWERS = ("{a}", "{a}.", "({a})", "{a}. {t}", "{a}) {t}", "{t}", "{t}.", "It is {t}", "The answer is {a}.", "the answer is **{a}**", "The correct answer is {a}, because of {t}", "answer is {l}", "{a} or {b}", "{a}, {b}", "{l}", "{l}.", "Option {a}", "{t} or {u}",
           "A {t}", "A big {t} stands there", "I think that A long sentence about it ends with {t}", "{a} one two three four five", "one two three {a} four five", "Z", "Z.", "", " ", "\n", "…", "答案是{a}", "选{a}。", "{a}、", "Ｂ", "The answer is a {t}", "Answer: {a}", "#{a}", "[{a}]",
           "{{{a}}}", "'{a}'", "{a}-{b}", "{a}/{t}", "Cannot determine the answer", "Cannot determine the answer: {a}", "I'm sorry, but without the image provided I say {a}", "{t} {t} {t} {t} {t} {t} {t} {t} {t} {t} {t}", "{T}", "E", "F", "both", "the answer  is\n{a}")


def load(path: pathlib.Path, name: str):
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(checkout: pathlib.Path):
    """The two files without the packages that they only log, store and draw progress with."""
    quiet = types.SimpleNamespace(info=print, warning=lambda text: None)
    dump = lambda data, path: pathlib.Path(path).write_bytes(pickle.dumps(data))
    read = lambda path: pickle.loads(pathlib.Path(path).read_bytes())

    def track_progress_rich(function, tasks, nproc, chunksize, save, keys):
        found = [function(**task) for task in tasks]
        dump(dict(zip(keys, found)), save)
        return found

    for name, held in {"vlmeval": {}, "vlmeval.smp": dict(cn_string=None, d2df=None, dump=dump, load=read, get_logger=lambda name: quiet, get_pred_file_format=lambda: "pkl", istype=lambda value, kind: True, timestr=lambda: "golden_mmbench"),
                       "vlmeval.smp.log": dict(get_logger=lambda name: quiet), "vlmeval.smp.vlm": dict(build_option_str=str)}.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(held)
    sys.modules["vlmeval.smp"].cn_string = lambda text: False
    matching = load(checkout / "vlmeval/utils/matching_util.py", "vlmeval.utils")
    matching.track_progress_rich = track_progress_rich
    return matching, load(checkout / "vlmeval/dataset/utils/multiple_choice.py", "multiple_choice")


def make(checkout: pathlib.Path) -> dict:
    import pandas as pd

    matching, official = program(checkout)
    rng = random.Random(0)
    rows = []
    for question in range(90):
        texts, right = rng.sample(OPTIONS, rng.choice((2, 3, 4, 4, 4))), 0
        knows = rng.random() < 0.5
        for k in range(len(texts)):
            options = {letter: texts[(i + k) % len(texts)] if i < len(texts) else None for i, letter in enumerate("ABCD")}
            gold = "ABCD"[(right - k) % len(texts)]
            a, b = (gold if knows else rng.choice("ABCD"), rng.choice("ABCD"))
            values = {"a": a, "b": b, "l": a.lower(), "t": options[gold] if knows else rng.choice(texts), "u": rng.choice(texts)}
            answer = (rng.choice(ANSWERS[:9]) if knows else rng.choice(ANSWERS)).format(**values, T=values["t"].upper()).strip()
            rows.append({"index": question + k * 10**6, "question": "which?", **options, "answer": gold, "category": "c", "l2-category": "one two".split()[question % 2], "prediction": answer})
    data = pd.DataFrame(rows)
    read = [matching.can_infer(row["prediction"], {letter: row[letter] for letter in "ABCD" if row[letter] is not None}) for row in rows]
    with tempfile.TemporaryDirectory() as held:
        circular = official.report_acc(official.mcq_circular_eval(None, data.copy(), data, 1, f"{held}/circular", "MMBench"))
        rows_all = official.report_acc(official.mcq_vanilla_eval(None, data.copy(), data, 1, f"{held}/all", "MMBench"))
        first = official.report_acc(official.mcq_vanilla_eval(None, data[data["index"] < 10**6].copy(), data, 1, f"{held}/first", "MMBench"))
    numbers = {"sets": circular["Overall"][0], "sets/one": circular["one"][0], "sets/two": circular["two"][0], "accuracy": rows_all["Overall"][0], "accuracy/one": rows_all["one"][0], "vanilla": first["Overall"][0]}
    return {"rows": [[row["index"], row["l2-category"], row["answer"], [row[letter] for letter in "ABCD" if row[letter] is not None], row["prediction"], letter or None] for row, letter in zip(rows, read)],
            "numbers": {name: float(value) for name, value in numbers.items()}}
