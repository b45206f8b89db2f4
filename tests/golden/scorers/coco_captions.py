"""COCO captions: the words of texts and the scores of captions, by pycocoevalcap. CHECKOUT is of RUCAIBox/POPE, whose descriptions by models are the captions: of each image one is compared with the others.

Needs `pip install pycocoevalcap` (1.2) and Java.
"""
import contextlib
import io
import itertools
import json
import pathlib
import random

CODE = "pycocoevalcap 1.2 on captions of RUCAIBox/POPE, caption_data,"
UGLY = """Mr. Smith's dogs' tails | It's 10:30 a.m. in the U.S. The end | can't cannot gonna WANNA don'ts | "hello" 'hi' `x` | (paren) [br] {cb} | $5.00 and 50% of #1 | black/white t-shirt -- or - not
wow!!! what?! hmm... ok.. | AT&T, R&B and a&b | St. Louis Ave. and Rd. | No. 5, no. five, fig. 3 | e.g. this, i.e. that, etc. | the end of it.There is more | dogs.5 cats | 5-year-old 747-400 7-Eleven
rock 'n' roll 'tis 'twas the '90s | Jul'23 dog'xyz O'Neill y'all | http://www.x.com/a.html, me@x.com | <image> a<b>c | **bold** __x__ snake_case | @home #tag #5 | café naïve déjà-vu 日本語
£5 €5 ½ 1½ 20°C | “quoted” ‘single’ … – — | x\u200by \U0001F600 z | a b. C. The d | letter Q. Here it is. | . | , | ! | 1,000.50 1/2/2020 3.5 -5 +5 .5 | M&M's TV's T.V.'s | U.S.-based Ph.D. J.K. Rowling
isn't, wasn't. couldn't've I'd've | goin' ol' man | man’s isn’t | x*y z=1 ~5 ^ | \\ and | here | w/ w/o and/or s/he | D.C. Washington | Inc. Co. Ltd. | A. | Dr.Who Yahoo!x | ABC's 80's""".replace("\n", " | ").split(" | ")


def make(checkout: pathlib.Path) -> dict:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    rng = random.Random(0)
    held: dict[int, list[str]] = {}
    for path in sorted((checkout / "caption_data").glob("*.json")):
        if "_llava" not in path.name:  # is no JSON lines
            for row in map(json.loads, path.read_text().splitlines()):
                sentence = row["text"].replace("\n", " ").strip()[:110].strip()
                if sentence and sentence not in held.setdefault(row["image_id"], []):
                    held[row["image_id"]].append(sentence)
    chosen = rng.sample(sorted(image for image, said in held.items() if len(said) >= 5), 40)
    captions = [rng.sample(held[image], rng.randint(3, 5)) for image in chosen]
    captions[3][0], captions[7][0], captions[11][0] = "", "...", "the the the the a cat"
    texts = list(itertools.chain(UGLY, *captions))
    words = [tokens[0] for tokens in PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(texts)}).values()]
    of = dict(zip(texts, words))
    said, references = {i: [of[c[0]]] for i, c in enumerate(captions)}, {i: [of[text] for text in c[1:]] for i, c in enumerate(captions)}
    with contextlib.redirect_stdout(io.StringIO()):
        scores = {name: scorer.compute_score(references, said) for name, scorer in (("BLEU", Bleu(4)), ("ROUGE-L", Rouge()), ("CIDEr", Cider()))}
    short = lambda values: [round(float(value), 9) for value in values]
    return {"ugly": UGLY, "words": words, "captions": captions, "CIDEr": float(scores["CIDEr"][0]), "CIDEr of each": short(scores["CIDEr"][1]), "BLEU": short(scores["BLEU"][0]),
            "ROUGE-L": float(scores["ROUGE-L"][0]), "ROUGE-L of each": short(scores["ROUGE-L"][1])}
