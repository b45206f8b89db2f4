"""VQA accuracy (Antol et al., arXiv:1505.00468): how far an answer agrees with what ten people answered, and how texts are made alike before they are compared.

Three programs are in use, and their differences are worth several points (an answer "Yes" where all ten people say "yes" is wrong for the first, right for the others):

    official   GT-Vision-Lab/VQA, PythonEvaluationTools/vqaEvaluation/vqaEval.py: texts are made alike only where the ten answers are not all the same
    evalai     Pythia's EvalAIAnswerProcessor, as in haotian-liu/LLaVA, llava/eval/m4c_evaluator.py: always, in lower case first; TextVQA is scored by it, and LLaVA puts its answers through it
               before it submits them to the servers of VQAv2 and VizWiz
    vizwiz     VizWiz's vqaEval.py, known here from copies (TRI-ML/vlm-evaluation has one): the answer always, with other apostrophes; what people said never

All are followed to the letter, also where they do what was not meant: a comma between two digits has every mark deleted that would else become a space; the look-behind of the rule for full stops is
misspelt, so that each is deleted unless a digit follows; no more than 32 are, for a flag stands in the place of a count; of the contractions some can never match and one loses its apostrophe.
"""
import functools
import re
from collections.abc import Callable, Mapping, Sequence


def _curl(word: str) -> str:
    """With the apostrophes that VizWiz's table has."""
    return word if word in _STRAIGHT else word.replace("'", "\u2019")


# What GT-Vision-Lab/VQA (BSD 2-Clause) replaces, word by word; the other program has the same table.
_PAIRS = """
    aint ain't  arent aren't  cant can't  couldve could've  couldnt couldn't  couldn'tve couldn't've  couldnt've couldn't've  didnt didn't  doesnt doesn't  dont don't  hadnt hadn't  hadnt've
    hadn't've  hadn'tve hadn't've  hasnt hasn't  havent haven't  hed he'd  hed've he'd've  he'dve he'd've  hes he's  howd how'd  howll how'll  hows how's  Id've I'd've  I'dve I'd've  Im I'm  Ive
    I've  isnt isn't  itd it'd  itd've it'd've  it'dve it'd've  itll it'll  let's let's  maam ma'am  mightnt mightn't  mightnt've mightn't've  mightn'tve mightn't've  mightve might've  mustnt
    mustn't  mustve must've  neednt needn't  notve not've  oclock o'clock  oughtnt oughtn't  ow's'at 'ow's'at  'ows'at 'ow's'at  'ow'sat 'ow's'at  shant shan't  shed've she'd've  she'dve
    she'd've  she's she's  shouldve should've  shouldnt shouldn't  shouldnt've shouldn't've  shouldn'tve shouldn't've  somebody'd somebodyd  somebodyd've somebody'd've  somebody'dve
    somebody'd've  somebodyll somebody'll  somebodys somebody's  someoned someone'd  someoned've someone'd've  someone'dve someone'd've  someonell someone'll  someones someone's  somethingd
    something'd  somethingd've something'd've  something'dve something'd've  somethingll something'll  thats that's  thered there'd  thered've there'd've  there'dve there'd've  therere there're
    theres there's  theyd they'd  theyd've they'd've  they'dve they'd've  theyll they'll  theyre they're  theyve they've  twas 'twas  wasnt wasn't  wed've we'd've  we'dve we'd've  weve we've
    werent weren't  whatll what'll  whatre what're  whats what's  whatve what've  whens when's  whered where'd  wheres where's  whereve where've  whod who'd  whod've who'd've  who'dve who'd've
    wholl who'll  whos who's  whove who've  whyll why'll  whyre why're  whys why's  wont won't  wouldve would've  wouldnt wouldn't  wouldnt've wouldn't've  wouldn'tve wouldn't've  yall y'all
    yall'll y'all'll  y'allll y'all'll  yall'd've y'all'd've  y'alld've y'all'd've  y'all'dve y'all'd've  youd you'd  youd've you'd've  you'dve you'd've  youll you'll  youre you're  youve you've
""".split()
CONTRACTIONS = dict(zip(_PAIRS[::2], _PAIRS[1::2]))
_STRAIGHT = {"couldn'tve", "hadn'tve", "ain't", "aren't", "can't", "could've", "couldn't", "we've", "where's", "who've"}
CURLED = {_curl(short): _curl(long) for short, long in CONTRACTIONS.items()}
DIGITS = {"none": "0"} | {word: str(n) for n, word in enumerate("zero one two three four five six seven eight nine ten".split())}
ARTICLES = {"a", "an", "the"}
MARKS = ';/[]"{}()=+\\_-><@`,?!'
MOST_STOPS = 32  # re.UNICODE, given to `sub` where its count stands

# Python 2, in which the official program is written, knows the digits of ASCII only.
ASCII, UNICODE = ((re.compile(r"\d,\d", flags), re.compile(r"\.(?!\d)", flags)) for flags in (re.ASCII, re.UNICODE))


def tidy(text: str) -> str:
    """One line without white space around it."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@functools.lru_cache(1 << 16)  # ten answers to each question, most of them the same few words
def official(text: str) -> str:
    """A tidy text without marks, articles and number words, with apostrophes."""
    return _words(_bare(text, ASCII), CONTRACTIONS)


@functools.lru_cache(1 << 16)
def evalai(text: str) -> str:
    """As `official`, of a text whose commas and question marks are gone and whose 's are words of their own."""
    return _words(_bare(tidy(text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()), UNICODE), CONTRACTIONS)


@functools.lru_cache(1 << 16)
def vizwiz(text: str) -> str:
    """As `official`, with other apostrophes."""
    return _words(_bare(text, UNICODE), CURLED)


def _bare(text: str, digits: tuple[re.Pattern[str], re.Pattern[str]]) -> str:
    """Each mark deleted where it stands beside a space anywhere in the text, or where the text has a number with a comma, else a space; then full stops deleted that no digit follows."""
    comma, stop = digits
    numbers, out = bool(comma.search(text)), text
    for mark in MARKS:
        if mark in text:
            out = out.replace(mark, "" if numbers or f"{mark} " in text or f" {mark}" in text else " ")
    return stop.sub("", out, count=MOST_STOPS)


def _words(text: str, contractions: Mapping[str, str]) -> str:
    words = (DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(contractions.get(word, word) for word in words if word not in ARTICLES)


def agreement(said: str, answers: Sequence[str]) -> float:
    """The mean over annotators of min(1, others who say the same / 3)."""
    n, same = len(answers), sum(answer == said for answer in answers)
    return (same * min(1.0, (same - 1) / 3) + (n - same) * min(1.0, same / 3)) / n


def by_official(said: str, answers: Sequence[str]) -> float:
    """VQAv2's score of an answer as it is submitted."""
    said, answers = tidy(said), [tidy(answer) for answer in answers]
    return _alike(said, answers, official) if len(set(answers)) > 1 else agreement(said, answers)


def by_evalai(said: str, answers: Sequence[str]) -> float:
    """TextVQA's score."""
    return _alike(said, answers, evalai)


def by_vizwiz(said: str, answers: Sequence[str]) -> float:
    """VizWiz's score of an answer as it is submitted."""
    return agreement(vizwiz(tidy(said)), answers)


def _alike(said: str, answers: Sequence[str], normal: Callable[[str], str]) -> float:
    return agreement(normal(said), [normal(answer) for answer in answers])
