"""A cloud to launch on: a checkout of its own, stand-ins for gcloud, ssh, uv and hostname, and a PATH that holds nothing else but everyday tools."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from tests.launch import stand_in_gcloud

TOP = pathlib.Path(__file__).parents[2]
TOOLS = ("bash sh env git awk sed grep cat cut date head tail tr wc sort paste mktemp mkdir mkfifo rm mv cp ln ls touch chmod stat realpath id dirname basename sleep timeout "
         "setsid nohup flock sha256sum cksum").split()

# Makes a venv whose vlmjax is $WORLD/program, and writes down what it was asked for.
UV = r"""#!/usr/bin/env bash
echo "$*" >>"$HOME/uv.log"
case "$1 $2" in
  "venv --quiet") mkdir -p "${@: -1}/bin"; for name in python vlmjax; do printf '#!/usr/bin/env bash\nexec bash "$WORLD/program" "$@"\n' >"${@: -1}/bin/$name"; done; chmod +x "${@: -1}"/bin/* ;;
  "pip freeze") echo jax==0.12.0; echo "-e file:///x" ;;
esac
"""
HOSTNAME = '#!/usr/bin/env bash\nif [ "${1:-}" = -I ]; then echo "$IP 172.17.0.1 "; else echo "host-${IP:-here}"; fi\n'
SSH = '#!/usr/bin/env bash\necho "$*" >>"$WORLD/ssh.log"; exit 99\n'
SLICES = """# name accelerator zone how tier project bucket flags
one   v4-16  us-central2-b  queued  spot       my-project  gs://here
plain v5e-8  us-west4-a     vm      on-demand  my-project  -  --network=mine
"""
PROGRAM = "echo 'align: starts'; echo step 1; sleep 60"


def tools(folder: pathlib.Path) -> str:
    """A PATH of `folder`/bin, for stand-ins, and links to everyday tools."""
    for name in ("bin", "tools"):
        (folder / name).mkdir(parents=True)
    for name in TOOLS:
        (folder / "tools" / name).symlink_to(shutil.which(name))
    script(folder / "bin" / "hostname", HOSTNAME)
    return f"{folder / 'bin'}:{folder / 'tools'}"


def script(path: pathlib.Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


class Cloud:
    """In a folder that is empty, or a copy of another cloud's: nothing in it is an absolute path of its own."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.repo = folder, folder / "repo"
        self.env = {"PATH": f"{folder / 'bin'}:{folder / 'tools'}", "HOME": str(folder), "WORLD": str(folder), "VLMJAX_POLL": "0.1", "VLMJAX_GRACE": "3", "GIT_CONFIG_GLOBAL": "/dev/null",
                    **{f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}}
        if not self.repo.exists():
            self.make()

    def make(self) -> None:
        folder = self.folder
        tools(folder)
        script(folder / "bin" / "gcloud", f"#!{sys.executable} -SE\n{pathlib.Path(stand_in_gcloud.__file__).read_text()}")
        script(folder / "bin" / "ssh", SSH)
        script(folder / "bin" / "uv", UV)
        self.write(coming=[], workers=2, fail={}, buckets={"gs://here": "US-CENTRAL2"}, slices={})
        (folder / "calls.jsonl").touch()
        self.program(PROGRAM)
        (self.repo / "launch").mkdir(parents=True)
        for file in [*(TOP / "launch").glob("*.sh"), TOP / "launch" / "slices.example.conf"]:
            shutil.copy(file, self.repo / "launch")
        for name in ("setup.cfg", "pyproject.toml", ".gitignore"):
            shutil.copy(TOP / name, self.repo)
        (self.repo / "launch" / "slices.conf").write_text(SLICES)
        self.git("init", "--quiet")
        self.commit()

    def git(self, *args: str) -> str:
        return subprocess.run(["git", *args], cwd=self.repo, env=self.env, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "--quiet", "--allow-empty", "-m", "x")
        return self.git("rev-parse", "HEAD")

    def program(self, text: str) -> None:
        """What `vlmjax` is on the workers."""
        (self.folder / "program").write_text(text)

    def write(self, **world) -> None:
        (self.folder / "world.json").write_text(json.dumps(world))

    def change(self, change) -> None:
        with stand_in_gcloud.World(self.folder) as held:
            change(held)

    def fail(self, verb: str, *messages: str | None) -> None:
        """The next calls of `verb` fail with these messages (None: succeeds)."""
        self.change(lambda held: held["fail"].update({verb: list(messages)}))

    def start(self, *args: str) -> subprocess.Popen:
        return subprocess.Popen(["bash", "launch/tpu.sh", *args], cwd=self.repo, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, *args: str, status: int = 0) -> str:
        """What launch/tpu.sh prints, on both streams."""
        process = self.start(*args)
        try:
            printed = process.communicate(timeout=60)[0]
        finally:
            process.kill()
        assert process.returncode == status, printed
        return printed

    def calls(self, verb: str | None = None) -> list[list[str]]:
        """Arguments of the calls of gcloud, of one verb."""
        found = [json.loads(line)["argv"] for line in (self.folder / "calls.jsonl").read_text().splitlines()]
        return [argv for argv in found if verb is None or verb in argv[:4]]

    def looks(self) -> int:
        """How often the workers were asked for their state."""
        return sum(argv[-1].endswith("worker.sh state") for argv in self.calls("ssh"))

    def slices(self) -> dict:
        return json.loads((self.folder / "world.json").read_text())["slices"]

    def home(self, worker: int, name: str = "one") -> pathlib.Path:
        return self.folder / "workers" / name / str(worker)

    def job(self, worker: int, what: str) -> str:
        """A file of a worker's command, or the empty text."""
        file = self.home(worker) / "vlmjax" / what
        return file.read_text().strip() if file.exists() else ""

    def until(self, what, seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.02)

    def kill(self, worker: int, pid: str = "main", sign: int = signal.SIGKILL) -> None:
        os.kill(int(self.job(worker, pid)), sign)

    def end(self) -> None:
        """Ends what still runs on workers."""
        for pid in self.folder.glob("workers/*/*/vlmjax/pid"):
            try:
                os.killpg(int(pid.read_text()), signal.SIGKILL)
            except (OSError, ValueError):
                pass

    def preempt(self, name: str = "one") -> None:
        """The slice is taken away: its machines end, its name stays."""
        self.change(lambda held: held["slices"][name].update(request="SUSPENDED", node=None))
        self.end()
