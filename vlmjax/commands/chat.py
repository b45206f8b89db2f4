"""`vlmjax chat`: talks with a model about images. Questions come from the terminal, from standard input line by line, or from --question."""
import dataclasses
import sys
from collections.abc import Iterator

from etils import epath

from vlmjax import bundle as bundles
from vlmjax import decode, files, pretrained, sharding
from vlmjax.bundle import Bundle
from vlmjax.commands import common
from vlmjax.data.example import IMAGE_MARK, Turn
from vlmjax.data.images import Picture
from vlmjax.errors import UserError

HELP = "/image FILE shows another image, /new begins a new conversation, /quit ends; Ctrl-C stops an answer"


def main(argv: list[str]) -> None:
    flags = common.Flags("chat", f"Talks with a model: a line of standard input is a question. {HELP}.")
    flags.add_argument("--model", required=True, help="a run's directory, a published checkpoint's, a GGUF file or hf://org/name")
    flags.add_argument("--image", action="append", default=[], metavar="FILE", help="shown with the first question; may stand several times")
    flags.add_argument("--question", action="append", default=[], help="asked instead of what standard input says; may stand several times, one after the other")
    flags.add_argument("--alone", action="store_true", help="each question about the images as if it were the first")
    flags.add_argument("--max_new_tokens", type=int, default=256, help="of an answer (%(default)s)")
    flags.add_argument("--temperature", type=float, default=0.0, help="0: always the likeliest token (%(default)s)")
    flags.add_argument("--top_p", type=float, default=1.0, help="draw from the fewest tokens whose probabilities reach it")
    flags.add_argument("--top_k", type=int, default=0, help="draw from so many tokens (0: all)")
    flags.add_argument("--seed", type=int, default=0, help="of what is drawn; each answer counts it up")
    flags.add_argument("--dtype", default="float32")
    flags.add_argument("--mesh", default="", help="for example replica:8,fsdp:1,tensor:8 (default: all devices on fsdp, where each token gathers all weights; vlmjax plan --answers compares)")
    flags.add_argument("--adapters", default="on", choices=bundles.ADAPTERS, help="LoRA's: as trained, left out, or merged into the weights")
    args = flags.read(argv)
    if args.temperature < 0:
        raise UserError(f"--temperature: {args.temperature} is less than 0")
    if not args.temperature and (args.top_p != 1 or args.top_k):
        raise UserError("--top_p, --top_k: say from what is drawn, and nothing is at --temperature=0")
    sampling = decode.Sampling(args.temperature, args.top_k, args.top_p) if args.temperature else None
    images = [read(path) for path in args.image]
    if common.set_up_jax().count > 1:
        raise UserError("chat: talks from one process, and this job has several")
    model = pretrained.load(common.expand(args.model), args.dtype, sharding.make_mesh(common.parse_mesh(args.mesh))).with_adapters(args.adapters)
    talk = Conversation(model, args.max_new_tokens, sampling, args.seed, args.alone)
    talk.show(images)
    if args.question:
        for question in args.question:
            say(talk.ask(question))
        return
    listen(talk)


@dataclasses.dataclass
class Conversation:
    """What was said so far, and the images whose places are in it. alone: nothing is remembered but the images. waiting: images that the next question shows."""

    model: Bundle
    max_new_tokens: int
    sampling: decode.Sampling | None
    seed: int
    alone: bool = False
    turns: tuple[Turn, ...] = ()
    images: tuple[Picture, ...] = ()
    waiting: tuple[Picture, ...] = ()

    def show(self, images: list[bytes]) -> None:
        self.waiting += tuple(self.model.tiles(image) for image in images)

    def ask(self, question: str) -> Iterator[str]:
        """The answer, piece by piece; a question that cannot be asked, or whose answer is not waited for, changes nothing."""
        if IMAGE_MARK in question:
            raise UserError(f"question: {IMAGE_MARK} is the place of an image, which /image shows")
        shown = IMAGE_MARK * len(self.waiting) + ("\n" if self.waiting else "") + question
        turns, images = (*self.turns, Turn("user", shown)), (*self.images, *self.waiting)
        answer = ""
        for piece in self.model.stream(turns, images, self.max_new_tokens, self.sampling, self.seed):
            answer += piece
            yield piece
        self.seed = (self.seed + 1) % 2**32
        if not self.alone:
            self.turns, self.images, self.waiting = (*turns, Turn("assistant", answer)), images, ()

    def forget(self) -> None:
        self.turns = self.images = self.waiting = ()


def read(path: str) -> bytes:
    where = common.expand(path)
    try:
        return epath.Path(where).read_bytes()
    except OSError as error:
        raise UserError(f"image {path}: {files.reason(error)}") from None


def listen(talk: Conversation) -> None:
    """Until standard input ends. A mistake is said, and the conversation goes on."""
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        print(HELP, file=sys.stderr)
    while True:
        if at_terminal:
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line or line.strip() == "/quit":
            return
        try:
            obey(talk, line.strip())
        except KeyboardInterrupt:
            if not at_terminal:
                raise
            print(flush=True)
        except UserError as error:
            if not at_terminal:
                raise
            print(f"vlmjax: {error}", file=sys.stderr)


def obey(talk: Conversation, line: str) -> None:
    if line == "/new":
        talk.forget()
    elif line.startswith("/image "):
        talk.show([read(line.removeprefix("/image ").strip())])
    elif line.startswith("/"):
        raise UserError(f"{line.split()[0]} is not known: {HELP}")
    elif line:
        say(talk.ask(line))


def say(pieces: Iterator[str]) -> None:
    """Each as it comes, then the end of the line."""
    for piece in pieces:
        print(piece, end="", flush=True)
    print(flush=True)
