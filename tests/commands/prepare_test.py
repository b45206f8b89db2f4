"""What a config may say, before anything is made of it."""
import pytest

from tests.train import tiny
from vlmjax import config as configs
from vlmjax.commands.prepare import RunConfig
from vlmjax.errors import UserError


@pytest.mark.parametrize("override, message", [
    ("prefetch=-1", "prefetch: -1 is less than 0"), ("workers=-1", "workers: -1 is less than 1"), ("workers=0", "workers: 0 is less than 1"),
    ("checkpoint.keep=0", "checkpoint.keep: 0 is less than 1"), ("checkpoint.grace=0", "checkpoint.grace: 0.0 is not a number of seconds above 0")])
def test_numbers_without_a_meaning_are_refused_with_their_key(override, message):
    node, _ = configs.read("experiments/demo.py", [f"--config.{override}"], RunConfig)
    with pytest.raises(UserError) as error:
        configs.build(RunConfig, node)
    assert str(error.value) == message


@pytest.mark.parametrize("key, value", [("checkpoint.grace", 30.0), ("checkpoint.keep_every", 100), ("evaluate.rows", 8), ("stages.align.attention", "auto"),
                                        ("stages.align.max_unsharded", 0.5)])
def test_a_documented_key_can_be_overridden_in_a_config_that_does_not_write_it(key, value):
    node, _ = configs.read("experiments/demo.py", [f"--config.{key}={value}"], RunConfig)
    config = configs.build(RunConfig, node)
    for name in key.split("."):
        config = config[name] if isinstance(config, dict) else getattr(config, name)
    assert config == value


@pytest.mark.parametrize("more, message", [
    (dict(tiles=6), "images that are cut are resized without padding or cropping, and resize is 'crop'; set it to 'squash'"),
    (dict(tiles=6, resize="squash", objective="contrastive"), "a contrastive stage compares whole images; set it to 1"), (dict(tiles=0), "0 is less than 1")])
def test_tiles_without_a_meaning_are_refused(more, message):
    with pytest.raises(UserError) as error:
        tiny.config(**more).check("stages.align", tiny.one_device())
    assert str(error.value) == f"stages.align.tiles: {message}"
