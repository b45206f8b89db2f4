import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmjax.evaluate.texts import coco_words


def test_the_table_has_the_categories_of_coco():
    assert len(coco_words.NAMES) == 80 and {"person", "wine glass", "hair drier"} <= set(coco_words.NAMES) and len(coco_words.OBJECTS) == 400
    assert all(word == word.strip().lower() for word in coco_words.OBJECTS)


@pytest.mark.parametrize("text, objects", [
    ("", []), ("Two dogs' bowls.", ["dog", "bowl"]), ("A man’s tie; women", ["person", "tie", "person"]), ("a hot dog, hot dogs, a hot-dog", ["hot dog", "hot dog"]), ("a dog/cat", []),
    ("A bus. Buses!", ["bus"]), ("glass of wine, a wine glass", ["wine glass"]), ("baby elephants and a baby", ["elephant", "person"]), ("toilet seat", ["toilet"]), ("the seat of a toilet", ["toilet"]),
    ("a seat", ["chair"]), ("passenger train", ["train"]), ("children, knives, calves, mice, geese", ["person", "knife", "cow", "mouse", "bird"]), ("ties and canoes", []), ("tennis rackets", ["tennis racket"]),
    ("motor bike", []), ("\"sofa.\" It's", ["couch"]), ("'dog'", ["dog"]), ("TVs", ["tv"])])
def test_what_a_text_mentions(text, objects):
    assert coco_words.mentions(text) == objects


@given(st.lists(st.sampled_from([name for name in coco_words.NAMES if name != "bus"]), max_size=6))
def test_a_list_of_names_mentions_them(names):
    assert coco_words.mentions(", ".join(names)) == names
