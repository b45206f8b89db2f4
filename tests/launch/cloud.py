"""A cloud to launch on: a checkout of its own, stand-ins for gcloud, ssh, uv and hostname, and a PATH that holds nothing else but everyday tools."""
import os
import pathlib
import shutil
import signal
import subprocess
import time

from tests.launch import gcloud

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
    """In a folder that is empty, or that is a copy of the folder of `like`: nothing in it is an absolute path of its own."""

    script, server, programs, slices_conf = "launch/tpu.sh", gcloud.Gcloud, {"gcloud": gcloud.CLIENT, "ssh": SSH, "uv": UV}, SLICES

    def __init__(self, folder: pathlib.Path, like: "Cloud | None" = None):
        self.folder, self.repo = folder, folder / "repo"
        path = f"{folder / 'bin'}:{folder / 'tools'}"
        self.gcloud = self.server(folder, path, like.gcloud if like else None)
        self.env = {"PATH": path, "HOME": str(folder), "WORLD": str(folder), "GCLOUD_PORT": str(self.gcloud.server_address[1]), "VLMJAX_POLL": "0.1", "VLMJAX_GRACE": "3",
                    "GIT_CONFIG_GLOBAL": "/dev/null", **{f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}}
        if not like:
            self.make()

    def make(self) -> None:
        tools(self.folder)
        for name, text in self.programs.items():
            script(self.folder / "bin" / name, text)
        self.program(PROGRAM)
        (self.repo / "launch").mkdir(parents=True)
        for file in [*(TOP / "launch").glob("*.sh"), TOP / "launch" / "slices.example.conf", TOP / "launch" / "Dockerfile"]:
            shutil.copy(file, self.repo / "launch")
        for name in ("setup.cfg", "pyproject.toml", ".gitignore"):
            shutil.copy(TOP / name, self.repo)
        (self.repo / "launch" / "slices.conf").write_text(self.slices_conf)
        self.git("init", "--quiet")
        self.commit()

    def git(self, *args: str) -> str:
        return subprocess.run(["git", *args], cwd=self.repo, env=self.env, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self) -> str:
        self.git("add", "-A")
        self.git("commit", "--quiet", "--allow-empty", "-m", "x")
        return self.git("rev-parse", "HEAD")

    def clone(self) -> pathlib.Path:
        """Another checkout, with the same slices."""
        made = self.folder / "clone"
        self.git("clone", "--quiet", str(self.repo), str(made))
        shutil.copy(self.repo / "launch" / "slices.conf", made / "launch")
        return made

    def program(self, text: str) -> None:
        """What `vlmjax` is on the workers."""
        (self.folder / "program").write_text(text)

    def fail(self, verb: str, *messages: str | None) -> None:
        """The next calls of `verb` fail with these messages (None: succeeds)."""
        self.gcloud.fail[verb] = list(messages)

    def start(self, *args: str) -> subprocess.Popen:
        return subprocess.Popen(["bash", self.script, *args], cwd=self.repo, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, *args: str, status: int = 0) -> str:
        """What the script prints, on both streams."""
        process = self.start(*args)
        try:
            printed = process.communicate(timeout=60)[0]
        finally:
            process.kill()
        assert process.returncode == status, printed
        return printed

    def calls(self, verb: str | None = None) -> list[list[str]]:
        """Arguments of the calls of gcloud, of one verb."""
        return [argv for argv in list(self.gcloud.calls) if verb is None or verb in argv[:4]]

    def looks(self) -> int:
        """How often the workers were asked for their state."""
        return sum(argv[-1].endswith("worker.sh state") for argv in self.calls("ssh"))

    @property
    def slices(self) -> dict:
        return self.gcloud.slices

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

    def kill_jobs(self) -> None:
        """Ends all processes of the command on all workers, and the shells that wait for it."""
        for pid in self.folder.glob("workers/*/*/vlmjax/pid"):
            try:
                os.killpg(int(pid.read_text()), signal.SIGKILL)
            except (OSError, ValueError):
                pass

    def preempt(self, name: str = "one") -> None:
        """The slice is taken away: its machines end, its name stays."""
        self.slices[name].update(request="SUSPENDED", node=None)
        self.kill_jobs()

    def end(self) -> None:
        self.kill_jobs()
        self.gcloud.shutdown()
        self.gcloud.server_close()
