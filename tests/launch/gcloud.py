"""A stand-in for gcloud: it records its calls and answers for slices whose workers are shells on this machine, each with a folder as its home.

The program on the PATH hands its arguments to the test's own process, so that a call costs milliseconds.
"""
import copy
import os
import pathlib
import re
import shutil
import socketserver
import subprocess
import threading

# The arguments, each ended by NUL, and an empty one; back come the exit status, stderr and stdout.
CLIENT = r"""#!/usr/bin/env bash
exec 5<>"/dev/tcp/127.0.0.1/$GCLOUD_PORT"
printf '%s\0' "$@" "" >&5
read -r status <&5
IFS= read -r -d '' said <&5
printf '%s' "$said" >&2
cat <&5
exit "$status"
"""


class Failed(Exception):
    pass


class Gcloud(socketserver.ThreadingTCPServer):
    """slices: {name: {request: its state or None, node: its state or None, born, coming: states to come, labels, ips}}. coming: of a new request. workers: of
    a new slice. buckets: {address: location}. fail: {verb: [message or None, …]}, one a call. forgets_labels: a suspended request shows none."""

    daemon_threads = True

    def __init__(self, folder: pathlib.Path, path: str, like: "Gcloud | None" = None):
        super().__init__(("127.0.0.1", 0), Call)
        self.folder, self.path, self.calls, self.lock = folder, path, [], threading.RLock()
        self.slices = copy.deepcopy(like.slices) if like else {}
        self.coming, self.workers, self.fail, self.buckets, self.forgets_labels = [], 2, {}, {"gs://here": "US-CENTRAL2"}, False
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def answer(self, argv: list[str]) -> tuple[int, str, str]:
        """(exit status, stdout, stderr) of a call."""
        try:
            with self.lock:
                self.calls.append(argv)
                act = self.act(argv)
            return act() if callable(act) else (0, act or "", "")
        except Failed as error:
            return 1, "", f"ERROR: (gcloud.stand-in) {error}\n"

    def act(self, argv):
        """What a call prints, or what is left to be done for it without the lock."""
        words = [word for word in argv if not word.startswith("--")]
        flags = {k: v for k, _, v in (word[2:].partition("=") for word in argv if word.startswith("--"))}
        group, verb, *names = words[-3:-1] + words[-1:] if words[0] == "storage" else words[2:]
        if self.fail.get(verb) and (message := self.fail[verb].pop(0)):
            raise Failed(message)
        if group == "buckets":
            if names[0] not in self.buckets:
                raise Failed(f"{names[0]} not found: 404.")
            return shown({"location": self.buckets[names[0]]}, flags)
        name = names[-1].split(":")[0]
        found = self.resource(group, name)
        if verb == "create":
            return self.create(found, group, name, flags)
        if verb == "describe" or verb == "delete":
            if found is None:
                raise Failed(f"NOT_FOUND: Resource 'projects/p/locations/z/{group}/{name}' was not found")
            if verb == "describe":
                return shown(found, flags)
            shutil.rmtree(self.folder / "workers" / name)
            del self.slices[name]
            return ""
        places = self.places(name, flags)
        if verb == "scp":
            for home, _ in places:
                for source in names[:-1]:
                    shutil.copy(source, f"{home}/{names[-1].split(':', 1)[1]}")
            return ""
        assert verb == "ssh", argv
        return lambda: self.ssh(places, flags["command"])

    def resource(self, group, name):
        """What `describe` shows, in the API's form; None where there is none."""
        slice_ = self.slices.get(name, {})
        state = slice_.get("request" if group == "queued-resources" else "node")
        if state is None:
            return None
        if group == "queued-resources":
            if slice_["coming"]:
                state = slice_["request"] = slice_["coming"].pop(0)
            labels = {} if self.forgets_labels and state == "SUSPENDED" else slice_["labels"]
            return {"name": name, "createTime": slice_["born"], "state": {"state": state}, "tpu": {"nodeSpec": [{"nodeId": name, "node": {"labels": labels}}]}}
        return {"name": name, "state": state, "labels": slice_["labels"], "networkEndpoints": [{"ipAddress": ip} for ip in slice_["ips"]]}

    def create(self, found, group, name, flags):
        if found:
            raise Failed(f"ALREADY_EXISTS: {name}")
        for k in range(self.workers):
            (self.folder / "workers" / name / str(k)).mkdir(parents=True)
        queued = group == "queued-resources"
        self.slices[name] = {"request": "ACTIVE" if queued else None, "coming": list(self.coming) if queued else [], "node": "READY", "born": f"2026-11-24T00:00:00.{len(self.calls)}Z",
                             "labels": dict(pair.split("=") for pair in flags["labels"].split(",")), "ips": [f"10.0.0.{k + 1}" for k in range(self.workers)]}

    def places(self, name, flags):
        """(home, address) of the workers that a call is for."""
        if self.slices.get(name, {}).get("node") != "READY":
            raise Failed(f"NOT_FOUND or unusable: {name}")
        return [(self.folder / "workers" / name / str(k), ip) for k, ip in enumerate(self.slices[name]["ips"]) if flags["worker"] in ("all", str(k))]

    def ssh(self, places, command):
        """Like sshd: a shell with the command, of an environment of its own."""
        started = [subprocess.Popen(["bash", "-c", command], cwd=home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                    env={"HOME": str(home), "PATH": self.path, "WORLD": str(self.folder), "IP": ip}) for home, ip in places]
        printed = [process.communicate() for process in started]
        return max(process.returncode for process in started), "".join(out for out, _ in printed), "".join(err for _, err in printed)


class Call(socketserver.StreamRequestHandler):
    def handle(self):
        argv = []
        while (word := self.word()):
            argv.append(word)
        status, out, err = self.server.answer(argv)
        try:
            self.wfile.write(f"{status}\n{err}\0{out}".encode())
        except OSError:
            pass  # the caller was killed

    def word(self) -> str:
        out = bytearray()
        while (byte := self.rfile.read(1)) not in (b"", b"\0"):
            out += byte
        return out.decode()


def field(value, path):
    for key in re.findall(r"\w+|\[\d*\]", path):
        if key == "[]":
            return ";".join(field(one, path.split("[].", 1)[1]) for one in value)
        value = (value[int(key[1:-1])] if key[0] == "[" else value.get(key)) if value else None
    return "" if value is None else str(value)


def shown(value, flags):
    """A resource as `--format=value[separator="|"](KEY,…)` prints it."""
    separator, paths = re.fullmatch(r'value(?:\[separator="(.)"\])?\((.*)\)', flags["format"]).groups()
    return (separator or "\t").join(field(value, path) for path in paths.split(",")) + "\n"
