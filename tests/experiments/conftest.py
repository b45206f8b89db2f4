"""Data where the recipes look for it."""
import json

import numpy as np
import pytest
from PIL import Image

# Where the recipes look for their captions and conversations: file, folder of its images.
CAPTIONS = (("LLaVA-Pretrain/blip_laion_cc_sbu_558k.json", "LLaVA-Pretrain/images"), ("LLaVA-CC3M-Pretrain-595K/chat.json", "LLaVA-CC3M-Pretrain-595K/images"))
CHATS = (("LLaVA-Finetune/llava_v1_5_mix665k.json", "LLaVA-Finetune/images"), ("LLaVA-Instruct-150K/llava_instruct_150k.json", "coco/train2017"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """16 captions, and 16 conversations of which one has no image: two batches of each."""
    root, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    def write(file, folder, talk, without=()):
        for directory in ((root / file).parent, root / folder):
            directory.mkdir(parents=True, exist_ok=True)
        out = []
        for i in range(16):
            Image.fromarray(draw.integers(0, 256, (20 + i, 31, 3), np.uint8)).save(root / folder / f"{i}.jpg")
            out.append({"id": str(i), **({} if i in without else {"image": f"{i}.jpg"}), "conversations": talk(i)})
        (root / file).write_text(json.dumps(out))

    say = lambda who, text: {"from": who, "value": text}
    for place in CAPTIONS:
        write(*place, lambda i: [say("human", "Describe this.\n<image>"), say("gpt", f"a photo of {i} squares")])
    for place in CHATS:
        write(*place, lambda i: [*([say("gpt", "leads")] if i == 3 else []), say("human", "Hello?" if i == 5 else "<image>\nHow many?"), say("gpt", f"{i}."),
                                 say("human", "Sure?"), say("gpt", "Yes.")], without=(5,))
    return root
