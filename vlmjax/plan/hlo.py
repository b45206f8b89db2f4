"""What a compiled program says of itself, read from its text: collectives and traffic to memory, each loop's body as often as it runs."""
import dataclasses
import functools
import math
import re
from collections.abc import Iterable

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all", "collective-broadcast")
_BITS = {"pred": 8, "s4": 4, "u4": 4, "token": 0, "opaque": 0}
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{\s*$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b(pred|token|opaque|bf16|[a-z]\d+\w*)\[([\d,]*)\](\{[^{}]*\})?")
_CALLS = re.compile(r"(?:calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)|(?:branch_computations|called_computations)=\{([^}]*)\}")
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all", "partition-id", "replica-id", "iota",
         "opt-barrier", "add-dependency"}


@dataclasses.dataclass(frozen=True)
class Instruction:
    """type: of its result, as written; operands: names; attributes: all behind them."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    attributes: str
    root: bool = False

    @functools.cached_property
    def calls(self) -> tuple[str, ...]:
        return tuple(name.strip().lstrip("%") for one, several in _CALLS.findall(self.attributes) for name in (several.split(",") if several else [one]))


def arrays(type_: str, memory: str = "") -> list[int]:
    """Bytes of each array of a type. memory `hbm`: those that lie in the chip's fast memory, S(1) and above, count nothing."""
    out = []
    for dtype, dims, layout in _ARRAY.findall(type_):
        bits = _BITS[dtype] if dtype in _BITS else int(re.search(r"\d+", dtype)[0])
        elements = math.prod(int(d) for d in dims.split(",") if d)
        out.append(0 if memory == "hbm" and re.search(r"S\([1-9]", layout) else elements * bits // 8)
    return out


def _balanced(text: str) -> int:
    """Where the bracket that `text` begins with is closed."""
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return i
    return len(text) - 1


def _instruction(line: str) -> Instruction | None:
    m = _INSTRUCTION.match(line)
    if not m:
        return None
    rest = m[2]
    cut = _balanced(rest) + 1 if rest.startswith("(") else rest.find(" ")
    type_, rest = rest[:cut], rest[cut:].strip()
    opcode, bracket, inside = rest.partition("(")
    if not bracket:
        return None
    close = _balanced("(" + inside)
    operands = tuple(re.findall(r"%([\w.\-]+)", inside[:close]))
    return Instruction(m[1], type_, opcode, operands or (inside[: close - 1],), inside[close:], line.lstrip().startswith("ROOT"))


def _number(i: Instruction) -> int | None:
    """The value of an integer constant without axes."""
    return int(i.operands[0]) if i.opcode == "constant" and re.match(r"[su]\d+\[\]", i.type) and i.operands[0].isdigit() else None


class Program:
    """The text of a compiled module (`compiled.as_text()`)."""

    def __init__(self, text: str):
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry, current = "", None
        for line in text.splitlines():
            if not line.startswith(" ") and (m := _HEADER.match(line)) and not line.startswith("HloModule"):
                current = self.computations.setdefault(m[2], {})
                self.entry = m[2] if m[1] else self.entry
            elif current is not None and (found := _instruction(line)):
                current[found.name] = found

    def trips(self, loop: Instruction) -> int:
        """How often a `while` turns: as the compiler notes it, or from the condition's limit, what the body adds to the counter, and where that begins; a loop over the
        parts of a product may take two at a turn. 1 where the text does not say."""
        if m := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
            return int(m[1])
        condition, body = ((m := re.search(rf"{what}=%?([\w.\-]+)", loop.attributes)) and m[1] for what in ("condition", "body"))
        numbers = [n for i in self._deep(condition) if (n := _number(i)) is not None] if condition else []
        limit, start, step = max(numbers, default=1), 0, 1
        held = self.computations.get(condition, {})
        counters = [int(m[1]) for i in held.values() if i.opcode == "get-tuple-element" and re.match(r"[su]\d+\[\]", i.type) and (m := re.search(r"index=(\d+)", i.attributes))]
        if len(counters) == 1:
            start = self._start(loop, counters[0])
            step = self._step(self.computations.get(body, {}), counters[0])
        return max(-(-(limit - start) // step), 1)

    def loop(self, scope: str) -> tuple["Program", int]:
        """(one turn, how many turns are counted) of the `while` that the source has in the `jax.named_scope` of this name."""
        found = [i for body in self.computations.values() for i in body.values() if i.opcode == "while" and re.search(rf'op_name="[^"]*\b{scope}/while"', i.attributes)]
        if len(found) != 1:
            raise ValueError(f"{len(found)} loops in a scope {scope!r}")
        turn = Program("")
        turn.computations, turn.entry = self.computations, re.search(r"body=%?([\w.\-]+)", found[0].attributes)[1]
        return turn, self.trips(found[0])

    def _step(self, body: dict[str, Instruction], counter: int) -> int:
        root = next((i for i in body.values() if i.root and i.opcode == "tuple"), None)
        new = body.get(root.operands[counter]) if root and counter < len(root.operands) else None
        added = [n for name in new.operands if name in body and (n := _number(body[name])) is not None] if new and new.opcode == "add" else []
        return max(added, default=1)

    def _start(self, loop: Instruction, counter: int) -> int:
        for body in self.computations.values():
            if body.get(loop.name) is loop:
                given = body.get(loop.operands[0])
                first = body.get(given.operands[counter]) if given and given.opcode == "tuple" and counter < len(given.operands) else None
                return (first and _number(first)) or 0
        return 0

    def _deep(self, computation: str) -> Iterable[Instruction]:
        for instruction in self.computations.get(computation, {}).values():
            yield instruction
            for inner in instruction.calls:
                yield from self._deep(inner)

    @functools.cached_property
    def times(self) -> dict[str, int]:
        """{computation: how often it runs in one call of the program}."""
        out: dict[str, int] = {}

        def visit(name, times):
            out[name] = out.get(name, 0) + times
            for instruction in self.computations.get(name, {}).values():
                body = re.search(r"body=%?([\w.\-]+)", instruction.attributes) if instruction.opcode == "while" else None
                for inner in instruction.calls:
                    visit(inner, times * self.trips(instruction) if body and inner == body[1] else times)

        visit(self.entry, 1)
        return out

    def collectives(self) -> dict[str, dict[str, int]]:
        """{kind: {"count", "bytes"}} of one call: how many run, and the bytes that each device receives by them if they go around in a ring.
        One that the text spells several times (start, done, in pieces between the turns of a loop that it runs beside) has one channel and runs as often as
        the rarest of them. An all-reduce of whose result its computation returns
        a slice is a reduce-scatter."""
        seen: dict[object, tuple[str, int, int]] = {}
        for name, times in self.times.items():
            body = self.computations.get(name, {})
            root = next((i for i in body.values() if i.root), None)
            for i in body.values():
                kind = i.opcode.removesuffix("-start")
                if kind in KINDS:
                    size = received(kind, i)
                    if kind == "all-reduce" and root and root.opcode == "dynamic-slice" and root.operands[0] == i.name:
                        kind, size = "reduce-scatter", size // 2
                    channel = re.search(r"channel_id=(\d+)", i.attributes)
                    key = (kind, channel[1]) if channel else (name, i.name)
                    if key not in seen or seen[key][1] > times:
                        seen[key] = kind, times, size
        out: dict[str, dict[str, int]] = {}
        for kind, times, size in seen.values():
            entry = out.setdefault(kind, {"count": 0, "bytes": 0})
            entry["count"] += times
            entry["bytes"] += times * size
        return out

    def between_slices(self, slices: int) -> dict[str, dict[str, int]]:
        """{kind: {"count", "bytes"}} of what goes over the network between so many slices: what a chip sends to its host, which sums it up with those of its partners on
        the other slices and gives it back. Of a sum a ring brings each 2·(n − 1)/n times its bytes; of anything else what one sends is counted once for each other slice."""
        out: dict[str, dict[str, int]] = {}
        for name, times in self.times.items():
            for i in self.computations.get(name, {}).values():
                kind = re.search(r'_xla_megascale_transfer_type="(\w+)"', i.attributes) if i.opcode == "send" else None
                if kind:
                    sent, kind = arrays(i.type)[0], kind[1].lower().replace("_", "-")
                    entry = out.setdefault(kind, {"count": 0, "bytes": 0})
                    entry["count"] += times
                    entry["bytes"] += times * (2 * sent * (slices - 1) // slices if kind == "all-reduce" else sent * (slices - 1))
        return out

    def traffic(self) -> int:
        """Bytes that one device reads from and writes to HBM in one call, an estimate: what each instruction outside of fusions reads and
        writes, of a stack that a fusion only slices the slice. What stays in fast memory or only passes through a fusion counts nothing."""
        return sum(times * (self._written(i, body) + self._read(i, body)) for times, i, body in self._outside() if i.opcode not in _FREE and not i.opcode.endswith("-done"))

    def cycles(self) -> tuple[int, int]:
        """(cycles of one call as the compiler estimates them, how many kernels run that it has no estimate for). Instructions run one after the other; what is copied or
        exchanged beside them has no cycles, nor has waiting for it."""
        counted = kernels = 0
        for times, i, _ in self._outside():
            found = re.search(r'"estimated_cycles":"(\d+)"', i.attributes)
            counted += times * int(found[1]) if found else 0
            kernels += times * (not found and 'custom_call_target="tpu_custom_call"' in i.attributes)
        return counted, kernels

    def _outside(self) -> Iterable[tuple[int, Instruction, dict[str, Instruction]]]:
        """(how often it runs, the instruction, the computation it stands in) for what is inside no other instruction but loops, branches and calls."""
        inside = {inner for body in self.computations.values() for i in body.values() if i.opcode not in ("while", "conditional", "call") for inner in i.calls}
        for name, times in self.times.items():
            if name not in inside:
                body = self.computations.get(name, {})
                yield from ((times, i, body) for i in body.values())

    def _fused(self, i: Instruction) -> dict[str, Instruction]:
        return self.computations.get(i.calls[0], {}) if i.opcode == "fusion" and i.calls else {}

    def _written(self, i: Instruction, body: dict[str, Instruction]) -> int:
        if i.opcode == "send":  # what it says it makes is what it reads
            return 0
        if i.opcode.endswith("-start"):  # copy: (to, from, …); all others: (from, to, …)
            return arrays(i.type, "hbm")[0 if i.opcode == "copy-start" or i.opcode == "all-reduce-start" else 1]
        fused, sizes = self._fused(i), arrays(i.type, "hbm")
        root = next((inner for inner in fused.values() if inner.root), i)
        if root.opcode == "dynamic-update-slice":
            where = fused or body
            return sum(arrays(where[root.operands[1]].type, "hbm")) if root.operands[1] in where else 0
        if fused and root.opcode == "tuple" and len(sizes) == len(root.operands):
            return sum(size for size, name in zip(sizes, root.operands) if name not in fused or not _passes(fused[name]))
        return sum(sizes)

    def _read(self, i: Instruction, body: dict[str, Instruction]) -> int:
        fused, total = self._fused(i), 0
        if i.opcode == "dynamic-slice":
            return sum(arrays(i.type))
        if i.opcode == "slice-start":
            return arrays(i.type)[1]
        numbers = {inner.name: int(inner.operands[0]) for inner in fused.values() if inner.opcode == "parameter"}
        for position, operand in enumerate(i.operands):
            if operand not in body or i.opcode == "dynamic-update-slice" and position == 0:
                continue
            whole = sum(arrays(body[operand].type, "hbm"))
            own = next((name for name, number in numbers.items() if number == position), None)
            total += self._used(fused, own, whole) if own else whole
        return total

    def _used(self, fused: dict[str, Instruction], name: str, whole: int) -> int:
        """Of the `whole` bytes of what a fusion calls `name`, those that it reads: of what is only cut the slices, also where a fusion inside it cuts, and nothing of
        what only passes through or is written into."""
        total = 0
        for user in (i for i in fused.values() if name in i.operands):
            if user.opcode in ("dynamic-slice", "gather"):
                total += sum(arrays(user.type))
            elif user.opcode == "bitcast":
                total += self._used(fused, user.name, whole)
            elif user.opcode == "fusion":
                inner = self._fused(user)
                total += sum(self._used(inner, i.name, whole) for i in inner.values() if i.opcode == "parameter" and user.operands[int(i.operands[0])] == name)
            elif not (_passes(user) or user.root and user.opcode == "tuple" or user.opcode == "dynamic-update-slice" and user.operands[0] == name):
                return whole
        return min(whole, total)


def _passes(i: Instruction) -> bool:
    """Of what a fusion holds: an array that goes through it untouched, such as the buffers of a collective that runs beside its work."""
    return i.opcode == "parameter" or i.opcode.removesuffix("-start") in KINDS


def received(kind: str, i: Instruction) -> int:
    """Bytes that each device receives by one collective, in a ring of its group."""
    sizes = arrays(i.type)
    if i.opcode.endswith("-start") and kind != "all-reduce":  # (what goes in, what comes out, …)
        sizes = [sizes[1] if kind == "collective-permute" and len(sizes) > 1 else max(sizes)]
    size, group = sum(sizes), group_size(i.attributes)
    if kind == "collective-permute" or group is None:
        return size
    if kind == "all-reduce":
        return 2 * size * (group - 1) // group
    return size * (group - 1) if kind == "reduce-scatter" else size * (group - 1) // group


def group_size(attributes: str) -> int | None:
    if m := re.search(r"replica_groups=\[([\d,]+)\]", attributes):
        return int(m[1].split(",")[-1])
    if m := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return len(m[1].split(","))
    if m := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):  # the axes that a group spans, or a part 'axis':(before)size of one
        sizes = {axis: int(size) for axis, size in re.findall(r"'([^']+)'=(\d+)", m[1])}
        return math.prod(int(part) if part else sizes[axis] for axis, part in re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", m[2]))
    return None
