"""`vlmjax serve`: a model behind HTTP, as OpenAI's chat completions, and a page to talk with it."""
import signal
import threading

from etils import epath

from vlmjax import bundle as bundles
from vlmjax import files, pretrained, sharding
from vlmjax.commands import common
from vlmjax.errors import UserError
from vlmjax.serve.server import Limits, Server
from vlmjax.train.metrics import say


def main(argv: list[str]) -> None:
    flags = common.Flags("serve", "Answers POST /v1/chat/completions as OpenAI's API does, and shows a page to talk with the model. It knows no keys and no users: behind 127.0.0.1 it is yours alone.")
    flags.add_argument("--model", required=True, help="a run's directory, a published checkpoint's, a GGUF file or hf://org/name")
    flags.add_argument("--host", default="127.0.0.1", help="the address to listen at; 0.0.0.0: all, for everybody (%(default)s)")
    flags.add_argument("--port", type=int, default=8000, help="0: a free one (%(default)s)")
    flags.add_argument("--name", help="what requests call the model (default: the last part of --model)")
    flags.add_argument("--max_new_tokens", type=int, default=Limits.max_new_tokens, help="most tokens of an answer (%(default)s)")
    flags.add_argument("--max_length", type=int, default=Limits.length, help="most tokens of a prompt with its answer (%(default)s)")
    flags.add_argument("--max_waiting", type=int, default=Limits.waiting, help="requests at once, of which one is answered; further ones get 503 (%(default)s)")
    flags.add_argument("--temperature", type=float, default=Limits.temperature, help="where a request says none; 0: always the likeliest token (%(default)s)")
    flags.add_argument("--dtype", default="float32")
    flags.add_argument("--mesh", default="", help="for example replica:1,fsdp:1,tensor:8 (default: all devices on fsdp, where each token gathers all weights; vlmjax plan --answers compares)")
    flags.add_argument("--adapters", default="on", choices=bundles.ADAPTERS, help="LoRA's: as trained, left out, or merged into the weights")
    args = flags.read(argv)
    limits = Limits(args.max_new_tokens, args.max_length, args.max_waiting, temperature=args.temperature)
    if common.set_up_jax().count > 1:
        raise UserError("serve: answers from one process, and this job has several")
    model = pretrained.load(common.expand(args.model), args.dtype, sharding.make_mesh(common.parse_mesh(args.mesh))).with_adapters(args.adapters)
    if model.vlm is None:
        raise UserError(f"{args.model}: has no language model, so it cannot answer")
    name = args.name or epath.Path(common.expand(args.model)).name
    try:
        server = Server((args.host, args.port), model, name, limits, say)
    except (OSError, OverflowError) as error:
        raise UserError(f"--host, --port: cannot listen at {args.host}:{args.port}: {files.reason(error)}") from None
    with server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())  # from this thread it would wait for itself
        host, port = server.server_address[:2]
        say(f"{name}: http://{host}:{port}/ is a page, http://{host}:{port}/v1 OpenAI's API (POST chat/completions, GET models); Ctrl-C ends")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
    say("serve: ended")
