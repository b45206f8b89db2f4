"""What a frozen encoder makes of each image, computed once before the first step and kept on the disk for the next start and the next run.

The features of a stage lie in a folder that is named by all that they depend on: the digest of the encoder's parameters as the stage would store
them, its sizes and the layer that is read, the treatment of an image, the type of the activations, and what computed them (device, jaxlib, Pillow). In it they
are found by the SHA-256 of the encoded image. So another encoder, another treatment and another image never find them.
"""
import concurrent.futures
import dataclasses
import hashlib
import importlib.metadata
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from vlmjax import param_rules, sharding, stacks
from vlmjax.data import images
from vlmjax.data.example import Source
from vlmjax.data.features import Cache
from vlmjax.data.pipeline import Pipeline
from vlmjax.data.reading import image_file
from vlmjax.errors import UserError
from vlmjax.models import vlm
from vlmjax.train import build, proof

FORMAT = 1
PART_BYTES = 256 << 20  # of features: what a kill loses at most

Shown = tuple[Source, str]


def once(stage: build.Stage, by_layer: dict[str, Any], data: Pipeline, root: epath.PathLike, tell: Callable[[str], None],
         progress: Callable[[int, int], None] = lambda done, of: None) -> dict[str, Any]:
    """Encodes what the stage shows and the folder under `root` lacks; from then on `data` has features in place of pixels. by_layer: the truth of the
    encoder. → what record.json says: images, different ones; hits, those that were there; broken, files that are none."""
    began = time.monotonic()
    params = stacks.place(by_layer, stage.encoder.params, {path: leaf.sharding for path, leaf in stage.encoder.params.items()})
    digest = proof.sha256(proof.digests_of(params.items()))
    about = depends_on(stage, digest, data)
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    cache = Cache(epath.Path(root) / key, stage.shape.features, about)
    with concurrent.futures.ThreadPoolExecutor(data.workers) as pool:
        shown = data.images(stage.steps)
        named = dict(zip(((id(source), name) for source, name in shown), pool.map(_name, shown)))  # {place: SHA-256, or why it is broken}
        files = {sha: place for place, sha in zip(shown, named.values()) if not isinstance(sha, UserError)}
        missing = {sha: place for sha, place in files.items() if sha not in cache}
        tell(f"{stage.name}: {_plan(stage, cache, len(files), len(missing), sum(_count(data, place) for place in missing.values()))}")
        faults = _encode(stage, params, missing, data, cache, pool, progress)

    def features(source: Source, name: str) -> np.ndarray:
        sha = named[id(source), name]
        if isinstance(sha, UserError) or sha in faults:
            raise UserError(str(faults.get(sha, sha)))
        return cache.read(sha)

    data.read_features(stage.shape.features, features)
    return {"images": len(files), "hits": len(files) - len(missing), "encoded": len(missing) - len(faults), "broken": len(named) - sum(sha in cache for sha in named.values()),
            "key": key, "encoder_sha256": digest, "bytes": sum(_count(data, place) for sha, place in files.items() if sha not in faults) * stage.shape.features.nbytes, "seconds": round(time.monotonic() - began, 1)}


def depends_on(stage: build.Stage, digest: str, data: Pipeline) -> dict[str, Any]:
    """Everything that features depend on but the image, as JSON. What a projector does with them is not among it."""
    layout = dataclasses.asdict(data.processor.layout)
    layout = {key: value for key, value in layout.items() if key not in ("shuffle", "tokens") and (key, value) != ("tiles", 1)}  # a key does not name the tiles of a layout that cuts nothing
    module = stage.encoder.module
    config = {key: value for key, value in dataclasses.asdict(module.config).items() if (key, value) != ("final_eps", None)}  # nor an epsilon that it has from the other norms
    made_by = {"device": stage.mesh.devices.flat[0].device_kind, **{name: importlib.metadata.version(name) for name in ("jaxlib", "pillow")}}
    read = stage.shape.features.patches
    beside = {} if read == module.config.tokens_per_image else {"tokens": read}  # a class token
    return {"format": FORMAT, "encoder_sha256": digest, "config": config, "blocks": sum(module.segments), "layout": layout, **beside,
            "compute": stage.shape.features.dtype.name, "made_by": made_by}


