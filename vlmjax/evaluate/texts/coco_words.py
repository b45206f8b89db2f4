"""Which objects of COCO a text mentions, as CHAIR counts them (Rohrbach et al., arXiv:1809.02156; LisaAnne/Hallucination, utils/chair.py and data/synonyms.txt, BSD 2-Clause).

Words are NLTK's word_tokenize, made singular by pattern.en 3.6. Both are written anew here for the words that matter, those of the table: other words only have to stay other words. Measured
against the program with NLTK 3.10.4 and pattern's own rules: of 18,000 captions that models wrote (RUCAIBox/POPE, caption_data), with 68,279 mentions, every one is read alike; so is each of
788,610 words and made-up plurals of two dictionaries; of 60,000 heaps of the table's words and punctuation 194 differ, most where a new word follows ".**" without a space.

What follows from pattern's rules is kept, as published numbers hold it: bus, minibus and airbus lose their s and are never found (buses are); nor are ties, collies, doggies and canoes; tennis
rackets and sports balls count by their second word.
"""
import functools
import re

# An object, then its other names; an indented line goes on. Without the repeats of the published file, and without three entries that its program cannot match: "motor bike" and "cheesecake", which
# stand behind two spaces, and "iPhone".
TABLE = """
person, girl, boy, man, woman, kid, child, chef, baker, people, adult, rider, children, baby, worker, passenger, sister, biker, policeman, cop, officer, lady, cowboy, bride, groom,
    male, female, guy, traveler, mother, father, gentleman, pitcher, player, skier, snowboarder, skater, skateboarder, foreigner, caller, offender, coworker, trespasser, patient,
    politician, soldier, grandchild, serviceman, walker, drinker, doctor, bicyclist, thief, buyer, teenager, student, camper, driver, solider, hunter, shopper, villager
bicycle, bike, unicycle, minibike, trike
car, automobile, van, minivan, sedan, suv, hatchback, cab, jeep, coupe, taxicab, limo, taxi
motorcycle, scooter, motor cycle, motorbike, moped
airplane, jetliner, plane, air plane, monoplane, aircraft, jet, airbus, biplane, seaplane
bus, minibus, trolley
train, locomotive, tramway, caboose
truck, pickup, lorry, hauler, firetruck
boat, ship, liner, sailboat, motorboat, dinghy, powerboat, speedboat, canoe, skiff, yacht, kayak, catamaran, pontoon, houseboat, vessel, rowboat, trawler, ferryboat, watercraft,
    tugboat, schooner, barge, ferry, sailboard, paddleboat, lifeboat, freighter, steamboat, riverboat, battleship, steamship
traffic light, street light, traffic signal, stop light, streetlight, stoplight
fire hydrant, hydrant
stop sign
parking meter
bench, pew
bird, ostrich, owl, seagull, goose, duck, parakeet, falcon, robin, pelican, waterfowl, heron, hummingbird, mallard, finch, pigeon, sparrow, seabird, osprey, blackbird, fowl, shorebird,
    woodpecker, egret, chickadee, quail, bluebird, kingfisher, buzzard, willet, gull, swan, bluejay, flamingo, cormorant, parrot, loon, gosling, waterbird, pheasant, rooster, sandpiper,
    crow, raven, turkey, oriole, cowbird, warbler, magpie, peacock, cockatiel, lorikeet, puffin, vulture, condor, macaw, peafowl, cockatoo, songbird
cat, kitten, feline, tabby
dog, puppy, beagle, pup, chihuahua, schnauzer, dachshund, rottweiler, canine, pitbull, collie, pug, terrier, poodle, labrador, doggie, doberman, mutt, doggy, spaniel, bulldog, sheepdog,
    weimaraner, corgi, cocker, greyhound, retriever, brindle, hound, whippet, husky
horse, colt, pony, racehorse, stallion, equine, mare, foal, palomino, mustang, clydesdale, bronc, bronco
sheep, lamb, ram, goat, ewe
cow, cattle, oxen, ox, calf, holstein, heifer, buffalo, bull, zebu, bison
elephant
bear, panda
zebra
giraffe
backpack, knapsack
umbrella
handbag, wallet, purse, briefcase
tie, bow, bow tie
suitcase, suit case, luggage
frisbee
skis, ski
snowboard
sports ball, ball
kite
baseball bat
baseball glove
skateboard
surfboard, longboard, skimboard, shortboard, wakeboard
tennis racket, racket
bottle
wine glass
cup
fork
knife, pocketknife, knive
spoon
bowl, container
banana
apple
sandwich, burger, sub, cheeseburger, hamburger
orange
broccoli
carrot
hot dog
pizza
donut, doughnut, bagel
cake, cupcake, shortcake, coffeecake, pancake
chair, seat, stool
couch, sofa, recliner, futon, loveseat, settee, chesterfield
potted plant, houseplant
bed
dining table, table, desk
toilet, urinal, commode, lavatory, potty
tv, monitor, televison, television
laptop, computer, notebook, netbook, lenovo, macbook, laptop computer
mouse
remote
keyboard
cell phone, mobile phone, phone, cellphone, telephone, phon, smartphone
microwave
oven, stovetop, stove, stove top oven
toaster
sink
refrigerator, fridge, freezer
book
clock
vase
scissors
teddy bear, teddybear
hair drier, hairdryer
toothbrush
"""

