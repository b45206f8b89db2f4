"""Published benchmarks that `vlmjax evaluate` has as tasks: their files, laid out as haotian-liu/LLaVA's docs/Evaluation.md has them under its playground/data/eval, so that this folder can be a data directory.

A size or licence stands here where its publisher states it.
"""
from vlmjax.data.datasets.entries import HUB, UNSTATED, Entry, Part

_VQA = "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa"
_LLAVA_EVAL = "https://drive.google.com/file/d/1atZSBBrAX54yYpxtVVW33zFvcnaHeFPy/view"
_RRC = "https://rrc.cvc.uab.es/?ch=17&com=downloads"
VAL2014 = "http://images.cocodataset.org/zips/val2014.zip"
VISUAL_GENOME = "https://cs.stanford.edu/people/rak248/VG_100K_2"
COCO_IMAGES = "under the terms of Flickr (cocodataset.org, terms of use)"

BENCHMARKS = {
    "pope": Entry(
        "3 x 3,000 questions whether an object is in one of 500 images of COCO: hallucination", (),
        (*(Part(f"pope/coco/coco_pope_{kind}.json", f"https://github.com/RUCAIBox/POPE/raw/main/output/coco/coco_pope_{kind}.json", size, "3,000 questions")
           for kind, size in (("random", "368 KB"), ("popular", "370 KB"), ("adversarial", "370 KB"))),
         Part("pope/val2014", VAL2014, "6 GB", "40,504 images, of which 500; the archive holds val2014/", COCO_IMAGES, "pope/val2014.zip")),
        "MIT", "https://github.com/RUCAIBox/POPE", tasks=("pope",)),
    "tallyqa": Entry(
        "38,589 questions how many there are in images of Visual Genome, simple and complex ones: counting", (),
        (Part("tallyqa/test.json", "https://github.com/manoja328/tallyqa/raw/master/tallyqa.zip", UNSTATED, "38,589 questions; in an archive with train.json"),
         Part("tallyqa/VG_100K", f"{VISUAL_GENOME}/images.zip", "9 GB", "images; the archive holds VG_100K/", packed="tallyqa/images.zip"),
         Part("tallyqa/VG_100K_2", f"{VISUAL_GENOME}/images2.zip", "5 GB", "images; the archive holds VG_100K_2/", packed="tallyqa/images2.zip")),
        "not stated", "https://github.com/manoja328/TallyQA_dataset", tasks=("tallyqa",)),
    "countbench": Entry(
        "491 images with a question how many there are, 2 to 10 (CountBenchQA): counting", (),
        (Part("CountBenchQA/data/test-00000-of-00001.parquet", f"{HUB}/vikhyatk/CountBenchQA/resolve/main/data/test-00000-of-00001.parquet", "23.4 MB", "491 questions with their images"),),
        "not stated", f"{HUB}/vikhyatk/CountBenchQA", tasks=("countbench",)),
    "coco_captions": Entry(
        "5,000 images of COCO, each with captions by five people: Karpathy's test split", (),
        (Part("coco/dataset_coco.json", "https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip", UNSTATED, "all captions with their split; one of its files, to be unpacked inside coco/", "not stated"),
         Part("coco/val2014", VAL2014, "6 GB", "40,504 images, of which 5,000; the archive holds val2014/", COCO_IMAGES, "coco/val2014.zip"),
         Part("coco/annotations/captions_val2014.json", "http://images.cocodataset.org/annotations/annotations_trainval2014.zip", "241 MB",
              "captions of all images of val2014, for the split val2014 only; unpack it inside coco/")),
        "annotations CC BY 4.0 (cocodataset.org, terms of use)", "https://cocodataset.org/#download", tasks=("coco_captions",)),
    "vqav2": Entry(
        "214,354 questions about COCO's 40,504 images of val2014, each answered by ten people", (),
        (Part("vqav2/v2_OpenEnded_mscoco_val2014_questions.json", f"{_VQA}/v2_Questions_Val_mscoco.zip", UNSTATED, "214,354 questions; unpack it inside vqav2/"),
         Part("vqav2/v2_mscoco_val2014_annotations.json", f"{_VQA}/v2_Annotations_Val_mscoco.zip", UNSTATED, "2,143,540 answers; unpack it inside vqav2/"),
         Part("vqav2/val2014", VAL2014, "6 GB", "40,504 images, as in pope/val2014, to which this may be a link; the archive holds val2014/", COCO_IMAGES, "vqav2/val2014.zip")),
        "the Terms of Use of visualqa.org, to which its download page links", "https://visualqa.org/download.html", tasks=("vqav2",)),
    "vqav2_upload": Entry(
        "VQAv2's test-dev and test, whose answers a server has: 447,793 questions in all", (),
        (*(Part(f"vqav2/v2_OpenEnded_mscoco_{part}2015_questions.json", f"{_VQA}/v2_Questions_Test_mscoco.zip", UNSTATED, f"{what}; in one archive with the other, unpack it inside vqav2/")
           for part, what in (("test-dev", "the questions of test-dev"), ("test", "all 447,793 questions"))),
         Part("vqav2/test2015", "http://images.cocodataset.org/zips/test2015.zip", "12 GB", "81K images; the archive holds test2015/", COCO_IMAGES, "vqav2/test2015.zip")),
        "the Terms of Use of visualqa.org, to which its download page links", "https://visualqa.org/download.html", tasks=("vqav2_upload",)),
    "textvqa": Entry(
        "5,000 questions about text in photographs, each answered by ten people", (),
        (Part("textvqa/TextVQA_0.5.1_val.json", "https://dl.fbaipublicfiles.com/textvqa/data/TextVQA_0.5.1_val.json", UNSTATED, "5,000 questions with their answers"),
         Part("textvqa/train_images", "https://dl.fbaipublicfiles.com/textvqa/images/train_val_images.zip", "6.6 GB", "25,119 images, of training too; the archive holds train_images/",
              packed="textvqa/train_val_images.zip"),
         Part("textvqa/llava_textvqa_val_v051_ocr.jsonl", _LLAVA_EVAL, UNSTATED, "LLaVA's prompts with OCR tokens, of its eval.zip; for textvqa_ocr only", "not stated")),
        "CC BY 4.0", "https://textvqa.org/dataset/", tasks=("textvqa", "textvqa_ocr")),
    "gqa": Entry(
        "12,578 compositional questions about photographs: the balanced ones of testdev", (),
        (Part("gqa/data/testdev_balanced_questions.json", "https://nlp.stanford.edu/data/gqa/questions1.2.zip", UNSTATED, "all questions; of them this file, unpacked in gqa/data/"),
         Part("gqa/data/images", "https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip", "20.3 GB", "148,854 images; the archive holds images/", packed="gqa/data/images.zip")),
        "CC BY 4.0", "https://cs.stanford.edu/people/dorarad/gqa/download.html", tasks=("gqa",)),
    "vizwiz": Entry(
        "4,319 questions that blind people asked about their photographs, each answered by ten people", (),
        (Part("vizwiz/val.json", "https://vizwiz.cs.colorado.edu/VizWiz_final/vqa_data/Annotations.zip", UNSTATED, "of its files this one"),
         Part("vizwiz/val", "https://vizwiz.cs.colorado.edu/VizWiz_final/images/val.zip", UNSTATED, "4,319 images; unpack it into vizwiz/val/")),
        "see the page", "https://vizwiz.org/tasks-and-datasets/vqa/", tasks=("vizwiz",)),
    "docvqa": Entry(
        "5,349 questions about scanned pages", (),
        (Part("docvqa/val/val_v1.0.json", _RRC, UNSTATED, "the archive of the validation split, after registration; unpack it inside docvqa/"), Part("docvqa/val/documents", _RRC, UNSTATED, "in the same archive")),
        "see the page", "https://rrc.cvc.uab.es/?ch=17&com=tasks", tasks=("docvqa",)),
    "chartqa": Entry(
        "2,500 questions about charts, half of them written by people", (),
        (*(Part(f"chartqa/ChartQA Dataset/test/test_{kind}.json", f"https://github.com/vis-nlp/ChartQA/blob/main/ChartQA%20Dataset/test/test_{kind}.json", UNSTATED, "1,250 questions") for kind in ("human", "augmented")),
         Part("chartqa/ChartQA Dataset/test/png", "https://huggingface.co/datasets/ahmed-masry/ChartQA", UNSTATED, "the charts; in the repository of the questions too")),
        "see the page", "https://github.com/vis-nlp/ChartQA", tasks=("chartqa",)),
}  # fmt: skip
