"""Published data sets that the recipes train on, and benchmarks: their files, where they come from and where they lie under the data directory. Nothing is downloaded.

A size or licence stands here where its publisher or its hub states it: the pages named, the hub's lists of files, COCO's and GQA's download pages, and
for what the 665K mix holds haotian-liu/LLaVA's issues 657 (conversations by kind) and 702 (files by folder).
"""
from vlmjax.data.datasets.benchmarks import BENCHMARKS
from vlmjax.data.datasets.entries import HUB, UNSTATED, Entry, Part
from vlmjax.errors import UserError, did_you_mean

_LLAVA = f"{HUB}/liuhaotian"
_PRETRAIN, _CC3M, _INSTRUCT, _MIX = "LLaVA-Pretrain", "LLaVA-CC3M-Pretrain-595K", "LLaVA-Instruct-150K", "LLaVA-Finetune/images"
_ANNOTATIONS = "http://images.cocodataset.org/annotations/annotations_trainval2017.zip"
_ALIGN = "https://drive.google.com/file/d/1nJXhoEcy3KTExr17I7BXqY5Y9Lx_-n-9/view"
_COCO_LICENCE = "annotations CC BY 4.0, images under the terms of Flickr (cocodataset.org, terms of use)"
_CC_LICENCE = "other: the licences of CC-3M (any purpose, naming Google as the source) and of BLIP, where its captions are used"
_INSTRUCT_LICENCE = "hub: CC BY 4.0; LLaVA 1.0's README: CC BY-NC 4.0, research only; answers by GPT-4 under OpenAI's terms"


def _hub(repository: str, file: str) -> str:
    return f"{_LLAVA}/{repository}/resolve/main/{file}"


def _coco(path: str, part: str = "train", folder: str = "", what: str = "") -> Part:
    images, size = {"train": ("118,287", "18 GB"), "val": ("5,000", "1 GB")}[part]
    what = f"{images} images{what}; the archive holds {part}2017/"
    return Part(path, f"http://images.cocodataset.org/zips/{part}2017.zip", size, what, _COCO_LICENCE, f"{path}.zip", folder)


