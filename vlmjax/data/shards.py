"""A data set as ArrayRecord shards with a manifest: written in parallel, restartable, checked.

    DIR/examples-00003.array_record   one JSON record per example: {"id", "images": [key, …], "turns": [[role, text], …]}
    DIR/images-00003.array_record     the encoded images that shard 3 shows first, as they were; a missing one is an empty record
    DIR/images.npz                    sizes, perceptual hashes, thumbnails and faults of all images (`facts`)
    DIR/lengths/                      tables of lengths, one per tokenizer and template (`measure`)
    DIR/manifest.json                 counts, SHA-256 of every file, images that are missing or broken, what was left out or altered; written last

Image keys are `SHARD/INDEX/KEY OF THE SOURCE`, so that a record is found without a table.
"""
import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from etils import epath

from vlmjax import files
from vlmjax.data import facts
from vlmjax.data.example import Example, Source, Turn
from vlmjax.data.files_at import File
from vlmjax.errors import UserError

FORMAT = 1
MANIFEST, IMAGES, SETTINGS, PARTS = "manifest.json", "images.npz", "build.json", "parts"

MIRRORS = "~/.cache/vlmjax/shards"

# Examples of one shard: with photographs of 50 KB about 100 MB.
SHARD_EXAMPLES = 2048

Progress = Callable[[int, int], None]  # (shards done, all shards)


