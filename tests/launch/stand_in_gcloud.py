"""A stand-in for gcloud: records its arguments, and answers from a world in $WORLD whose slices are folders and whose workers are shells on this machine.

    calls.jsonl      {"argv": …} of every call
    world.json       coming: states that a new request has before it is active. workers: of a new slice. fail: {"VERB": [message or null, …]}, one a call.
                     buckets: {address: location}. forgets_labels: a suspended request shows none. slices: {name: {request: state or null, node: state or null, born, coming, labels, ips}}
    workers/NAME/K/  the home of worker K
"""
import fcntl
import json
import os
import re
import sys

# Imports are few, and those of single verbs stand in them: tests start this hundreds of times.
WORLD = os.environ.get("WORLD", "")


class World:
    """world.json, written back on leaving; nobody else reads or writes it meanwhile."""

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        self.lock = open(f"{self.folder}/lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        with open(f"{self.folder}/world.json") as file:
            self.held = json.load(file)
        return self.held

    def __exit__(self, *_):
        with open(f"{self.folder}/world.json", "w") as file:
            json.dump(self.held, file, indent=1)
        self.lock.close()


def fail(message):
    print(f"ERROR: (gcloud.stand-in) {message}", file=sys.stderr)
    sys.exit(1)


def resource(held, group, name):
    """What `describe` shows, in the API's form; None where there is none."""
    slice_ = held["slices"].get(name, {})
    state = slice_.get("request" if group == "queued-resources" else "node")
    if state is None:
        return None
    if group == "queued-resources":
        if slice_["coming"]:
            state = slice_["request"] = slice_["coming"].pop(0)
        labels = {} if held.get("forgets_labels") and state == "SUSPENDED" else slice_["labels"]
        return {"name": name, "createTime": slice_["born"], "state": {"state": state}, "tpu": {"nodeSpec": [{"nodeId": name, "node": {"labels": labels}}]}}
    return {"name": name, "state": state, "labels": slice_["labels"], "networkEndpoints": [{"ipAddress": ip} for ip in slice_["ips"]]}


def field(value, path):
    for key in re.findall(r"\w+|\[\d*\]", path):
        if key == "[]":
            rest = path.split("[].", 1)[1]
            return ";".join(field(one, rest) for one in value)
        value = (value[int(key[1:-1])] if key[0] == "[" else value.get(key)) if value else None
    return "" if value is None else str(value)


def shown(value, flags):
    separator, paths = re.fullmatch(r'value(?:\[separator="(.)"\])?\((.*)\)', flags["format"]).groups()
    print((separator or "\t").join(field(value, path) for path in paths.split(",")))


def make(held, group, name, flags):
    if resource(held, group, name):
        fail(f"ALREADY_EXISTS: {name}")
    count = held["workers"]
    queued = group == "queued-resources"
    for k in range(count):
        os.makedirs(f"{WORLD}/workers/{name}/{k}")
    held["slices"][name] = {"request": "ACTIVE" if queued else None, "coming": list(held["coming"]) if queued else [], "node": "READY", "born": f"2026-11-24T00:00:00.{len(calls())}Z",
                            "labels": dict(pair.split("=") for pair in flags["labels"].split(",")), "ips": [f"10.0.0.{k + 1}" for k in range(count)]}


def calls():
    with open(f"{WORLD}/calls.jsonl") as file:
        return file.readlines()


def homes(name, flags, slice_):
    if slice_ is None or slice_["node"] != "READY":
        fail(f"NOT_FOUND or unusable: {name}")
    for k, ip in enumerate(slice_["ips"]):
        if flags["worker"] in ("all", str(k)):
            yield f"{WORLD}/workers/{name}/{k}", ip


def main(argv):
    with open(f"{WORLD}/calls.jsonl", "a") as record:
        record.write(json.dumps({"argv": argv}) + "\n")
    words = [a for a in argv if not a.startswith("--")]
    flags = {k: v for k, _, v in (a[2:].partition("=") for a in argv if a.startswith("--"))}
    group, verb, *names = words[-2:][:1] + ["describe"] if words[0] == "storage" else words[2:]
    with World(WORLD) as held:
        failures = held["fail"].get(verb, [])
        message = failures.pop(0) if failures else None
        if message:
            fail(message)
        if words[0] == "storage":
            address = words[-1]
            return shown({"location": held["buckets"][address]}, flags) if address in held["buckets"] else fail(f"{address} not found: 404.")
        name = names[-1].split(":")[0]
        found = resource(held, group, name)
        if verb == "create":
            return make(held, group, name, flags)
        if found is None and verb in ("describe", "delete"):
            fail(f"NOT_FOUND: Resource 'projects/p/locations/z/{group}/{name}' was not found")
        if verb == "describe":
            return shown(found, flags)
        slice_ = held["slices"].get(name)
        if verb == "delete":
            import shutil
            shutil.rmtree(f"{WORLD}/workers/{name}")
            del held["slices"][name]
            return
        places = list(homes(name, flags, slice_))
    if verb == "scp":
        import shutil
        for home, _ in places:
            target = f"{home}/{names[-1].split(':', 1)[1]}"
            for source in names[:-1]:
                shutil.copy(source, target)
        return
    assert verb == "ssh", argv
    import subprocess
    # Like sshd: a shell with the command, of an environment of its own.
    started = [subprocess.Popen(["bash", "-c", flags["command"]], cwd=home, stdin=subprocess.DEVNULL,
                                env={"HOME": home, "PATH": os.environ["PATH"], "WORLD": WORLD, "IP": ip}) for home, ip in places]
    sys.exit(max(process.wait() for process in started))


if __name__ == "__main__":
    main(sys.argv[1:])
