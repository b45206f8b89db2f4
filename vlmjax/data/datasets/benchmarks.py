"""Published benchmarks that `vlmjax evaluate` has as tasks: their files, laid out as haotian-liu/LLaVA's docs/Evaluation.md has them under its playground/data/eval, so that this folder can be a data directory.

A size or licence stands here where its publisher states it.
"""
from vlmjax.data.datasets.entries import HUB, UNSTATED, Entry, Part

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
}  # fmt: skip
