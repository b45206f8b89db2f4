"""Weights go straight into shards: two real processes read a checkpoint, each its own half of it."""
import json
import pathlib
import shutil

import pytest

from tests import processes
from vlmjax import pretrained

GOLDEN = pathlib.Path(__file__).parent / "golden"

MODEL = "tests/golden/llama/model"
PROGRAM = """
import collections, json
import numpy as np
from tests.train import tiny
from vlmjax import param_rules, pretrained, sharding, stacks
from vlmjax.commands import common
from vlmjax.train import build, loop, proof
from vlmjax.train.truth import Truth

class Counted:  # a view of the file that knows what was taken from it
    def __init__(self, path, array): self.path, self.array, self.shape, self.dtype = path, array, array.shape, array.dtype
    def __getitem__(self, index):
        part = self.array[index]
        taken[self.path] += part.nbytes
        return part

taken, views = collections.Counter(), pretrained.Checkpoint.arrays
pretrained.Checkpoint.arrays = lambda self: {path: Counted(path, array) for path, array in views(self).items()}
checkpoint = pretrained.find("MODEL")
source, mesh = views(checkpoint), sharding.make_mesh(sharding.MeshConfig(fsdp=8))

def differing(params, dtype):
    out = []
    for path, leaf in param_rules.flatten(params).items():
        want = np.stack([source[p] for p in stacks.layer_paths(path)]) if stacks.is_stacked(path) else source[path]
        if leaf.dtype != dtype or any(not np.array_equal(np.asarray(s.data), want[s.index].astype(dtype)) for s in leaf.addressable_shards):
            out.append(path)
    return out

loaded = pretrained.load("MODEL", mesh=mesh)
out = {"load": [differing(loaded.params, np.float32), dict(taken)]}
modules = tiny.modules() | build.modules(build.ModelConfig(build.Component(weights="MODEL")), 1, "float32", checkpoints={"decoder": checkpoint.sizes})
modules["projector"] = modules["projector"].clone(out_width=checkpoint.sizes["decoder"].width)
stage = tiny.stage(mesh=mesh, precision=build.Precision(compute="float32", frozen="bfloat16"), parts=modules)
truth = Truth("unused", modules, {}, 0, mesh, common.parameter_sources({"decoder": checkpoint})).load(stage.components, ())
taken.clear()
frozen = loop.start_state(stage, truth).frozen
out["stage"] = [differing({"decoder": frozen["decoder"]}, "bfloat16"), dict(taken)]
taken.clear()
proof.check_unchanged("align", loop.source_digests(stage, truth), proof.digests(frozen), "between their source and the first step")
out["digests"] = [[], dict(taken)]
print(json.dumps(out))
""".replace("MODEL", MODEL)


@pytest.mark.slow
def test_each_process_reads_its_own_part_of_a_file_and_no_other():
    one, other = map(json.loads, processes.run(PROGRAM))
    sizes = {path: array.nbytes for path, array in pretrained.find(MODEL).arrays().items()}
    for way in ("load", "stage", "digests"):
        for differ, taken in (one[way], other[way]):
            assert not differ and set(taken) == set(sizes)
            split = [path for path in sizes if taken[path] < sizes[path]]
            assert all(2 * taken[path] == sizes[path] for path in split)
            assert sum(sizes[path] for path in split) > 0.95 * sum(sizes.values())  # the rest are gains and biases


@pytest.mark.parametrize("change, tiles", [({}, 4), ({"crop_to_patches": True}, 4), ({"max_patches": 1}, 1), ({"max_patches": None}, 12)])
def test_tiles_are_what_the_processor_of_a_checkpoint_makes(tmp_path, change, tiles):
    """Whatever crop_to_patches says: transformers' InternVLProcessor asks its image processor to cut (checked with transformers 5.24)."""
    shutil.copytree(GOLDEN / "internvl" / "model", tmp_path / "model")
    file = tmp_path / "model" / "preprocessor_config.json"
    node = json.loads(file.read_text())
    assert node["crop_to_patches"] is False
    file.write_text(json.dumps({key: value for key, value in {**node, **change}.items() if value is not None}))
    layout = pretrained.find(tmp_path / "model").layout
    assert (layout.tiles, layout.most, layout.tokens_per_image) == (tiles, tiles + (tiles > 1), 4)  # four by four patches, of which four are a token
