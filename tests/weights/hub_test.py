import huggingface_hub.constants as constants
import pytest

from vlmjax.errors import UserError
from vlmjax.weights import hub


def test_a_path_stays_a_path(tmp_path):
    assert hub.locate(tmp_path) == tmp_path


@pytest.mark.parametrize("name, message", [
    ("hf://openai", "is not hf://org/name"),
    ("hf://openai/clip/b32", "is not hf://org/name"),
    ("hf://openai/clip-vit-base-patch32", "the hub cannot be reached and no copy is kept here"),
])
def test_what_cannot_be_fetched_says_why(monkeypatch, tmp_path, name, message):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=message) as error:
        hub.locate(name)
    assert "\n" not in str(error.value)
