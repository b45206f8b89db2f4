import pathlib

import pytest

from vlmjax.plan import hlo

SCAN = (pathlib.Path(__file__).parent / "scan_v5e-4.txt").read_text()  # made by make_hlo.py
LAYER = 1024 * 1024 * 2  # bytes of its weights


def test_a_collective_in_a_loop_counts_as_often_as_the_loop_turns():
    found = hlo.Program(SCAN).collectives()
    assert found == {"all-gather": {"count": 4, "bytes": 4 * LAYER * 3 // 4}, "all-reduce": {"count": 1, "bytes": 2 * 4 * 3 // 4}}


def test_trip_counts_are_read_from_the_condition_or_from_the_compilers_note():
    program = hlo.Program(SCAN)
    loop = next(i for body in program.computations.values() for i in body.values() if i.opcode == "while")
    assert program.trips(loop) == 4 and program.times["wide.region_0.1_spmd.sunk"] == 4
    noted = SCAN.replace("body=%wide.region_0.1_spmd.sunk", 'body=%wide.region_0.1_spmd.sunk, backend_config={"known_trip_count":{"n":"7"}}')
    assert hlo.Program(noted).collectives()["all-gather"]["count"] == 7


def test_a_loop_is_found_by_its_scope_and_one_turn_is_a_program():
    """Four turns have all of the gathers, a quarter of what the loop reads, and none of what stands outside."""
    whole = hlo.Program(SCAN)
    turn, turns = hlo.Program(SCAN.replace("body=%wide.region_0.1_spmd.sunk", 'body=%wide.region_0.1_spmd.sunk, metadata={op_name="jit(generate)/tokens/while"}')).loop("tokens")
    assert turns == 4 and turn.collectives() == {"all-gather": {"count": 1, "bytes": LAYER * 3 // 4}}
    assert 0 < 4 * turn.traffic() < whole.traffic()
    with pytest.raises(ValueError, match="0 loops in a scope 'tokens'"):
        whole.loop("tokens")


def loop(step=1, start=0):
    """A loop up to 8 over the parts of a weight, beside whose turns another array is gathered: begun before it, in a piece at each turn."""
    piece = lambda name: f"""%{name} (q: f32[2], all: f32[8], w: f32[4]) -> (f32[4], f32[8]) {{
  %q = f32[2]{{0}} parameter(0)
  %all = f32[8]{{0}} parameter(1)
  %w = f32[4]{{0}} parameter(2)
  %own = f32[4]{{0}} negate(%w)
  %gather = f32[8]{{0}} all-gather(%q), channel_id=7, replica_groups={{{{0,1,2,3}}}}
  ROOT %both = (f32[4]{{0}}, f32[8]{{0}}) tuple(%own, %all)
}}
"""
    return piece("begin") + piece("turn") + f"""%body (s: (u32[], f32[4], f32[2], f32[8])) -> (u32[], f32[4], f32[2], f32[8]) {{
  %s = (u32[], f32[4]{{0}}, f32[2]{{0}}, f32[8]{{0}}) parameter(0)
  %i = u32[] get-tuple-element(%s), index=0
  %by = u32[] constant({step})
  %next = u32[] add(%i, %by)
  %w = f32[4]{{0}} get-tuple-element(%s), index=1
  %q = f32[2]{{0}} get-tuple-element(%s), index=2
  %all = f32[8]{{0}} get-tuple-element(%s), index=3
  %moved = f32[4]{{0}} collective-permute(%w), channel_id=1, source_target_pairs={{{{0,1}},{{1,0}}}}
  %worked = (f32[4]{{0}}, f32[8]{{0}}) fusion(%q, %all, %moved), kind=kOutput, calls=%turn
  %new = f32[4]{{0}} get-tuple-element(%worked), index=0
  %same = f32[8]{{0}} get-tuple-element(%worked), index=1
  ROOT %t = (u32[], f32[4]{{0}}, f32[2]{{0}}, f32[8]{{0}}) tuple(%next, %new, %q, %same)
}}

%condition (c: (u32[], f32[4], f32[2], f32[8])) -> pred[] {{
  %c = (u32[], f32[4]{{0}}, f32[2]{{0}}, f32[8]{{0}}) parameter(0)
  %limit = u32[] constant(8)
  %at = u32[] get-tuple-element(%c), index=0
  ROOT %less = pred[] compare(%at, %limit), direction=LT
}}

ENTRY %main (w: f32[4], q: f32[2], all: f32[8]) -> f32[4] {{
  %w = f32[4]{{0}} parameter(0)
  %q = f32[2]{{0}} parameter(1)
  %all = f32[8]{{0}} parameter(2)
  %first = u32[] constant({start})
  %begun = (f32[4]{{0}}, f32[8]{{0}}) fusion(%q, %all, %w), kind=kOutput, calls=%begin
  %v = f32[4]{{0}} get-tuple-element(%begun), index=0
  %filled = f32[8]{{0}} get-tuple-element(%begun), index=1
  %init = (u32[], f32[4]{{0}}, f32[2]{{0}}, f32[8]{{0}}) tuple(%first, %v, %q, %filled)
  %while = (u32[], f32[4]{{0}}, f32[2]{{0}}, f32[8]{{0}}) while(%init), condition=%condition, body=%body
  ROOT %out = f32[4]{{0}} get-tuple-element(%while), index=1
}}
"""


@pytest.mark.parametrize("step, start, turns", [(1, 0, 8), (2, 0, 4), (1, 1, 7), (2, 1, 4)])
def test_a_loop_turns_as_often_as_its_counter_says(step, start, turns):
    assert hlo.Program(loop(step, start)).collectives()["collective-permute"] == {"count": turns, "bytes": turns * 16}


def test_a_collective_beside_a_loop_runs_once_and_its_buffers_are_not_read_at_every_turn():
    program = hlo.Program(loop(step=2))
    assert program.collectives()["all-gather"] == {"count": 1, "bytes": 8 * 4 * 3 // 4}
    turn = 2 * 16 + 2 * 16 + 4 + 2 * 4  # the permute, the negation, the counter and its step
    assert program.traffic() == pytest.approx(2 * 16 + 4 * turn, abs=4 * 24)


def test_one_channel_counts_once():
    line = next(line for line in SCAN.splitlines() if " all-reduce(" in line)
    again = SCAN.replace(line, line + "\n" + line.replace("%all-reduce =", "%all-reduce.2 ="))
    assert hlo.Program(again).collectives()["all-reduce"]["count"] == 1
    other = SCAN.replace(line, line + "\n" + line.replace("%all-reduce =", "%all-reduce.2 =").replace("channel_id=2", "channel_id=9"))
    assert hlo.Program(other).collectives()["all-reduce"]["count"] == 2


def test_an_all_reduce_of_which_a_slice_is_returned_is_a_reduce_scatter():
    program = """%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%scatter (x: f32[8]) -> f32[2] {
  %x = f32[8]{0} parameter(0)
  %all = f32[8]{0} all-reduce(%x), channel_id=1, replica_groups={{0,1,2,3}}, to_apply=%add
  %where = u32[] partition-id()
  ROOT %own = f32[2]{0} dynamic-slice(%all, %where), dynamic_slice_sizes={2}
}

ENTRY %main (p: f32[8]) -> f32[2] {
  %p = f32[8]{0} parameter(0)
  ROOT %out = f32[2]{0} fusion(%p), kind=kCustom, calls=%scatter
}
"""
    assert hlo.Program(program).collectives() == {"reduce-scatter": {"count": 1, "bytes": 8 * 4 * 3 // 4}}
    kept = program.replace("ROOT %own", "%own").replace("  %where", "  ROOT %where")
    assert hlo.Program(kept).collectives() == {"all-reduce": {"count": 1, "bytes": 2 * 8 * 4 * 3 // 4}}


def test_what_is_sent_to_other_slices_is_counted_apart():
    """A sum over 3 slices brings each chip 4/3 of what it sends; the loop around it turns 5 times."""
    program = """%body (s: (s32[], f32[6])) -> (s32[], f32[6]) {
  %s = (s32[], f32[6]{0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %x = f32[6]{0} get-tuple-element(%s), index=1
  %token = token[] after-all()
  %recv = (f32[6]{0}, u32[], token[]) recv(%token), channel_id=1, is_host_transfer=true, frontend_attributes={_xla_megascale_transfer_type="ALL_REDUCE"}
  %send = (f32[6]{0}, u32[], token[]) send(%x, %token), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2,3}x{0:15}",_xla_megascale_transfer_type="ALL_REDUCE"}
  %done = (f32[6]{0}, token[]) recv-done(%recv), channel_id=1
  %y = f32[6]{0} get-tuple-element(%done), index=0
  ROOT %t = (s32[], f32[6]{0}) tuple(%i, %y)
}

ENTRY %main (p: (s32[], f32[6])) -> (s32[], f32[6]) {
  %p = (s32[], f32[6]{0}) parameter(0)
  ROOT %w = (s32[], f32[6]{0}) while(%p), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}
}
"""
    found = hlo.Program(program)
    assert found.between_slices(3) == {"all-reduce": {"count": 5, "bytes": 5 * 24 * 4 // 3}} and found.collectives() == {}
    assert hlo.Program(program.replace("ALL_REDUCE", "ALL_GATHER")).between_slices(3)["all-gather"]["bytes"] == 5 * 24 * 2
    assert hlo.Program(SCAN).between_slices(1) == {}


def test_traffic_is_that_of_hbm_and_of_slices():
    """Reads: the rows, a quarter of each layer; writes: the result. The rest stays in fast memory."""
    rows = 128 * 1024 * 2
    assert hlo.Program(SCAN).traffic() == pytest.approx(rows + LAYER // 4 * 4 + rows, rel=1e-3)


def test_a_slice_that_a_fusion_inside_a_fusion_cuts_is_all_that_is_read():
    """As a product reads one layer of stacked weights: 3 x 4 of 3 x 32 bytes; a second user of the whole stack reads all of it."""
    program = """%cut (p0: f32[32,3], p1: s32[]) -> f32[4,3] {
  %p0 = f32[32,3]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %own = f32[4,3]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={4,3}
}

%product (q0: f32[2,4], q1: f32[32,3], q2: s32[]) -> f32[2,3] {
  %q0 = f32[2,4]{1,0} parameter(0)
  %q1 = f32[32,3]{1,0} parameter(1)
  %q2 = s32[] parameter(2)
  %layer = f32[4,3]{1,0} fusion(%q1, %q2), kind=kLoop, calls=%cut
  ROOT %out = f32[2,3]{1,0} convolution(%q0, %layer), dim_labels=bf_io->bf
}

ENTRY %main (x: f32[2,4], stack: f32[32,3], i: s32[]) -> f32[2,3] {
  %x = f32[2,4]{1,0} parameter(0)
  %stack = f32[32,3]{1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %y = f32[2,3]{1,0} fusion(%x, %stack, %i), kind=kOutput, calls=%product
}
"""
    small = 2 * 4 * 4 + 4 + 2 * 3 * 4  # the rows, the number of the layer, the result
    assert hlo.Program(program).traffic() == small + 4 * 3 * 4
    also = program.replace("  ROOT %out = f32[2,3]{1,0} convolution", "  %all = f32[32,3]{1,0} negate(%q1)\n  ROOT %out = f32[2,3]{1,0} convolution")
    assert hlo.Program(also).traffic() == small + 32 * 3 * 4


@pytest.mark.parametrize("text, size", [("replica_groups={{0,1,2,3},{4,5,6,7}}", 4), ("replica_groups=[2,16]<=[32]", 16), ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", 4),
                                        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}", 8), ("replica_groups=mesh['axis_0'=8] {'axis_0':(2)4}", 4), ("channel_id=3", None)])
def test_groups_in_every_spelling(text, size):
    assert hlo.group_size(text) == size


@pytest.mark.parametrize("type_, sizes", [("bf16[2,8]{1,0:T(8,128)(2,1)}", [32]), ("(f32[], /*index=1*/u32[4]{0:T(128)}, pred[3])", [4, 16, 3]), ("s4[8]", [4]), ("f8e4m3fn[10]", [10])])
def test_bytes_of_types(type_, sizes):
    assert hlo.arrays(type_) == sizes


def test_what_lies_in_fast_memory_is_not_in_hbm():
    assert hlo.arrays("(bf16[8]{0:T(8,128)(2,1)S(1)}, bf16[8]{0})", "hbm") == [0, 16]


def test_what_a_ring_brings_to_each_device():
    program = lambda op, type_: hlo.Program(f"ENTRY %main (p: f32[8]) -> f32[8] {{\n  %p = f32[8]{{0}} parameter(0)\n  ROOT %x = {type_} {op}(%p), channel_id=1, replica_groups=[1,4]<=[4]\n}}\n").collectives()
    assert program("reduce-scatter", "f32[2]{0}")["reduce-scatter"]["bytes"] == 2 * 4 * 3
    assert program("all-gather-start", "(f32[8]{0}, f32[32]{0})")["all-gather"]["bytes"] == 32 * 4 * 3 // 4
    assert program("all-reduce-start", "f32[8]{0}")["all-reduce"]["bytes"] == 2 * 32 * 3 // 4
    assert program("collective-permute-start", "(f32[8]{0}, f32[8]{0}, u32[], u32[])")["collective-permute"]["bytes"] == 32


def test_cycles_are_those_of_instructions_as_often_as_they_run():
    """Not of those inside a fusion, which has its own; a kernel without an estimate is counted."""
    noted = lambda line, cycles: line + f', backend_config={{"estimated_cycles":"{cycles}"}}'
    text = loop()
    inside, fused = (next(line for line in text.splitlines() if name in line) for name in ("%own = ", "%worked = "))
    kernel = '  %kernel = f32[4]{0} custom-call(%w), custom_call_target="tpu_custom_call"'
    program = hlo.Program(text.replace(inside, noted(inside, 5)).replace(fused, noted(fused, 1000) + "\n" + kernel))
    assert program.cycles() == (8 * 1000, 8) and hlo.Program(text).cycles() == (0, 0)
