"""A run that was saved on two hosts goes on with another number of them: the same examples in every row of every batch, and losses equal up to reduction order."""
import json

import pytest

from tests import processes

# One stage over a mixture, packed and shuffled, over the ends of several epochs; `stop` ends it there, after a checkpoint.
PROGRAM = """
import json
from tests.data import tiny as data_tiny
from tests.train import tiny
from vlmjax import sharding
from vlmjax.data.conversation import TEMPLATES
from vlmjax.data.pipeline import Pipeline
from vlmjax.data.processor import Processor
from vlmjax.layout import ImageLayout
from vlmjax.train import metrics
from vlmjax.train.checkpoint import Checkpoints

class Stopped(Exception): pass

class Iterator:
    def __init__(self, inner, step): self.inner, self.step = inner, step
    def __next__(self):
        self.step += 1
        if self.step == STOP + 1: raise Stopped
        return next(self.inner)
    def get_state(self): return self.inner.get_state()
    def set_state(self, state):
        self.inner.set_state(state)
        self.step = AFTER

class Data(Pipeline):
    def iterator(self, start, stop, prefetch, rows=None): return Iterator(super().iterator(start, stop, 2, rows), start)

mesh = sharding.make_mesh(sharding.MeshConfig(replica=1, fsdp=8, tensor=1))
stage = tiny.stage(mesh=mesh, length=40, targets=16, images=2, steps=8, trainable=((".*", True),))
processor = Processor(data_tiny.TOKENIZER, TEMPLATES["plain_qa"], ImageLayout(size=16, patch=8))
data = Data([(data_tiny.questions(), 2.0), (data_tiny.texts(), 1.5)], processor, "next_token", stage.shape, 0, 2, workers=2)
checkpoints = Checkpoints(WORKDIR, "align")
try:
    tiny.run(stage, WORKDIR, data, every=4, checkpoints=checkpoints)
except Stopped:
    checkpoints.close()
if jax.process_index() == 0:
    print(json.dumps([[row["step"], row["batch"], row["loss"]] for row in metrics.read(WORKDIR, "align")]))
"""


def run(workdir, count, stop=8, after=0):
    printed = processes.run(f"WORKDIR, STOP, AFTER = {str(workdir)!r}, {stop}, {after}\n{PROGRAM}", count)[0]
    return json.loads(printed.splitlines()[-1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    rows = run(tmp_path_factory.mktemp("whole"), 1)
    assert [row[0] for row in rows] == list(range(8)) and len({row[1] for row in rows}) == 8
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4])
def test_saved_on_two_hosts_and_continued_on_another_number(whole, tmp_path, count):
    first = run(tmp_path, 2, stop=4)
    assert len(first) == 4
    rows = run(tmp_path, count, after=4)
    assert [row[:2] for row in rows] == [row[:2] for row in whole]
    assert [row[2] for row in rows] == pytest.approx([row[2] for row in whole], rel=1e-5)
