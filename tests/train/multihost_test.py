"""Two real processes of four devices: the digest of what they hold together is that of one device."""
import json

from tests import two_processes
from tests.train import tiny
from vlmjax import param_rules, stacks
from vlmjax.train import proof

PROGRAM = """
import json
from tests.train import tiny
from vlmjax import sharding
from vlmjax.train import loop, proof
stage = tiny.stage(mesh=sharding.make_mesh(sharding.MeshConfig(replica=1, fsdp=4, tensor=2)))
frozen = loop.start_state(stage, tiny.truth(stage)).frozen
assert not frozen["decoder"]["embed"].is_fully_addressable
print(json.dumps(proof.digests(frozen)))
"""


def test_the_hash_is_the_same_on_one_device_and_on_two_processes():
    outputs = two_processes.run(PROGRAM)
    stage = tiny.stage()
    frozen = {path for path, label in stage.labels.items() if not label.trainable}
    alone = proof.digests(param_rules.unflatten({path: leaf for path, leaf in tiny.truth(stage).items() if path in frozen}))
    for output in outputs:
        assert proof.sha256(json.loads(output)) == proof.sha256(alone)
    assert all(not stacks.is_stacked(path) for path in alone)
