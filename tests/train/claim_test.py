import json
import pathlib
import subprocess

import pytest

from vlmjax.errors import UserError
from vlmjax.train.claim import FILE, claim


@pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="this system has no /proc")
def test_a_second_run_on_this_machine_is_refused_while_the_first_computes(tmp_path):
    """One that has ended, by whatever signal, keeps nobody out, nor does a process that was given its number."""
    claim(tmp_path)
    claim(tmp_path)  # this process again
    first = subprocess.Popen(["sleep", "60"])
    try:
        mine = json.loads((tmp_path / FILE).read_text())
        began = pathlib.Path(f"/proc/{first.pid}/stat").read_text().rpartition(")")[2].split()[19]
        (tmp_path / FILE).write_text(json.dumps({**mine, "pid": first.pid, "began": began}))
        with pytest.raises(UserError, match=rf"process {first.pid} of this machine computes there; wait for it, stop it, or give another --workdir"):
            claim(tmp_path)
        for other in ({"pid": first.pid, "began": "1"}, {"pid": first.pid, "began": began, "host": "another"}):
            (tmp_path / FILE).write_text(json.dumps({**mine, **other}))
            claim(tmp_path)
        (tmp_path / FILE).write_text(json.dumps({**mine, "pid": first.pid, "began": began}))
    finally:
        first.kill()
        first.wait()
    claim(tmp_path)
    assert json.loads((tmp_path / FILE).read_text()) == mine
