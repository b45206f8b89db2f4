"""CHAIR: what its program finds in descriptions, in references, and over all.

The program is for Python 2 and packages of that time, so it runs with: its print statements as calls; an empty module in place of its own `misc`, which only leads back to it; no WordNet lemmatizer, which it
makes and never uses; and pattern.en's singularize as it stands in a checkout of clips/pattern beside CHECKOUT, read without the rest of that package. NLTK (3.10.4 here) and its English punkt data are needed.
"""
import json
import os
import pathlib
import random
import re
import sys
import tempfile
import types

CODE = "LisaAnne/Hallucination, utils/chair.py with clips/pattern, pattern/text/en/inflect.py"
THINGS = ("bus", "buses", "glass of wine", "wine glasses", "men", "women", "people", "children", "geese", "oxen", "knives", "puppies", "ponies", "benches", "skis", "scissors", "hot dog", "hot-dog", "baby elephant",
          "adult bear", "passenger jet", "passenger trains", "bow tie", "ties", "toilet seat", "seat", "tennis racket", "fire hydrants", "stop sign", "cell phones", "tv", "TVs", "doggies", "canoes", "couches", "mice",
          "potted plants", "teddy bears", "motor bike", "cheesecake", "iPhone", "loaves", "sheep", "cow's", "dogs'", "sandwiches", "tables", "kitten", "minibus", "calves", "four", "tree", "sky", "air plane", "train track")
PLACES = ("on", "next to", "behind", "near", "under", "and", "or", ",", ", a", "; the", "with the", "-", "—", "/", "... then", ". There is also a", '."A', ".) A", "! One", ":", "\n\n-", "**", " (a", "'s", "“", "’", "``", "n't")
OBJECTS = ("person", "car", "bus", "dog", "cat", "bench", "wine glass", "tv", "hot dog", "knife", "horse", "elephant", "toilet", "chair", "tie", "skis", "sheep", "dining table", "potted plant", "airplane")
IMAGES = 20


def make(checkout: pathlib.Path) -> dict:
    official = _program(checkout)
    rng = random.Random(0)
    instances = {i: rng.sample(OBJECTS, rng.randint(0, 4)) for i in range(IMAGES)}
    references = {i: [_sentence(rng, 2) for _ in range(2)] for i in range(IMAGES)}
    answers = [{"image_id": i % IMAGES, "caption": _sentence(rng, rng.randint(1, 6))} for i in range(218)] + [{"image_id": 0, "caption": ""}, {"image_id": 1, "caption": "???"}]
    unused = dict.fromkeys(("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "CIDEr", "SPICE", "ROUGE_L"), 0.0)
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "val"):
            own = split == "val"
            (pathlib.Path(folder) / f"captions_{split}2014.json").write_text(json.dumps({"info": {}, "licenses": [], "images": [], "annotations": [
                {"image_id": i, "caption": text} for i, texts in references.items() for text in texts if own]}))
            (pathlib.Path(folder) / f"instances_{split}2014.json").write_text(json.dumps({"info": {}, "licenses": [], "images": [], "categories": [{"id": k, "name": name} for k, name in enumerate(OBJECTS)], "annotations": [
                {"image_id": i, "category_id": OBJECTS.index(name)} for i, names in instances.items() for name in names if own]}))
        (captions := pathlib.Path(folder) / "captions.json").write_text(json.dumps({"overall": unused, "imgToEval": {k: answer | unused for k, answer in enumerate(answers)}}))
        at = os.getcwd()
        os.chdir(checkout)  # it reads data/synonyms.txt
        try:
            (program := official["CHAIR"](range(IMAGES), folder)).get_annotations()
            found = program.compute_chair(str(captions))
        finally:
            os.chdir(at)
    return {"instances": [", ".join(instances[i]) for i in range(IMAGES)], "references": list(references.values()), "objects": [", ".join(sorted(program.imid_to_objects[i])) for i in range(IMAGES)],
            "answers": [[one["image_id"], one["caption"], ", ".join(one["mscoco_generated_words"]), one["metrics"]["CHAIRs"]] for one in found["sentences"]],
            "numbers": {name: found["overall_metrics"][name] for name in ("CHAIRs", "CHAIRi")}}


def _sentence(rng: random.Random, things: int) -> str:
    parts = ["" if rng.random() < 0.3 else rng.choice(("A", "The image shows a", "Two", "There are"))]
    for k in range(things):
        parts += [*([rng.choice(PLACES)] if k else []), rng.choice(THINGS)]
    return "".join(part if rng.random() < 0.1 else f" {part}" for part in parts).strip() + rng.choice((".", "", "!", ' "', ".\n"))


def _program(checkout: pathlib.Path) -> dict:
    import nltk
    nltk.wordnet = types.SimpleNamespace(WordNetLemmatizer=lambda: None)
    inflect = (checkout.parent / "clips+pattern/pattern/text/en/inflect.py").read_text()
    english: dict = {"re": re, "NOUN": "NN"}
    exec(re.search(r"plural_prepositions = set\(\(.*?\)\)", inflect, re.DOTALL)[0], english)
    exec(inflect[inflect.index("singular_rules = [") : inflect.index("#### VERB CONJUGATION")], english)
    sys.modules |= {"pattern": types.ModuleType("pattern"), "pattern.en": types.SimpleNamespace(singularize=english["singularize"]), "misc": types.SimpleNamespace(os=os)}
    program: dict = {"__name__": "chair"}
    exec(re.sub(r"^(\s*)print (.+)$", r"\1print(\2)", (checkout / "utils/chair.py").read_text(), flags=re.MULTILINE), program)
    return program
