"""Two real processes of four devices: the digest of what they hold together is that of one device."""
import json
import os
import pathlib
import socket
import subprocess
import sys

from tests.train import tiny
from vlmjax import param_rules, stacks
from vlmjax.train import proof

PROGRAM = """
import json, sys
import jax
jax.distributed.initialize("127.0.0.1:" + sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
from tests.train import tiny
from vlmjax import sharding
from vlmjax.train import loop, proof
stage = tiny.stage(mesh=sharding.make_mesh(sharding.MeshConfig(replica=1, fsdp=4, tensor=2)))
frozen = loop.start_state(stage, tiny.truth(stage)).frozen
assert not frozen["decoder"]["embed"].is_fully_addressable
print(json.dumps(proof.digests(frozen)))
"""


def test_the_hash_is_the_same_on_one_device_and_on_two_processes():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    both = [subprocess.Popen([sys.executable, "-c", PROGRAM, port, str(i)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for i in range(2)]
    outputs = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    stage = tiny.stage()
    frozen = {path for path, label in stage.labels.items() if not label.trainable}
    alone = proof.digests(param_rules.unflatten({path: leaf for path, leaf in tiny.truth(stage).items() if path in frozen}))
    for stdout, _ in outputs:
        assert proof.sha256(json.loads(stdout.splitlines()[-1])) == proof.sha256(alone)
    assert all(not stacks.is_stacked(path) for path in alone)
