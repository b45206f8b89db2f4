"""Do weights go straight into shards, with no process ever holding the model?

Writes a synthetic Llama of random bfloat16 weights, file by file, and reads it in two real processes of four virtual CPU devices
each, on one mesh fsdp 8, in two ways: `load` is `vlmjax.load(path, dtype="bfloat16", mesh=mesh)`; `stage` is the start of a training
stage whose language model is frozen in bfloat16: truth, state, and the digests of both (what `vlmjax train` does before its first step).

A process may need half of the model, its largest tensor and 1 GiB above what it needs after start-up. What counts is memory of its
own (anonymous and shared-memory pages). Pages of the mapped file are the kernel's cache, which it takes back when it needs them; they
are shown beside it. Exits with 1 when a process is above the bound.

    python experiments/benchmarks/load_in_shards.py [--layers=24] [--ways=load,stage] [--keep=DIR]
"""
import argparse
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

GIB = 1 << 30
FILE_BYTES = GIB // 2
PROCESSES, DEVICES = 2, 4
WIDTH, HEADS, MLP, VOCAB = 2048, 16, 5504, 32000  # 50.6 M parameters a layer, 131 M in embedding and head


def write(directory: pathlib.Path, layers: int) -> tuple[int, int]:
    """A checkpoint as transformers writes it → (bytes of all tensors, of the largest)."""
    import ml_dtypes
    import numpy as np
    import safetensors.numpy

    from vlmjax import stacks
    from vlmjax.data.tokenizer import word_level
    from vlmjax.models.decoder import Decoder, DecoderConfig
    from vlmjax.train import build
    from vlmjax.weights import llama, store, table

    sizes = DecoderConfig(vocab=VOCAB, width=WIDTH, layers=layers, heads=HEADS, kv_heads=HEADS, head_dim=WIDTH // HEADS, mlp=MLP)
    shapes = stacks.expand(build.abstract_params({"decoder": Decoder(sizes, (layers,))}))
    entries = table.expand(llama.FAMILY.layouts["transformers"], shapes)
    draw, held, where, total, largest = np.random.default_rng(0), {}, {}, 0, 0

    def flush():
        name = f"model-{len(set(where.values())) + 1:05d}.safetensors"
        where.update(dict.fromkeys(held, name))
        (directory / name).write_bytes(safetensors.numpy.save(held))
        held.clear()

    for entry in entries:
        shape = entry.form.foreign(shapes[entry.ours[0] if isinstance(entry.ours, tuple) else entry.ours].shape)
        held[entry.foreign] = (draw.standard_normal(shape, np.float32) * 0.02).astype(ml_dtypes.bfloat16)
        total, largest = total + held[entry.foreign].nbytes, max(largest, held[entry.foreign].nbytes)
        if sum(tensor.nbytes for tensor in held.values()) > FILE_BYTES:
            flush()
    flush()
    (directory / store.INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": where}))
    (directory / "config.json").write_text(json.dumps(llama.config(sizes)))
    tokenizer = word_level(["a synthetic model"])
    tokenizer.save(directory / "tokenizer.json")
    (directory / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    return total, largest


class Memory:
    """The most that this process has held since `start`, sampled: `own` (anonymous and shared memory) and `all` (with pages of mapped files), in bytes."""

    def __init__(self):
        self.own, self.all, self._stop = 0, 0, False
        self._base = self._now()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _now(self) -> tuple[int, int]:
        status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
        anonymous, file, shared = (int(status[key].split()[0]) << 10 for key in ("RssAnon", "RssFile", "RssShmem"))
        return anonymous + shared, anonymous + shared + file

    def _watch(self) -> None:
        while not self._stop:
            own, everything = self._now()
            self.own, self.all = max(self.own, own - self._base[0]), max(self.all, everything - self._base[1])
            time.sleep(0.005)

    def stop(self) -> dict[str, int]:
        self._stop = True
        self._thread.join()
        return {"own": self.own, "all": self.all, "left": self._now()[0] - self._base[0]}


def child(way: str, directory: str, port: str, index: int) -> None:
    """One of the processes: prints the bytes it held and its share of what was placed."""
    import jax

    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=PROCESSES, process_id=index)
    import vlmjax
    from vlmjax import pretrained, sharding
    from vlmjax.commands import common
    from vlmjax.train import build, loop, proof
    from vlmjax.train.truth import Truth

    mesh = sharding.make_mesh(sharding.MeshConfig(fsdp=PROCESSES * DEVICES))
    jax.jit(lambda x: x.sum(), out_shardings=sharding.replicated(mesh))(jax.device_put(jax.numpy.zeros(8), sharding.batch(mesh))).block_until_ready()
    if way == "load":
        memory, began = Memory(), time.monotonic()
        held = vlmjax.load(directory, dtype="bfloat16", mesh=mesh).params
    else:
        components = build.ModelConfig(build.Component(weights=directory), build.Component("tiny-64"), build.Component("linear"))
        checkpoints = {"decoder": pretrained.find(directory)}
        modules = build.modules(components, 16, "bfloat16", checkpoints={"decoder": checkpoints["decoder"].sizes})
        config = build.StageConfig("next_token", (("projector/.*", True), (".*", False)), (), 8, 128, build.optim.OptimizerConfig(lr=1e-3), targets=8, steps=1)
        stage = build.stage("align", config, modules, build.Precision(frozen="bfloat16"), mesh, 1)
        memory, began = Memory(), time.monotonic()
        truth = Truth("unused", modules, {"align": stage}, 0, mesh, common.parameter_sources(checkpoints)).load(stage.components, ())
        held = loop.start_state(stage, truth)
        proof.check_unchanged("align", loop.source_digests(stage, truth), proof.digests(held.frozen), "between their source and the first step")
        del truth
    jax.block_until_ready(held)
    seconds = time.monotonic() - began
    shards = [shard.data.nbytes for leaf in jax.tree.leaves(held) for shard in leaf.addressable_shards]
    print(json.dumps({**memory.stop(), "shards": sum(shards), "seconds": seconds}))


def run(way: str, directory: pathlib.Path) -> list[dict]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}"}
    command = [sys.executable, __file__, "--child", way, str(directory), port]
    processes = [subprocess.Popen([*command, str(i)], env=env, stdout=subprocess.PIPE, text=True) for i in range(PROCESSES)]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        sys.exit(f"{way}: a process failed")
    return [json.loads(next(line for line in reversed(output.splitlines()) if line.startswith("{"))) for output in outputs]  # collectives print too


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--layers", type=int, default=24)
    flags.add_argument("--ways", default="load,stage")
    flags.add_argument("--keep", help="write the checkpoint there, or read the one that is there, and leave it")
    args = flags.parse_args()
    directory = pathlib.Path(args.keep or tempfile.mkdtemp(prefix="load_in_shards_"))
    directory.mkdir(parents=True, exist_ok=True)
    total, largest = write(directory, args.layers)
    bound = total // PROCESSES + largest + GIB
    print(f"model {total / GIB:.2f} GiB, largest tensor {largest / GIB:.3f}; bound {bound / GIB:.2f} (half of it, the largest tensor, 1); GiB above start-up:\n")
    print("| way | process | its shards | own memory, most | with pages of the file, most | seconds | bound kept |\n|---|---:|---:|---:|---:|---:|---|")
    kept = True
    try:
        for way in args.ways.split(","):
            for i, seen in enumerate(run(way, directory)):
                kept &= seen["own"] <= bound
                print(f"| {way} | {i} | {seen['shards'] / GIB:.2f} | {seen['own'] / GIB:.2f} | {seen['all'] / GIB:.2f} | {seen['seconds']:.0f} | {'yes' if seen['own'] <= bound else 'NO'} |", flush=True)
    finally:
        if not args.keep:
            shutil.rmtree(directory)
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    child(*sys.argv[2:5], int(sys.argv[5])) if sys.argv[1:2] == ["--child"] else main()
