"""One file per data set: its prompts, parsers and scorers."""
from vlmjax.evaluate.tasks import amber, chair, easy_vqa, hallusionbench, mme, pope, scenes

TASKS = {task.name: task for task in (easy_vqa.QUESTIONS, easy_vqa.CAPTION, easy_vqa.ZERO_SHOT, *scenes.ALL, pope.POPE, mme.MME, chair.CHAIR, amber.AMBER, hallusionbench.HALLUSIONBENCH)}
