"""One file per data set: its prompts, parsers and scorers."""
from vlmjax.evaluate.tasks import coco_captions, countbench, easy_vqa, pope, scenes, tallyqa

TASKS = {task.name: task for task in (easy_vqa.QUESTIONS, easy_vqa.CAPTION, easy_vqa.ZERO_SHOT, *scenes.ALL, pope.POPE, tallyqa.TALLYQA, countbench.COUNTBENCH, coco_captions.COCO_CAPTIONS)}
