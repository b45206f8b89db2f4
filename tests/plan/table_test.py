from vlmjax.plan import table


def plan(topology, chips, batch, tensor=1, fits=True, moved=(("all-gather", 3 * 2**30),)):
    cost = {"fits": fits, "batch": batch, "mesh": {"replica": 1, "fsdp": chips // tensor, "tensor": tensor}, "collectives": {kind: {"count": 1, "bytes": size} for kind, size in moved}}
    return {"topology": topology, "chips": chips, "stages": {"instruct": {"cost": cost}}}


def test_weak_scaling_compares_one_row_per_chip_with_the_smallest_slice():
    """Neither other batches, nor what does not fit; what has a tensor axis is compared with its like."""
    made = [plan("v5e-64", 64, 64, moved=(("all-gather", 3 * 2**30), ("all-reduce", 2**30))), plan("v5e-16", 16, 16), plan("v5e-16", 16, 64), plan("v5e-256", 256, 64, tensor=4),
            plan("v5e-128", 128, 128, fits=False), plan("v4-64", 32, 32)]
    lines = table.weak_scaling(made)
    assert lines[0].startswith("| stage | slice | rows | all-gather GiB | all-reduce GiB |")
    assert lines[2:] == ["| instruct on v5e | v5e-16 | 16 | 3.00 | 0.00 | 3.00 | 1.00 |", "| instruct on v5e | v5e-64 | 64 | 3.00 | 1.00 | 4.00 | 1.33 |"]
    assert table.weak_scaling(made[1:3]) == []
    split = table.weak_scaling(made + [plan("v5e-16", 16, 16, tensor=4, moved=(("all-gather", 2**30),)), plan("v5e-64", 64, 64, tensor=4, moved=(("all-gather", 2**30),)), plan("v5e-64", 64, 64, tensor=2)])
    assert split[2:4] == lines[2:] and split[4:] == ["| instruct on v5e, tensor 4 | v5e-16 | 16 | 1.00 | 0.00 | 1.00 | 1.00 |", "| instruct on v5e, tensor 4 | v5e-64 | 64 | 1.00 | 0.00 | 1.00 | 1.00 |"]
