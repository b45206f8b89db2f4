"""`vlmjax data build NAME`: turns a data set into ArrayRecord shards."""
from vlmjax.commands.common import Flags
from vlmjax.data.datasets import DATASETS
from vlmjax.errors import UserError, did_you_mean


def main(argv: list[str]) -> None:
    flags = Flags("data", "Builds a data set: vlmjax data build NAME. Known: " + ", ".join(DATASETS)).data_dir()
    flags.add_argument("verb", choices=["build"])
    flags.add_argument("name")
    args = flags.read(argv)
    if args.name not in DATASETS:
        raise UserError(f"data: no data set {args.name!r}{did_you_mean(args.name, DATASETS)}")
    DATASETS[args.name].build(args.data_dir)
    print(f"{args.name}: built in {args.data_dir}")