CATALOGUE = {
    "llava-pretrain-558k": Entry(
        "558K images of LAION, CC and SBU with captions by BLIP: LLaVA 1.5, first stage",
        tuple(f"llava:{_PRETRAIN}/blip_laion_cc_sbu_558k.json:{_PRETRAIN}/{images}" for images in ("images", "images.zip")),
        (Part(f"{_PRETRAIN}/blip_laion_cc_sbu_558k.json", _hub(_PRETRAIN, "blip_laion_cc_sbu_558k.json"), "181 MB", "conversations of one caption"),
         Part(f"{_PRETRAIN}/images", _hub(_PRETRAIN, "images.zip"), "27.4 GB", "558K images; unpack it into images/",
              packed=f"{_PRETRAIN}/images.zip", folder=f"{_PRETRAIN}/images.zip")),
        _CC_LICENCE, f"{_LLAVA}/{_PRETRAIN}", examples=558_128),
    "llava-665k": Entry(
        "665,298 conversations, 40,688 of them without an image: LLaVA 1.5, second stage",
        (f"llava:LLaVA-Finetune/llava_v1_5_mix665k.json:{_MIX}",),
        (Part("LLaVA-Finetune/llava_v1_5_mix665k.json", _hub(_INSTRUCT, "llava_v1_5_mix665k.json"), "1.03 GB", "all conversations"),
         _coco(f"{_MIX}/coco/train2017", what=", for 364,100 conversations"),
         Part(f"{_MIX}/gqa/images", "https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip", "20.3 GB",
              "148,854 images, for 72,140 conversations; the archive holds images/", "CC BY 4.0", f"{_MIX}/gqa/images.zip"),
         Part(f"{_MIX}/ocr_vqa/images", "https://drive.google.com/drive/folders/1_GYPY5UkUy7HIcR0zq3ZCFgeZN7BAfm_", UNSTATED,
              "207,572 images, for 80,000 conversations; a script that loads them one by one, each to be saved as .jpg; many addresses are gone, "
              "LLaVA's issue 1618 and pull request 1458 name copies"),
         Part(f"{_MIX}/textvqa/train_images", "https://dl.fbaipublicfiles.com/textvqa/images/train_val_images.zip", "6.6 GB",
              "25,119 images, for 21,953 conversations; the archive holds train_images/", "CC BY 4.0", f"{_MIX}/textvqa/train_val_images.zip"),
         Part(f"{_MIX}/vg/VG_100K", "https://cs.stanford.edu/people/rak248/VG_100K_2/images.zip", "9 GB",
              "64,346 images, with VG_100K_2 for 86,417 conversations; the archive holds VG_100K/", packed=f"{_MIX}/vg/images.zip"),
         Part(f"{_MIX}/vg/VG_100K_2", "https://cs.stanford.edu/people/rak248/VG_100K_2/images2.zip", "5 GB",
              "43,903 images; the archive holds VG_100K_2/", packed=f"{_MIX}/vg/images2.zip")),
        f"{_INSTRUCT_LICENCE}; each image folder under its own", f"{_LLAVA}/{_INSTRUCT}",
        "LLaVA's README has the file and the folders in playground/data; here they lie in LLaVA-Finetune and its images/.", 665_298),
    "llava-cc3m-595k": Entry(
        "595K images of CC-3M with their captions: LLaVA, first stage",
        tuple(f"llava:{_CC3M}/chat.json:{_CC3M}/{images}" for images in ("images", "images.zip")),
        (Part(f"{_CC3M}/chat.json", _hub(_CC3M, "chat.json"), "211 MB", "conversations of one caption"),
         Part(f"{_CC3M}/images", _hub(_CC3M, "images.zip"), "6.46 GB", "595,375 images; unpack it into images/",
              "CC-3M's; for reproducing LLaVA in research only", f"{_CC3M}/images.zip", f"{_CC3M}/images.zip")),
        _CC_LICENCE, f"{_LLAVA}/{_CC3M}"),
    "llava-instruct-150k": Entry(
        "157,712 conversations by GPT-4 about images of COCO: LLaVA, second stage",
        tuple(f"llava:{_INSTRUCT}/llava_instruct_150k.json:coco/{images}" for images in ("train2017", "train2017.zip/train2017")),
        (Part(f"{_INSTRUCT}/llava_instruct_150k.json", _hub(_INSTRUCT, "llava_instruct_150k.json"), "229 MB", "all conversations"),
         _coco("coco/train2017", folder="coco/train2017.zip/train2017")),
        _INSTRUCT_LICENCE, f"{_LLAVA}/{_INSTRUCT}"),
    "coco-captions": Entry(
        "591,753 captions of 118,287 images, and 25,014 of 5,000 for validation",
        tuple(f"coco:coco/annotations/captions_{part}2017.json:coco/{images}"
              for part in ("train", "val") for images in (f"{part}2017", f"{part}2017.zip/{part}2017")),
        (Part("coco/annotations/captions_train2017.json", _ANNOTATIONS, "241 MB", "one of its files, 91.9 MB; unpack it inside coco/", _COCO_LICENCE),
         _coco("coco/train2017", folder="coco/train2017.zip/train2017"),
         Part("coco/annotations/captions_val2017.json", _ANNOTATIONS, "241 MB", "another, 3.87 MB", _COCO_LICENCE),
         _coco("coco/val2017", "val", "coco/val2017.zip/val2017")),
        _COCO_LICENCE, "https://cocodataset.org/#download"),
    "minigpt4-align": Entry(
        "about 3,500 images with long descriptions: MiniGPT-4, second stage (cc_sbu_align)",
        ("minigpt4:cc_sbu_align/filter_cap.json:cc_sbu_align/image",),
        (Part("cc_sbu_align/filter_cap.json", _ALIGN, UNSTATED, "in one archive with the images"), Part("cc_sbu_align/image", _ALIGN, UNSTATED, "ID.jpg")),
        "not stated; the images are of CC and SBU, MiniGPT-4's code is BSD 3-Clause",
        "https://github.com/Vision-CAIR/MiniGPT-4/blob/main/dataset/README_2_STAGE.md"),
    "easy_vqa": Entry(
        "5,000 images of one coloured shape with 48,248 questions: the demo",
        ("easy_vqa:train:questions", "easy_vqa:train:captions", "easy_vqa:train:texts", "easy_vqa:test:questions"),
        (Part("easy_vqa/1.0.0", "https://github.com/vzhou842/easy-VQA", "3 MB", "made by: pip install 'vlmjax[demo]'; vlmjax data build easy_vqa"),),
        "MIT", "https://github.com/vzhou842/easy-VQA"),
    **BENCHMARKS,
}  # fmt: skip


def published(spec: str) -> int:
    """How many examples the data that a stage names has, as published; 0 where that is not known."""
    return next((entry.examples for entry in CATALOGUE.values() if spec in entry.specs), 0)


def listing(data_dir: str) -> str:
    """One line per data set."""
    width = max(map(len, CATALOGUE))
    return "\n".join(f"{name:{width}}  {_there(entry, data_dir):16}  {entry.about}" for name, entry in CATALOGUE.items())


def describe(name: str, data_dir: str) -> str:
    """What a data set needs, from where, and what of it is there."""
    if name not in CATALOGUE:
        raise UserError(f"data: no source {name!r}{did_you_mean(name, CATALOGUE)}")
    entry = CATALOGUE[name]
    lines = [f"{name}: {entry.about}", f"from     {entry.page}", f"licence  {entry.licence}", *(f"stages   {spec}" for spec in entry.specs), *(f"tasks    {task}" for task in entry.tasks)]
    lines += [f"note     {entry.note}"] if entry.note else []
    lines.append(f"under {data_dir} ({_there(entry, data_dir)}):")
    for part in entry.parts:
        state = part.state(data_dir)
        lines.append(f"{state:7}  {part.path}  {part.size}  {part.url}")
        lines += [f"         {text}" for text in (part.what, f"licence: {part.licence}" if part.licence not in ("", entry.licence) else "") if text]
        if part.packed:
            name = f", with {part.folder} named as FOLDER" if part.folder else ""
            lines.append(f"         {'read from its archive,' if state == 'packed' else 'or leave the archive as it is in'} {part.packed}{name}")
    return "\n".join(lines)


def _there(entry: Entry, data_dir: str) -> str:
    states = [part.state(data_dir) for part in entry.parts]
    missing = states.count("missing")
    return f"{missing} of {len(states)} missing" if missing else "packed" if "packed" in states else "present"