def _name(place: Shown) -> str | UserError:
    """The SHA-256 of an encoded image, or why it cannot be read."""
    try:
        return hashlib.sha256(image_file(*place)).hexdigest()
    except UserError as error:
        return error


def _count(data: Pipeline, place: Shown) -> int:
    """Tiles of an image."""
    source, name = place
    return sum(data.tiles(source, (name,))) or 1


def _plan(stage: build.Stage, cache: Cache, known: int, missing: int, tiles: int) -> str:
    """What is to be encoded, in one line. Refuses what the disk has no room for. tiles: of the missing images together."""
    again = f" ({len(cache.incomplete)} parts there are not whole and do not count)" if cache.incomplete else ""
    if not missing:
        return f"the features of all {known:,} images are in {cache.directory}{again}"
    size, root = tiles * stage.shape.features.nbytes, cache.directory.parent
    root.mkdir(parents=True, exist_ok=True)
    if size > (free := shutil.disk_usage(root).free):
        raise UserError(f"stages.{stage.name}.encode_once: the features of {missing:,} images are {size / 1e9:,.1f} GB, and {root} has room for {free / 1e9:,.1f}; "
                        "make it a link to a larger disk, or set it to False")
    return f"encodes {missing:,} of {known:,} images once, {size / 1e6:,.1f} MB of features into {cache.directory}{again}"


def _encode(stage: build.Stage, params: dict[str, jax.Array], missing: dict[str, Shown], data: Pipeline, cache: Cache, pool: concurrent.futures.Executor,
            progress: Callable[[int, int], None]) -> dict[str, str]:
    """Writes the features of {SHA-256: where the image is} part by part, as many tiles at once as a micro-batch of the stage has. → {SHA-256: why it is broken}."""
    rows = stage.config.batch // stage.config.accumulate
    at_once, faults, done = rows * stage.shape.images, {}, 0
    chunks = list(_chunks(missing, data, at_once))
    if not chunks:
        return faults
    place, n, tree = sharding.batch(stage.mesh), stage.shape.size, param_rules.unflatten(params)["encoder"]
    like = jax.ShapeDtypeStruct((at_once, n, n, 3), np.uint8, sharding=place)
    with build.context(stage.mesh):
        program = jax.jit(lambda own, pixels: vlm.features(stage.encoder.module, own, pixels, tokens=stage.shape.features.patches), out_shardings=place).lower(tree, like).compile()

    def prepare(entry: tuple[str, Shown]) -> np.ndarray | UserError:
        sha, (source, name) = entry
        try:
            file = image_file(source, name)
            if hashlib.sha256(file).hexdigest() != sha:
                return UserError("changed while it was read")
            return data.as_planned(source, name, images.prepare(file, data.processor.layout))
        except UserError as error:
            return error

    def encoded(part: Sequence[Sequence[tuple[str, Shown]]]) -> Iterator[tuple[str, np.ndarray]]:
        nonlocal done
        ready = [pool.submit(prepare, entry) for entry in part[0]]
        for number, chunk in enumerate(part):
            pixels, whole, used = np.zeros(like.shape, np.uint8), [], 0
            for (sha, _), result in zip(chunk, (future.result() for future in ready)):
                if isinstance(result, UserError):
                    faults[sha] = str(result)
                else:
                    pixels[used : used + len(result)] = result
                    whole.append((sha, slice(used, used + len(result))))
                    used += len(result)
            made = program(tree, jax.device_put(pixels, place))
            ready = [pool.submit(prepare, entry) for entry in part[number + 1]] if number + 1 < len(part) else []  # while the devices compute
            made = np.asarray(made)
            yield from ((sha, made[own]) for sha, own in whole)
            done += len(chunk)
            progress(done, len(missing))

    together = max(1, PART_BYTES // stage.shape.features.nbytes // at_once)
    for start in range(0, len(chunks), together):
        cache.write(encoded(chunks[start : start + together]))
    return faults


def _chunks(missing: dict[str, Shown], data: Pipeline, at_once: int) -> Iterator[list[tuple[str, Shown]]]:
    """Neighbouring images with at most so many tiles together; a row has room for each of them."""
    chunk, used = [], 0
    for entry in missing.items():
        count = _count(data, entry[1])
        if used + count > at_once:
            yield chunk
            chunk, used = [], 0
        chunk.append(entry)
        used += count
    if chunk:
        yield chunk