def build(source: Source, directory: epath.PathLike, spec: str, workers: int, shard_examples: int = SHARD_EXAMPLES, progress: Progress = lambda done, of: None) -> dict[str, Any]:
    """Writes a source to `directory` → its manifest. Started again, it keeps the shards that are complete; a set that is built is left as it is.

    `spec` says where the examples come from; a directory begun from another spec, or from examples that have changed, is refused.
    """
    directory = epath.Path(directory)
    files.check_writable(directory)
    if manifest := files.read_json(directory / MANIFEST):
        if manifest["spec"] != spec:
            raise UserError(f"{directory}: holds a data set built from {manifest['spec']}; give another name, or remove it")
        return manifest
    settings = {"format": FORMAT, "spec": spec, "shard_examples": shard_examples, "examples": len(source.examples), "digest": digest(source.examples)}
    held = files.read_json(directory / SETTINGS)
    if held is not None and held != settings:
        differ = next(key for key in settings if held.get(key) != settings[key])
        raise UserError(f"{directory}: was begun with another {differ} ({held.get(differ)!r}, now {settings[differ]!r}); remove it to begin again")
    files.write_json(directory / SETTINGS, settings)
    shards = -(-len(source.examples) // shard_examples)
    done = {n for n in range(shards) if (directory / PARTS / f"{n:05d}.json").exists()}
    progress(len(done), shards)
    tasks = (task for task in _tasks(source, shard_examples) if task[0] not in done)
    for finished, _ in enumerate(_run(os.fspath(directory), source.reader, tasks, workers), len(done) + 1):
        progress(finished, shards)
    return _finish(source, directory, settings, shards)


def digest(examples: Sequence[Example]) -> str:
    """SHA-256 of all examples in order."""
    sha = hashlib.sha256()
    for example in examples:
        sha.update(_record(example) + b"\n")
    return sha.hexdigest()


def _tasks(source: Source, shard_examples: int) -> Iterator[tuple[int, list[Example], list[str]]]:
    """(shard, its examples with keys of the set, keys in the source of the images it shows first)."""
    places: dict[str, str] = {}
    for n in range(-(-len(source.examples) // shard_examples)):
        examples, new = [], []
        for i in range(n * shard_examples, min((n + 1) * shard_examples, len(source.examples))):
            example = source.examples[i]
            for key in example.images:
                if key not in places:
                    places[key] = f"{n}/{len(new)}/{key}"
                    new.append(key)
            examples.append(dataclasses.replace(example, images=tuple(places[key] for key in example.images)))
        yield n, examples, new


def _run(directory: str, read: Callable[[str], bytes], tasks: Iterator[tuple[int, list[Example], list[str]]], workers: int) -> Iterator[None]:
    """Writes shards, a few more in flight than there are workers, so that a large source is never pickled whole."""
    if workers <= 1:
        for task in tasks:
            yield _write_shard(directory, read, *task)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        flying: set[concurrent.futures.Future] = set()
        for task in tasks:
            flying.add(pool.submit(_write_shard, directory, read, *task))
            if len(flying) > workers + 1:
                finished, flying = concurrent.futures.wait(flying, return_when=concurrent.futures.FIRST_COMPLETED)
                yield from (future.result() for future in finished)
        yield from (future.result() for future in concurrent.futures.as_completed(flying))


def _write_shard(directory: str, read: Callable[[str], bytes], n: int, examples: list[Example], keys: list[str]) -> None:
    """One shard; its part file, written last, makes it count."""
    held: list[bytes] = []

    def keep(place: str) -> bytes:
        key = place.split("/", 2)[2]
        held.append(b"")  # stays when reading fails
        held[-1] = read(key)
        return held[-1]

    found = facts.gather([f"{n}/{i}/{key}" for i, key in enumerate(keys)], keep)
    facts.save(epath.Path(directory) / PARTS / f"{n:05d}.npz", found)
    written = {"examples": write_records(f"{directory}/examples-{n:05d}.array_record", map(_record, examples)),
               "images": write_records(f"{directory}/images-{n:05d}.array_record", held, "group_size:1,uncompressed")}
    files.write_json(epath.Path(directory) / PARTS / f"{n:05d}.json", written)


def write_records(path: str, records: Iterable[bytes], options: str = "group_size:1") -> dict[str, Any]:
    """Writes an ArrayRecord file for random access → {file, records, bytes, sha256}."""
    temporary = f"{path}.tmp"
    writer = ArrayRecordWriter(temporary, options)
    count = 0
    for record in records:
        writer.write(record)
        count += 1
    writer.close()
    with open(temporary, "rb") as file:
        sha = hashlib.file_digest(file, "sha256").hexdigest()
    os.replace(temporary, path)
    return {"file": os.path.basename(path), "records": count, "bytes": os.path.getsize(path), "sha256": sha}


def _finish(source: Source, directory: epath.Path, settings: dict[str, Any], shards: int) -> dict[str, Any]:
    parts = [files.read_json(directory / PARTS / f"{n:05d}.json") for n in range(shards)]
    known = facts.join([facts.load(directory / PARTS / f"{n:05d}.npz") for n in range(shards)])
    facts.save(directory / IMAGES, known)
    sides = np.stack([known.width, known.height], axis=1)[known.readable]
    manifest = {
        **settings, "name": source.name, "images": len(known), "unreadable_images": dict(known.faults), "left_out": dict(getattr(source, "faults", {})), "altered": dict(getattr(source, "altered", {})),
        "image_sides": {"least": sides.min(0).tolist(), "median": np.median(sides, axis=0).astype(int).tolist(), "most": sides.max(0).tolist()} if len(sides) else None,
        "files": [part[kind] for part in parts for kind in ("examples", "images")],
        "facts_sha256": hashlib.sha256((directory / IMAGES).read_bytes()).hexdigest(),
    }
    files.write_json(directory / MANIFEST, manifest)
    (directory / PARTS).rmtree()
    (directory / SETTINGS).unlink()
    return manifest


def verify(directory: epath.PathLike, progress: Progress = lambda done, of: None) -> list[str]:
    """What of a built set is not as its manifest says, a line each."""
    directory, wrong = epath.Path(directory), []
    manifest = read_manifest(directory)
    for done, entry in enumerate(manifest["files"], 1):
        path = directory / entry["file"]
        if not path.exists():
            wrong.append(f"{path}: is missing")
        elif path.stat().length != entry["bytes"] or _sha256(path) != entry["sha256"]:
            wrong.append(f"{path}: is not the file that was built ({path.stat().length:,} bytes, the manifest has {entry['bytes']:,} and another SHA-256)")
        progress(done, len(manifest["files"]))
    if not (directory / IMAGES).exists() or _sha256(directory / IMAGES) != manifest["facts_sha256"]:
        wrong.append(f"{directory / IMAGES}: is missing or not the file that was built")
    return wrong


def read_manifest(directory: epath.PathLike) -> dict[str, Any]:
    manifest = files.read_json(epath.Path(directory) / MANIFEST)
    if manifest is None:
        raise UserError(f"{directory}: holds no built data set ({MANIFEST} is missing); run: vlmjax data build SPEC --name={epath.Path(directory).name}")
    if manifest.get("format") != FORMAT:
        raise UserError(f"{directory}: has format {manifest.get('format')!r}, this version reads {FORMAT}; build it again")
    return manifest


def _sha256(path: epath.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record(example: Example) -> bytes:
    turns = [[turn.role, turn.text] for turn in example.turns]
    return json.dumps({"id": example.id, "images": example.images, "turns": turns}, ensure_ascii=False).encode()


def mirror(directory: str) -> tuple[epath.Path, str]:
    """(where a set lies on this machine, its store or ""). A set in a store is mirrored in `MIRRORS`, by the hash of its manifest; its shards come when
    they are first read, since ArrayRecord reads files of a disk."""
    if "://" not in directory:
        return epath.Path(directory), ""
    manifest = File(f"{directory}/{MANIFEST}")
    if not manifest.exists():
        raise UserError(f"{directory}: holds no built data set ({MANIFEST} is missing); build it on a disk and copy its folder there")
    content = manifest.read()
    local = epath.Path(MIRRORS).expanduser() / hashlib.sha256(content).hexdigest()[:16]
    if not (local / MANIFEST).exists():
        files.write(local / IMAGES, File(f"{directory}/{IMAGES}").read())
        files.write(local / MANIFEST, content)
    return local, directory


class Records(Sequence):
    """Records of shards of equal length (but the last), by index, from any thread. entries: of the manifest, one a shard; store: see `mirror`."""

    def __init__(self, directory: epath.PathLike, entries: Sequence[Mapping[str, Any]], store: str = ""):
        self._directory, self._entries, self._store = os.fspath(directory), entries, store
        self._readers: dict[int, ArrayRecordReader] = {}

    def __len__(self) -> int:
        return sum(entry["records"] for entry in self._entries)

    def read(self, shard: int, index: int) -> bytes:
        path = f"{self._directory}/{self._entries[shard]['file']}"
        reader = self._readers.get(shard)
        if reader is None:
            if self._store and not os.path.exists(path):
                files.write(path, self._fetched(shard))
            reader = self._readers[shard] = ArrayRecordReader(path)
        try:
            return reader.read([index])[0]
        except (RuntimeError, ValueError, IndexError) as error:  # a file that is gone, cut or changed is noticed here
            self._readers.pop(shard, None)
            raise UserError(f"{path}: cannot be read: {files.reason(error)[:200]}; `vlmjax data verify` says what is wrong") from None

    def _fetched(self, shard: int) -> bytes:
        entry = self._entries[shard]
        data = File(f"{self._store}/{entry['file']}").read()
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise UserError(f"{self._store}/{entry['file']}: is not the file that was built ({len(data):,} bytes, the manifest has {entry['bytes']:,} and another SHA-256); copy it again")
        return data

    def __getitem__(self, i: int) -> bytes:
        return self.read(*divmod(i, self._entries[0]["records"]))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": {}}


def parse(record: bytes) -> Example:
    """An example from its record."""
    held = json.loads(record)
    return Example(held["id"], tuple(held["images"]), tuple(Turn(*turn) for turn in held["turns"]))
