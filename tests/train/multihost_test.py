"""Two real processes of four devices: the digest of what they hold together is that of one device, and each knows what the other found broken."""
import json

import pytest

from tests import processes
from tests.train import tiny
from vlmjax import param_rules, stacks
from vlmjax.train import proof

PROGRAM = """
import json
from tests.train import tiny
from vlmjax import sharding
from vlmjax.data.pipeline import Fault
from vlmjax.errors import UserError
from vlmjax.train import loop, proof
from vlmjax.train.quarantine import Quarantine
stage = tiny.stage(mesh=sharding.make_mesh(sharding.MeshConfig(replica=1, fsdp=4, tensor=2)))
frozen = loop.start_state(stage, tiny.truth(stage)).frozen
assert not frozen["decoder"]["embed"].is_fully_addressable
found = Quarantine(TMP + f"/{jax.process_index()}", "align")
found.settle()
for step, own in enumerate([{0: ["a"], 1: ["b", "c"]}, {0: ["d"]}, {1: ["a", "e"]}, {}]):
    found.add(step, [Fault(name, "empty file", 2) for name in own.get(jax.process_index(), [])])
    if step == 2:
        found.settle()
found.settle()
try:
    found.check(0.004, 1000)
except UserError as error:
    stopped = str(error).split(":")[1]
print(json.dumps({"digests": proof.digests(frozen), "quarantine": [found.get_state(), found.record(), stopped, found.path.exists()]}))
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return [json.loads(output.splitlines()[-1]) for output in processes.run(f"TMP = {str(tmp_path_factory.mktemp('run'))!r}\n{PROGRAM}")]


def test_the_hash_is_the_same_on_one_device_and_on_processes(outputs):
    stage = tiny.stage()
    frozen = {path for path, label in stage.labels.items() if not label.trainable}
    alone = proof.digests(param_rules.unflatten({path: leaf for path, leaf in tiny.truth(stage).items() if path in frozen}))
    for output in outputs:
        assert proof.sha256(output["digests"]) == proof.sha256(alone)
    assert all(not stacks.is_stacked(path) for path in alone)


def test_both_processes_count_what_either_found_broken_in_the_order_of_the_rows(outputs):
    (state, record, stopped, listed), (other, other_record, other_stopped, other_listed) = (output["quarantine"] for output in outputs)
    assert state == other and record == other_record and stopped == other_stopped == " 5 of 1000 examples are broken, max_broken is 0.004"
    assert list(state["reasons"]) == ["a", "b", "c", "d", "e"] and (state["appearances"], state["supervised"]) == (6, 12)
    assert listed and not other_listed  # the first process writes
