"""One file per data set: its prompts, parsers and scorers."""
from vlmjax.evaluate.tasks import chartqa, docvqa, easy_vqa, gqa, pope, scenes, textvqa, vizwiz, vqav2

OPEN = (vqav2.VQAV2, *textvqa.ALL, gqa.GQA, vizwiz.VIZWIZ, docvqa.DOCVQA, chartqa.CHARTQA)
TASKS = {task.name: task for task in (easy_vqa.QUESTIONS, easy_vqa.CAPTION, easy_vqa.ZERO_SHOT, *scenes.ALL, pope.POPE, *OPEN)}
from vlmjax.evaluate.tasks import cvbench, easy_vqa, mmbench, mmvp, pope, scenes, scienceqa, seedbench, vsr, whatsup

TASKS = {task.name: task for task in (easy_vqa.QUESTIONS, easy_vqa.CAPTION, easy_vqa.ZERO_SHOT, *scenes.ALL, pope.POPE, scienceqa.SCIENCEQA, mmbench.MMBENCH, seedbench.SEEDBENCH, vsr.VSR, whatsup.WHATSUP, mmvp.MMVP, cvbench.CVBENCH)}
from vlmjax.evaluate.tasks import amber, chair, easy_vqa, hallusionbench, mme, pope, scenes

TASKS = {task.name: task for task in (easy_vqa.QUESTIONS, easy_vqa.CAPTION, easy_vqa.ZERO_SHOT, *scenes.ALL, pope.POPE, mme.MME, chair.CHAIR, amber.AMBER, hallusionbench.HALLUSIONBENCH)}
