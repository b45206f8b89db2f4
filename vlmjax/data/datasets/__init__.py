"""One file per data set: how it is built, and what it can be read as."""
from vlmjax.data.datasets import built, coco, easy_vqa, internvl, llava, minigpt4, parquet, scenes, tfds, webdataset

DATASETS = {"easy_vqa": easy_vqa, "scenes": scenes, "llava": llava, "coco": coco, "minigpt4": minigpt4, "internvl": internvl, "parquet": parquet, "webdataset": webdataset, "tfds": tfds, "built": built}
