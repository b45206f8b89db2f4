from vlmjax.evaluate import lot


def test_it_deals_over_kinds_and_images():
    rows = [{"id": f"{i}", "image": str(i // 4), "kind": ("shape", "color")[i % 10 == 0]} for i in range(200)]
    chosen = lot.choose(rows, 12)
    assert [sum(row["kind"] == kind for row in chosen) for kind in ("shape", "color")] == [6, 6]
    assert len({row["image"] for row in chosen}) == 12 and chosen == lot.choose(rows[::-1], 12)
    assert len(lot.choose(rows[:3], 12)) == 3
    assert lot.choose(rows, 5) == chosen[:5]  # so what is drawn for fewer is among what is drawn for more
