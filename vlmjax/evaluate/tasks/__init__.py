"""One file per data set: its prompts, parsers and scorers."""
from vlmjax.evaluate.tasks import chartqa, coco_captions, countbench, docvqa, easy_vqa, gqa, pope, scenes, tallyqa, textvqa, vizwiz, vqav2, vqav2_upload

OPEN = (vqav2.VQAV2, vqav2_upload.VQAV2_UPLOAD, *textvqa.ALL, gqa.GQA, vizwiz.VIZWIZ, docvqa.DOCVQA, chartqa.CHARTQA)
COUNTING, CAPTIONS = (tallyqa.TALLYQA, countbench.COUNTBENCH), (coco_captions.COCO_CAPTIONS,)
TASKS = {task.name: task for task in (easy_vqa.QUESTIONS, easy_vqa.CAPTION, easy_vqa.ZERO_SHOT, *scenes.ALL, pope.POPE, *OPEN, *COUNTING, *CAPTIONS)}
