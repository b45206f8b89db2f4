"""Which images a report finds."""
from tests.evaluate.tasks import pope_test
from vlmjax import files
from vlmjax.commands.report import image_reader


def test_images_are_those_of_the_split_that_was_scored_and_one_that_is_missing_is_none(tmp_path):
    pope_test.files(tmp_path)
    files.write_json(tmp_path / "results.json", {"pope": {"provenance": {"split": "coco"}}, "gqa": {"provenance": {"split": "testdev"}}})
    read = image_reader(str(tmp_path), tmp_path)
    key = "COCO_val2014_000000000000.jpg"
    assert read("pope", key) == (tmp_path / "pope/val2014" / key).read_bytes()
    assert read("pope", "no.jpg") is None and read("gqa", key) is None and read("nothing", key) is None
