"""What libtpu needs to compile on a machine that has no TPU. To be set before jax is imported; imports nothing of weight itself."""
import os

VARIABLES = {
    "JAX_PLATFORMS": "cpu",  # everything but the compiler of the topology
    "TPU_SKIP_MDS_QUERY": "1",  # otherwise libtpu asks the cloud's metadata server, half a minute for each key
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # any: it need not be that of the topology
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # two plans at once
}


def prepare() -> None:
    os.environ.update(VARIABLES)
