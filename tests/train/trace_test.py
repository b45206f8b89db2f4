import jax
import pytest

from tests.train import tiny
from vlmjax import config as configs
from vlmjax.train import metrics, trace


@pytest.fixture(scope="module")
def align():
    stage = tiny.stage(steps=6)
    return stage, stage.compile()


def files(workdir):
    return {str(path.relative_to(workdir / "trace")): path.stat().st_size for path in workdir.glob("trace/**/*") if path.is_file()}


@pytest.mark.parametrize("start, name", [(1, "steps_1_2"), (10, "steps_4_5")])
def test_the_steps_asked_for_are_traced_or_the_last_ones(tmp_path, capsys, align, start, name):
    stage, compiled = align
    tiny.run(stage, tmp_path, compiled=compiled, trace_steps=2, trace_start=start)
    found = files(tmp_path)
    assert found[f"align/plugins/profile/{name}/process0.xplane.pb"] > 1000 and {path.split("/")[3] for path in found} == {name}
    assert f"trace of {name.replace('_', ' ', 1).replace('_', ' to ')}: xprof --logdir={tmp_path}/trace/align" in capsys.readouterr().out


def test_nothing_is_traced_unasked_or_by_another_process(tmp_path, align, monkeypatch):
    stage, compiled = align
    tiny.run(stage, tmp_path, compiled=compiled)
    assert not files(tmp_path)
    monkeypatch.setattr(jax.profiler, "start_trace", pytest.fail)
    with trace.Trace(tmp_path, metrics.LoggingConfig(trace_steps=2, trace_start=0, trace_process=1), 0, 6) as other:
        other.before(0, jax.numpy.zeros(()))


def test_a_trace_that_an_error_cuts_short_is_thrown_away_and_the_next_begins(tmp_path, align):
    stage, compiled = align

    def die(step, batch):
        if step == 3:
            raise KeyError

    with pytest.raises(KeyError):
        tiny.run(stage, tmp_path, data=tiny.FakeData(stage, die), compiled=compiled, trace_steps=4, trace_start=1)
    assert not files(tmp_path)
    tiny.run(stage, tmp_path, compiled=compiled, trace_steps=1, trace_start=0)
    assert any(path.startswith("align/plugins/profile/steps_0_0/") for path in files(tmp_path))


def test_tracing_is_asked_for_on_the_command_line_and_makes_no_other_run():
    plain, traced = (configs.read("experiments/demo.py:tiny", overrides)[0] for overrides in ((), ("--config.logging.trace_steps=5", "--config.logging.trace_start=3")))
    assert traced.logging.trace_steps == 5 and configs.fingerprint(plain) == configs.fingerprint(traced)
