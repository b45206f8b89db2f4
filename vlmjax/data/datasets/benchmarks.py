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
    "mme": Entry(
        "2,374 yes/no questions about 1,187 images, of 14 abilities in perception and cognition", (),
        (Part("MME/MME_Benchmark_release_version", f"{HUB}/darkyarding/MME/resolve/main/MME_Benchmark_release_version.zip", what="14 folders of images and questions, to be unpacked"),),
        "not stated", "https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models/tree/Evaluation", tasks=("mme",)),
    "chair": Entry(
        "descriptions of COCO's validation images, and what is in them: objects that a description makes up", (),
        (*(Part(f"coco/annotations/{name}_val2014.json", "http://images.cocodataset.org/annotations/annotations_trainval2014.zip", "241 MB", "one of its files; unpack it inside coco/", "CC BY 4.0 (cocodataset.org, terms of use)")
           for name in ("instances", "captions")),
         Part("coco/val2014", VAL2014, "6 GB", "40,504 images; the archive holds val2014/", COCO_IMAGES, "coco/val2014.zip")),
        "see its parts", "https://github.com/LisaAnne/Hallucination", tasks=("chair",)),
    "amber": Entry(
        "14,216 yes/no questions about 1,004 images: what exists in them, of which state, number and action, and how it is related", (),
        (Part("AMBER/data/query/query_discriminative.json", "https://github.com/junyangwang0410/AMBER/raw/master/data/query/query_discriminative.json", what="14,216 questions"),
         Part("AMBER/data/annotations.json", "https://github.com/junyangwang0410/AMBER/raw/master/data/annotations.json", what="their answers"),
         Part("AMBER/image", "https://drive.google.com/file/d/1MaCHgtupcZUjf007anNl4_MV0o4DjXvl/view", what="1,004 images")),
        "Apache 2.0", "https://github.com/junyangwang0410/AMBER", tasks=("amber",)),
    "hallusionbench": Entry(
        "1,129 yes/no questions about 346 figures, edited ones among them, and about none", (),
        (Part("HallusionBench/HallusionBench.json", "https://github.com/tianyi-lab/HallusionBench/raw/main/HallusionBench.json", what="1,129 questions"),
         Part("HallusionBench/hallusion_bench", "https://drive.google.com/file/d/1eeO1i0G9BSZTE1yd5XeFwmrbe1hwyf_0/view", what="figures; the archive holds hallusion_bench/", packed="HallusionBench/hallusion_bench.zip")),
        "BSD 3-Clause", "https://github.com/tianyi-lab/HallusionBench", tasks=("hallusionbench",)),
}  # fmt: skip
