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
