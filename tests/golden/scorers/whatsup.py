"""What'sUp: the publisher's individual, pair and set accuracy of chosen statements. Needs numpy."""
import contextlib
import importlib.util
import io
import json
import os
import pathlib
import random
import re
import sys
import tempfile
from unittest import mock

CODE = "amitakamath/whatsup_vlms, dataset_zoo/aro_datasets.py"
FILES = {"A": ("controlled_images", "controlled_images_dataset.json", {"left_of": "to the left of", "right_of": "to the right of", "on": "on", "under": "under"}),
         "B": ("controlled_clevr", "controlled_clevr_dataset.json", {"left_of": "to the left of", "right_of": "to the right of", "in-front_of": "in front of", "behind": "behind"})}


def make(checkout: pathlib.Path) -> dict:
    import numpy as np

    for name in ("cv2", "torch", "torch.utils", "torch.utils.data", "torchvision", "torchvision.datasets", "torchvision.datasets.utils", "easydict", "PIL", "tqdm", "gdown", "aro", "dataset_zoo", "dataset_zoo.constants", "dataset_zoo.perturbations", "dataset_zoo.retrieval"):
        sys.modules[name] = mock.MagicMock()
    sys.modules["torch.utils.data"].Dataset = object
    sys.modules["dataset_zoo"].__path__ = []
    spec = importlib.util.spec_from_file_location("dataset_zoo.aro_datasets", checkout / "dataset_zoo/aro_datasets.py")
    spec.loader.exec_module(official := importlib.util.module_from_spec(spec))
    rng, out = random.Random(0), {}
    for subset, (folder, file, relations) in FILES.items():
        rows, chosen = [], []
        for k in range(25):
            first, second = f"thing-{k}", rng.choice(("chair", "table", "mug"))
            sure = rng.random() < 0.6
            for relation in relations:
                others = [other for other in relations if other != relation]
                rng.shuffle(others)
                rows.append({"image_path": f"data/{folder}/{first}_{relation}_{second}.jpeg", "caption_options": [f"A {first} {relations[one]} a {second}" for one in (relation, *others)]})
                chosen.append(0 if sure and rng.random() < 0.9 else rng.choice((0, 1, 2, 3, None)))
        scores = np.zeros((len(rows), 1, 4))
        for i, index in enumerate(chosen):
            scores[i, 0, 1 if index is None else index] = 1  # what is no statement gets a wrong one
        with tempfile.TemporaryDirectory() as held, contextlib.redirect_stdout(printed := io.StringIO()):
            os.mkdir(f"{held}/{folder}")
            pathlib.Path(held, file).write_text(json.dumps(rows))
            records = official.Controlled_Images(None, root_dir=held, subset=subset).evaluate_scores(scores)
        out[subset] = {"rows": [[row["image_path"], row["caption_options"], index] for row, index in zip(rows, chosen)], "numbers": [float(value) for value in re.findall(r"accuracy: ([0-9.]+)", printed.getvalue())],
                       "relations": {record["Preposition"]: float(record["Accuracy"]) for record in records}}
    return out
