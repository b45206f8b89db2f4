"""Stand-ins for GKE: gcloud's clusters, xpk, kubectl and docker record their calls; a JobSet's command runs once, as xpk's containers run it, and its states are told by the test."""
import copy
import subprocess

from tests.launch import cloud, gcloud

SLICES = """# name accelerator zone how tier project bucket flags
pod   v5e-16    us-west4-a     gke     spot       my-project  gs://here
two   2xv5e-16  us-west4-a     gke     reserved   my-project  -  --reservation=ours
vm    v5e-8     us-west4-a     vm      on-demand  my-project  -
"""
# Other programs go to the same server, their name in front.
CLIENT = gcloud.CLIENT.replace(r'"$@" ""', r'"${0##*/}" "$@" ""')
VLMJAX = '#!/usr/bin/env bash\nexec bash "$WORLD/program" "$@"\n'


class Gke(gcloud.Gcloud):
    """clusters: {name: {status, location, labels}}. jobsets: {name: {argv of xpk, printed, coming: [(terminal state, restarts, message)], codes}}; each look at a JobSet takes
    the next of coming, the last stays. coming, codes: of a new one. fail: {"xpk cluster": [message or None, …], …}, by the first two words."""

    def __init__(self, folder, path, like=None):
        super().__init__(folder, path, like)
        self.clusters, self.jobsets, self.buckets = copy.deepcopy(like.clusters) if like else {}, {}, {"gs://here": "US-WEST4"}
        self.coming, self.codes = [("", "0", "")], []

    def act(self, argv):
        if self.fail.get(" ".join(argv[:2])) and (message := self.fail[" ".join(argv[:2])].pop(0)):
            raise gcloud.Failed(message)
        if argv[0] in ("xpk", "kubectl", "docker"):
            return getattr(self, argv[0])(argv[1:])
        if argv[0] != "container":
            return super().act(argv)
        flags = dict(word[2:].split("=", 1) for word in argv if word.startswith("--") and "=" in word)
        if argv[2] == "list":
            found = [one for name, one in self.clusters.items() if flags["filter"] == f"name={name}"]
            return "".join(gcloud.shown({**one, "resourceLabels": one["labels"]}, flags) for one in found)
        assert argv[2] == "get-credentials" and argv[3] in self.clusters
        return ""

    def xpk(self, argv):
        flags = {key: value for word in argv if word.startswith("--") for key, _, value in [word[2:].partition("=")]}
        name = flags["cluster"]
        if argv[:2] == ["cluster", "create"]:
            labels = dict(pair.split("=") for pair in flags["custom-cluster-arguments"].removeprefix("--labels=").split(","))
            self.clusters[name] = {"status": "RUNNING", "location": "us-west4", "labels": labels}
        elif argv[:2] == ["cluster", "delete"]:
            del self.clusters[name]
        else:
            assert argv[:2] == ["workload", "create"] and flags["workload"] not in self.jobsets, argv
            # As in xpk's manifest: the command in a subshell, which a signal must reach.
            run = subprocess.run(["bash", "-c", f"({flags['command']}) & wait $!"], capture_output=True, text=True, env={"PATH": self.path, "WORLD": str(self.folder), "HOME": str(self.folder)})
            self.jobsets[flags["workload"]] = {"flags": flags, "printed": run.stdout, "coming": list(self.coming), "codes": list(self.codes)}
        return ""

    def kubectl(self, argv):
        verb, kind = argv[:2]
        if (verb, kind) == ("get", "jobset"):
            job = self.jobsets.get(argv[2])
            if not job:
                return ""
            state, restarts, message = job["coming"].pop(0) if len(job["coming"]) > 1 else job["coming"][0]
            return f"{argv[2]}|{state}|{restarts}|{message}"
        if verb == "delete":
            self.jobsets.pop(argv[2], None)
            return ""
        selector = next(word for word in argv if word.startswith("--selector=")).split("jobset-name=")[1].split(",")[0]
        job = self.jobsets.get(selector)
        if (verb, kind) == ("get", "pods"):
            return "".join(f"{code}\n" for code in job["codes"])
        assert verb == "logs"
        return job["printed"] if job else ""

    def docker(self, argv):
        assert argv[0] in ("build", "push")
        return ""


class Cluster(cloud.Cloud):
    script, server, slices_conf = "launch/gke.sh", Gke, SLICES
    programs = {"gcloud": gcloud.CLIENT, **dict.fromkeys(("xpk", "kubectl", "docker"), CLIENT), "vlmjax": VLMJAX}

    def made(self, *words: str) -> list[list[str]]:
        """The calls that begin with these words."""
        return [argv for argv in list(self.gcloud.calls) if argv[: len(words)] == list(words)]
