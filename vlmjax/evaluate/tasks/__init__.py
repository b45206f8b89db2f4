"""One file per data set: its prompts, parsers and scorers."""
from vlmjax.evaluate.tasks import (amber, chair, chartqa, coco_captions, countbench, cvbench, docvqa, easy_vqa, gqa, hallusionbench, mmbench, mme, mmvp, pope, scenes, scienceqa, seedbench, tallyqa,
                                   textvqa, vizwiz, vqav2, vqav2_upload, vsr, whatsup)

OPEN = (vqav2.VQAV2, vqav2_upload.VQAV2_UPLOAD, gqa.GQA, vizwiz.VIZWIZ, *textvqa.ALL, docvqa.DOCVQA, chartqa.CHARTQA)
CHOICE = (scienceqa.SCIENCEQA, mme.MME, mmbench.MMBENCH, seedbench.SEEDBENCH, mmvp.MMVP, cvbench.CVBENCH)
HALLUCINATION = (pope.POPE, chair.CHAIR, amber.AMBER, hallusionbench.HALLUSIONBENCH)
SPACE, COUNTING, CAPTIONS = (vsr.VSR, whatsup.WHATSUP), (tallyqa.TALLYQA, countbench.COUNTBENCH), (coco_captions.COCO_CAPTIONS,)
TASKS = {task.name: task for task in (easy_vqa.QUESTIONS, easy_vqa.CAPTION, easy_vqa.ZERO_SHOT, *scenes.ALL, *OPEN, *CHOICE, *HALLUCINATION, *SPACE, *COUNTING, *CAPTIONS)}