OBJECTS = {name: names[0] for line in TABLE.strip().replace("\n    ", " ").split("\n") for names in [line.split(", ")] for name in names}

NAMES = tuple(dict.fromkeys(OBJECTS.values()))

# Neighbouring words that are one, and what they count as.
PAIRS = {pair: pair for pair in (
    "motor bike", "motor cycle", "air plane", "traffic light", "street light", "traffic signal", "stop light", "fire hydrant", "stop sign", "parking meter", "suit case", "sports ball", "baseball bat",
    "baseball glove", "tennis racket", "wine glass", "hot dog", "cell phone", "mobile phone", "teddy bear", "hair drier", "potted plant", "laptop computer", "home plate", "train track")}
PAIRS |= {f"{age} {animal}": animal for age in ("baby", "adult") for animal in ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub")}
PAIRS |= {"passenger jet": "jet", "passenger train": "train", "bow tie": "tie", "toilet seat": "toilet", "wine glas": "wine glass"}

# Marks that are words of their own, wherever they stand.
APART = re.compile(r"\.{2,}|--|''|[;@#$%&?!*()\[\]{}<>«»“”‘’„`\"‒–—―]|[:,](?!\d)")
# A point before these ends no sentence, so that it stays with its word.
INSIDE = re.compile(r"\.(?=[,#$%&<>«»“”‘’„`‒–—―](?!\s*$))")
# What is cut from the end of a word: dog's, dogs', isn't.
CLITIC = re.compile(r"(?<=[^'])('(?:s|m|d|ll|re|ve)?|n't)$")

# Ends of plurals and of their singulars; the first that fits counts. pattern has more, which lead to no word of the table.
PLURALS = [(re.compile(f"{plural}$"), singular) for plural, singular in (
    ("children", "child"), ("geese", "goose"), ("^kine", "cow"), ("men", "man"), ("oxen", "ox"), ("people", "person"), ("(x|ch|ss|sh)es", r"\1"), ("oes", "o"), ("buses", "bus"), ("mice", "mouse"),
    ("([^aeiouy]|qu)ies", r"\1y"), ("([aeo]l|[lr])ves", r"\1f"), ("([nlw]i)ves", r"\1fe"), ("([aeo]ve)s", r"\1"), ("s", ""))]
AS_THEY_ARE = {"scissors", "collies", "doggies", "oxens"}


def mentions(text: str) -> list[str]:
    """The object of each mention, in order."""
    words, merged, i = [singular(word) for word in tokens(text.lower())], [], 0
    while i < len(words):
        pair = PAIRS.get(" ".join(words[i : i + 2]))
        merged.append(pair or words[i])
        i += 2 if pair else 1
    if "toilet" in merged:  # the seat of a toilet is no chair
        merged = [word for word in merged if word != "seat"]
    return [OBJECTS[word] for word in merged if word in OBJECTS]


def tokens(text: str) -> list[str]:
    """Words, and what stands between them."""
    out = []
    for part in APART.sub(r" \g<0> ", INSIDE.sub("._", text)).split():
        if part.startswith("'") and len(part) > 1 and part[1:] not in ("s", "m", "d", "t", "n", "ll", "re", "ve"):
            out.append("'")
            part = part[1:]
        word = part[:-1] if part[-1] == "." else part  # a point ends a sentence; where it does not, as in st., the word is none of the table
        end = CLITIC.search(word)
        out += [word[: end.start()], end[1]] if end else [word]
        out += ["."] * (word != part)
    return out


@functools.lru_cache(1 << 16)
def singular(word: str) -> str:
    if "-" in word or word in AS_THEY_ARE:
        return word
    return next((plural.sub(one, word) for plural, one in PLURALS if plural.search(word)), word)
