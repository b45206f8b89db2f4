"""Published benchmarks that `vlmjax evaluate` has as tasks: their files, laid out as haotian-liu/LLaVA's docs/Evaluation.md has them under its playground/data/eval, so that this folder can be a data directory.

A size or licence stands here where its publisher states it.
"""
from vlmjax.data.datasets.entries import HUB, Entry, Part

VAL2014 = "http://images.cocodataset.org/zips/val2014.zip"
COCO_IMAGES = "under the terms of Flickr (cocodataset.org, terms of use)"

BENCHMARKS = {
    "pope": Entry(
        "3 x 3,000 questions whether an object is in one of 500 images of COCO: hallucination", (),
        (*(Part(f"pope/coco/coco_pope_{kind}.json", f"https://github.com/RUCAIBox/POPE/raw/main/output/coco/coco_pope_{kind}.json", size, "3,000 questions")
           for kind, size in (("random", "368 KB"), ("popular", "370 KB"), ("adversarial", "370 KB"))),
         Part("pope/val2014", VAL2014, "6 GB", "40,504 images, of which 500; the archive holds val2014/", COCO_IMAGES, "pope/val2014.zip")),
        "MIT", "https://github.com/RUCAIBox/POPE", tasks=("pope",)),
    "scienceqa": Entry(
        "21,208 science questions of schools, 4,241 of them for testing, some with an image", (),
        (Part("scienceqa/problems.json", "https://github.com/lupantech/ScienceQA/raw/main/data/scienceqa/problems.json", what="all questions"),
         Part("scienceqa/pid_splits.json", "https://github.com/lupantech/ScienceQA/raw/main/data/scienceqa/pid_splits.json", "503 KB", "the splits"),
         Part("scienceqa/images/test", "https://scienceqa.s3.us-west-1.amazonaws.com/images/test.zip", what="ID/image.png; the archive holds test/", packed="scienceqa/images/test.zip")),
        "CC BY-NC-SA 4.0", "https://github.com/lupantech/ScienceQA", tasks=("scienceqa",)),
    "mmbench": Entry(
        "1,164 questions about 20 abilities by multiple choice, 4,377 with the rotations of their options; in English and Chinese", (),
        tuple(Part(f"mmbench/mmbench_dev_{name}.tsv", f"https://download.openmmlab.com/mmclassification/datasets/mmbench/mmbench_dev_{name}.tsv", what=what)
              for name, what in (("20230712", "questions and images"), ("cn_20231003", "the same in Chinese, for the split dev_cn"))),
        "in the LICENSE of open-compass/MMBench; images of public data sets and the internet under their own", "https://github.com/open-compass/MMBench", tasks=("mmbench",)),
    "seedbench": Entry(
        "the questions of SEED-Bench-1 (19K) that are about single images: nine abilities by multiple choice", (),
        (Part("seed_bench/SEED-Bench.json", f"{HUB}/AILab-CVC/SEED-Bench/resolve/main/SEED-Bench.json", "7.17 MB", "all questions, also those about videos"),
         Part("seed_bench/SEED-Bench-image", f"{HUB}/AILab-CVC/SEED-Bench/resolve/main/SEED-Bench-image.zip", "1.68 GB", "images of CC-3M, named DATA_ID; unpack it")),
        "hub: CC BY-NC 4.0; README: Apache 2.0, images under the licence of CC-3M", "https://github.com/AILab-CVC/SEED-Bench", tasks=("seedbench",)),
    "vsr": Entry(
        "1,222 statements about where two things are in 715 images of COCO, true or false, and 2,195 of a random split", (),
        (*(Part(f"vsr/splits/{split}/test.jsonl", f"https://github.com/cambridgeltl/visual-spatial-reasoning/raw/master/data/splits/{split}/test.jsonl", what=f"{count} statements, the split {split}") for split, count in (("zeroshot", "1,222"), ("random", "2,195"))),
         Part("vsr/images", "https://www.dropbox.com/s/0s3bj25s62crjh2/vsr_images.zip?dl=0", what="the images it uses, of COCO's train2017 and val2017; unpack it into images/", licence=COCO_IMAGES)),
        "Apache 2.0", "https://github.com/cambridgeltl/visual-spatial-reasoning", tasks=("vsr",)),
    "whatsup": Entry(
        "820 photographs of two things, sets of four that differ in where they are, with four statements each (What'sUp, controlled images)", (),
        tuple(Part(f"whatsup/{path}", f"https://drive.google.com/uc?id={key}", what=what) for path, key, what in (
            ("controlled_images_dataset.json", "1ap8mmmpQjLIjPGuplkpBgc1hoEHCj4hm", "A: left, right, on, under"), ("controlled_images", "19KGYVQjrV3syb00GgcavB2nZTW5NXX0H", "its images; unpack controlled_images.tar.gz"),
            ("controlled_clevr_dataset.json", "1unNNosLbdy9NDjgj4l8fsQP3WiAAGA6z", "B: left, right, in front, behind"), ("controlled_clevr", "13jdBpg8t3NqW3jrL6FK8HO93vwsUjDxG", "its images; unpack controlled_clevr.tar.gz"))),
        "MIT", "https://github.com/amitakamath/whatsup_vlms", tasks=("whatsup",)),
    "mmvp": Entry(
        "300 questions about 150 pairs of images that CLIP takes for alike", (),
        (Part("mmvp/Questions.csv", f"{HUB}/MMVP/MMVP/resolve/main/Questions.csv", what="all questions"), Part("mmvp/MMVP Images", f"{HUB}/MMVP/MMVP/tree/main", what="1.jpg to 300.jpg, one by one")),
        "MIT, of the project; of the images not stated", "https://github.com/tsb0601/MMVP", tasks=("mmvp",)),
    "cvbench": Entry(
        "2,638 questions about counts, relations, depth and distance: images of ADE20K, COCO and Omni3D (CV-Bench)", (),
        (Part("cvbench/test_2d.jsonl", f"{HUB}/nyu-visionx/CV-Bench/resolve/main/test_2d.jsonl", "821 kB", "counting and relations"),
         Part("cvbench/test_3d.jsonl", f"{HUB}/nyu-visionx/CV-Bench/resolve/main/test_3d.jsonl", "1.07 MB", "depth and distance"),
         Part("cvbench/img", f"{HUB}/nyu-visionx/CV-Bench/tree/main", "405 MB", "the images, which the hub's build_img.py writes from test_2d.parquet and test_3d.parquet")),
        "Apache 2.0; images under the licences of their data sets", f"{HUB}/nyu-visionx/CV-Bench", tasks=("cvbench",)),
}  # fmt: skip
