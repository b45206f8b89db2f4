"""Which of many predictions are looked at one by one: drawn by lot, the same ones in every run."""
import hashlib


def draw_lot(row: dict) -> bytes:
    """A place in a shuffle that is the same in every run."""
    return hashlib.sha256(str(row.get("id")).encode()).digest()


def right(row: dict) -> bool:
    """Whether an answer is shown among the right ones: half of a full score or more."""
    return (row.get("correct") or 0) >= 0.5


def choose(rows: list[dict], n: int) -> list[dict]:
    """`n` rows, drawn by lot and dealt evenly over the kinds; an image comes twice only when there is no other."""
    by_kind: dict[str, list[dict]] = {}
    for row in sorted(rows, key=draw_lot):
        by_kind.setdefault(str(row.get("kind")), []).append(row)
    dealt: list[dict] = []
    seen: set = set()
    for again in (False, True):
        queues = [iter([row for row in by_kind[kind] if row not in dealt]) for kind in sorted(by_kind)]
        while queues and len(dealt) < n:
            for queue in list(queues):
                row = next((row for row in queue if again or row.get("image") not in seen), None)
                if row is None:
                    queues.remove(queue)
                elif len(dealt) < n:
                    seen.add(row.get("image"))
                    dealt.append(row)
    return dealt
