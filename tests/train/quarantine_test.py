"""What is broken counts nowhere: not in the losses of other examples, not twice in the record."""
import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.tiny import TOKENIZER, TinySource, png, qa, texts
from tests.train import tiny
from vlmjax.data.batch import BatchShape
from vlmjax.data.conversation import TEMPLATES
from vlmjax.data.pipeline import Fault, Pipeline
from vlmjax.data.processor import Processor
from vlmjax.errors import UserError
from vlmjax.layout import ImageLayout
from vlmjax.train import loop, step
from vlmjax.train.quarantine import Quarantine

INSTRUCT = (("encoder/.*", False), (".*", True))


def batches(broken):
    """The batch of two rows, three images each, in which i1 is whole or broken."""
    images = {f"i{n}": png(np.random.default_rng(n).integers(0, 256, (16, 16, 3), np.uint8)) for n in range(6)}
    asked = [qa(f"q{n}", (f"i{n}",), "is it red?", "yes") for n in range(6)]
    source = TinySource("questions", asked, {**images, "i1": b""} if broken else images)
    shape = BatchShape(rows=2, length=48, images=3, targets=16, size=16)
    made = Pipeline([(source, 1.0), (texts(), 1.0)], Processor(TOKENIZER, TEMPLATES["plain_qa"], ImageLayout(16, 8)), "next_token", shape, 0, 1)
    return made.batch(0), made.faults(0), shape


def test_nothing_of_an_image_without_its_mask_matters():
    (whole, _, shape), (got, faults, _) = batches(False), batches(True)
    assert [fault.example for fault in faults] == ["q1"]
    made = tiny.stage(trainable=INSTRUCT, batch=shape.rows)
    train = loop.start_state(made, tiny.truth(made))
    params = {**train.frozen, **train.learned.trainable, "encoder": train.frozen["encoder"]}
    logits = jax.jit(made.model.logits)
    kept = got["weights"] > 0
    assert 0 < kept.sum() < (whole["weights"] > 0).sum()
    np.testing.assert_array_equal(np.asarray(logits(params, whole))[kept], np.asarray(logits(params, got))[kept])
    gradients = jax.jit(step.gradients(made.loss, 1))
    other = {**got, "pixels": np.where(got["image_mask"][..., None, None, None], got["pixels"], 255 - whole["pixels"])}
    for a, b in zip(*(tiny.leaves(gradients(train.learned.trainable, train.frozen, batch)) for batch in (got, other)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_step_without_any_weight_changes_nothing_but_its_number():
    made = tiny.stage()
    train, data, compiled = loop.start_state(made, tiny.truth(made)), tiny.FakeData(made), made.compile()
    train, _ = loop.advance(compiled, train, data.batch(0))
    before = tiny.leaves(train.learned)
    after, values = loop.advance(compiled, train, {**data.batch(1), "weights": np.zeros_like(data.batch(1)["weights"])})
    assert int(after.learned.step) == 2 and int(after.learned.skipped) == 0 and float(values["loss"]) == 0 and float(values["finite"]) == 1
    changed = [(a, b) for a, b in zip(before, tiny.leaves(after.learned), strict=True) if (a != b).any()]
    assert changed == [(1, 2)]


FAULTS = st.lists(st.tuples(st.integers(0, 9), st.builds(Fault, st.sampled_from("abcdefgh"), st.sampled_from(["empty file", "truncated (JPEG)"]), st.integers(0, 3))), max_size=30)


@given(FAULTS, st.sets(st.integers(1, 9)), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_what_is_counted_depends_on_no_cadence_and_no_kill(tmp_path_factory, found, settled, killed):
    found, folder = sorted(found, key=lambda fault: fault[0]), tmp_path_factory.mktemp("run")
    whole, cut = Quarantine(folder / "whole", "align"), Quarantine(folder / "cut", "align")
    for number in range(10):
        whole.add(number, [fault for at, fault in found if at == number])
    whole.settle()
    saved = cut.get_state()
    number, left = 0, True
    while number < 10:
        cut.add(number, [fault for at, fault in found if at == number])
        if number == killed and left:  # and begun again from the newest checkpoint
            cut, left = Quarantine(folder / "cut", "align"), False
            cut.set_state(json.loads(json.dumps(saved["state"])) if "state" in saved else saved)
            number = saved.get("number", 0)
            continue
        number += 1
        if number in settled:
            cut.settle()
            saved = {"number": number, "state": cut.get_state()}
    cut.settle()
    cut.write()
    assert cut.get_state() == whole.get_state() and cut.record() == whole.record()
    assert cut.record()["quarantined"] == len({fault.example for _, fault in found})
    assert cut.record()["quarantined_appearances"] == len(found) and cut.supervised == sum(fault.supervised for _, fault in found)
    if found:
        assert (folder / "cut" / "quarantine" / "align.json").read_text() == (folder / "whole" / "quarantine" / "align.json").read_text()
    else:
        assert not (folder / "whole" / "quarantine").exists()


def test_the_first_few_are_told_and_then_how_many(tmp_path, capsys):
    quarantine = Quarantine(tmp_path, "align")
    for number in range(40):
        quarantine.add(number, [Fault(f"e{number}", "empty file", 1), Fault("e0", "empty file", 1)])
        quarantine.settle()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [f"align: broken: example e{n}: empty file; it keeps its place with weight 0" for n in range(5)]
    assert [line.split()[1] for line in lines[5:]] == ["6", "13", "27"] and all(str(quarantine.path) in line for line in lines[5:])


def test_a_share_is_tolerated_and_no_more(tmp_path):
    quarantine = Quarantine(tmp_path, "align")
    quarantine.add(0, [Fault(f"e{n}", "empty file", 1) for n in range(5)] * 3)
    quarantine.settle()
    quarantine.check(0.005, 1000)
    with pytest.raises(UserError, match=r"^stage align: 5 of 999 examples are broken, max_broken is 0.005: example e0: empty file; .*; and 2 more "
                                        r"\(all in .*quarantine/align.json\); mend the files .*, or raise stages.align.max_broken and run again to go on$"):
        quarantine.check(0.005, 999)
