"""`vlmjax serve` as a user meets it."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from tests.evaluate import tiny
from vlmjax import pretrained
from vlmjax.__main__ import main
from vlmjax.data.example import Turn


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "small"
    pretrained.save(tiny.model(), directory)
    return directory


def test_it_says_where_it_listens_answers_and_ends(saved):
    with subprocess.Popen([sys.executable, "-m", "vlmjax", "serve", f"--model={saved}", "--port=0", "--max_new_tokens=4"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "XLA_FLAGS": ""}) as process:
        said = process.stdout.readline()
        port = int(re.fullmatch(r"small: http://127.0.0.1:(\d+)/ is a page, .*\n", said)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("POST", "/v1/chat/completions", json.dumps({"model": "small", "messages": [{"role": "user", "content": "is it red?"}]}), {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())["choices"][0]["message"]["content"]
        assert answer == tiny.model().reply((Turn("user", "is it red?"),), (), 4)
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=30)
        assert process.returncode == 0 and not errors and re.fullmatch(r"127.0.0.1 POST /v1/chat/completions: 200, \d+ tokens, an answer of \d+, \d+.\d\d s\nserve: ended\n", rest)


def test_mistakes_are_one_line(saved, tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        pretrained.save(tiny.model(without=("projector", "decoder")), tmp_path / "towers")
        for flags, says in (([f"--model={saved}", f"--port={taken.getsockname()[1]}"], "--host, --port: cannot listen at 127.0.0.1:"), ([f"--model={saved}", "--port=99999"], "--host, --port: cannot listen"),
                            ([f"--model={saved}", "--host=not a host"], "--host, --port: cannot listen"), ([f"--model={tmp_path / 'towers'}", "--port=0"], "has no language model, so it cannot answer"),
                            ([f"--model={saved}", "--max_waiting=0"], "serve.waiting: 0 is less than 1")):
            assert main(["serve", *flags]) == 2
            out, err = capsys.readouterr()
            assert says in err and err.count("\n") == 1 and not out
