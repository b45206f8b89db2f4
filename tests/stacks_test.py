import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vlmjax import sharding, stacks


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_cut_gives_the_fewest_segments_with_equal_labels(labels):
    (lengths,) = stacks.cut({f"decoder/layers/{i}/{leaf}": label for i, label in enumerate(labels) for leaf in ("a", "b/c")}).values()
    assert sum(lengths) == len(labels)
    assert len(lengths) == 1 + sum(a != b for a, b in zip(labels, labels[1:]))
    assert all(len({*labels[a:b]}) == 1 for a, b in stacks.segment_bounds(lengths))


def test_expand_and_collect_are_inverse_for_any_cut():
    whole = {"decoder/layers/0-4/w": np.arange(8.0).reshape(4, 2), "decoder/norm": np.ones(2)}
    by_layer = stacks.expand(whole)
    assert sorted(by_layer) == [*(f"decoder/layers/{i}/w" for i in range(4)), "decoder/norm"]
    cut = stacks.collect(by_layer, ["decoder/layers/0-3/w", "decoder/layers/3-4/w", "decoder/norm"])
    np.testing.assert_array_equal(cut["decoder/layers/3-4/w"], whole["decoder/layers/0-4/w"][3:])
    again = stacks.collect(stacks.expand(cut), whole)
    for path, leaf in whole.items():
        np.testing.assert_array_equal(again[path], leaf)


def test_layers_from_a_file_and_from_a_device_are_placed_in_one_stack():
    draw = np.random.default_rng(0)
    layers = {f"decoder/layers/{i}/mlp/up/kernel": draw.normal(size=(8, 6)).astype("f") for i in range(3)} | {"decoder/norm/scale": draw.normal(size=6)}
    like = {"decoder/layers/0-3/mlp/up/kernel": jax.ShapeDtypeStruct((3, 8, 6), "bfloat16"), "decoder/norm/scale": jax.ShapeDtypeStruct((6,), "float32")}
    mesh = sharding.make_mesh(sharding.MeshConfig(replica=2, fsdp=4))
    places = sharding.parameters(like, mesh)
    for on_device in ((), (1,), (0, 1, 2)):
        mixed = {path: jax.device_put(leaf) if any(f"/{i}/" in path for i in on_device) else leaf for path, leaf in layers.items()}
        for where in (None, places):
            placed = stacks.place(mixed, like, where)
            assert list(placed) == list(like) and (where is None or all(placed[path].sharding == where[path] for path in like))
            np.testing.assert_array_equal(placed["decoder/layers/0-3/mlp/up/kernel"], np.stack([layers[f"decoder/layers/{i}/mlp/up/kernel"] for i in range(3)]).astype("bfloat16"))
            np.testing.assert_array_equal(placed["decoder/norm/scale"], layers["decoder/norm/scale"].astype("f"))


def test_what_lies_in_one_piece_in_this_process_is_read_without_a_program_or_a_copy():
    alone, mesh = jax.device_put(np.arange(8.0, dtype="f")), sharding.make_mesh(sharding.MeshConfig(fsdp=8))
    view = stacks.host_view(alone)
    assert isinstance(view, np.ndarray) and view.ctypes.data == alone.unsafe_buffer_pointer()
    spread = jax.device_put(alone, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp")))
    assert stacks.host_view(spread) is spread and stacks.host_view("a view of a file") == "a view of a file"
