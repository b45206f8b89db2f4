"""One file per data set: how it is built, and what it can be read as."""
from vlmjax.data.datasets import built, easy_vqa, llava

DATASETS = {"easy_vqa": easy_vqa, "llava": llava, "built": built}
