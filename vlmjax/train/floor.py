"""The FLOPs a stage cannot do without: what its freeze pattern leaves of forward and backward, itemised, from shapes alone.

For each matrix of N parameters that reads n vectors per step:

    2·N·n forward  +  2·N·n where it learns (gradient of the weights)  +  2·N·n where anything below it learns (gradient of what it reads)

so 2·N·n for frozen parts below the lowest one that learns, 4·N·n where gradients only pass, 6·N·n where weights learn and gradients pass.
n per example: an image's P patches for the patch embedding, its P (+1 with a class token) positions for the layers of the encoder (1 in the last block of a
contrastive encoder with a class token, but for its keys and values), its image tokens for the projector (what is read of the encoder for the keys and values of a Q-Former's
cross-attention), all T places for the layers of a decoder (its S supervised
places in a last layer that is computed for them alone, but for its keys and values), these S for the head. Look-ups are free.

Attention is the two products of queries, keys and values, 4·T²·(heads · head size) per layer forward (4·S·T in such a last one, queries by what is read in cross-attention), and
twice that again where gradients pass; in cross-attention for the queries' side, the keys' and the values', as far as each has something below it that learns.
All T² pairs count, as plain attention computes them.

`useful` is the convention of every MFU here, planned or measured: the floor with half of the pairs where attention is causal, since the other half
need not be computed, and with a window of W < T places without the (T − W)²/2T² of all pairs that lie before it. It leaves out what is computed twice (remat) and counts padding, since a step has its shape whatever is in it. PaLM's MFU
(arXiv:2204.02311, appendix B) counts all pairs and every parameter as trained: of the same step it is never lower.
"""
import math
import re
from collections.abc import Mapping
from typing import Any

from vlmjax import optim, param_rules, stacks
from vlmjax.models.qformer import QFormer
from vlmjax.train import build

CAUSAL = ("decoder", "text_tower")
CONVENTION = "FLOPs the freeze pattern needs: 2·N·n forward, 2·N·n per gradient; causal attention counts half, and not what lies before a window, padding counts, recomputing does not; MFU over the bf16 peak"

# The order in which a stack of components is computed: what learns in one of them is below all matrices of those behind it.
BELOW = {"encoder": (), "projector": ("encoder",), "decoder": ("encoder", "projector"), "text_tower": (), "contrast_head": ("encoder", "text_tower")}
# Places inside a component and, behind `layers/N/`, inside a layer.
_ORDER = (r"(patch_embed|embed|added_embed|class_token|position_embed|queries)(/.*)?", r"pre_norm/.*", r"layers/.*", r"linear_\d+/.*", r"(norm|final_norm|vision_norm)/.*", r".*")
_IN_LAYER = (r"norm1/.*", r"attention/[qkv](_lora)?/.*", r"attention/o(_lora)?/.*", r"scale1", r"attention_norm/.*", r"cross_attention/[qkv]/.*", r"cross_attention/o/.*", r"cross_norm/.*",
             r"norm2/.*", r"mlp/(gate|up)(_lora)?/.*", r"mlp/down(_lora)?/.*", r"scale2", r"mlp_norm/.*")
ATTENTION, CROSS = 1, 5  # indices in _IN_LAYER of what makes queries, keys and values
OF_IMAGE = r"/cross_attention/[kv]/"  # matrices that read what the encoder made, and not what comes before them


def place(path: str) -> tuple[int, int, int, int]:
    """A leaf by layer → where it stands in its component: bigger is later. The second map of adapters is behind the first."""
    name = path.split("/", 1)[1]
    if m := re.fullmatch(r"layers/(\d+)/(?:(even|odd)/)?(.*)", name):
        inside = next(i for i, pattern in enumerate(_IN_LAYER) if re.fullmatch(pattern, m[3]))
        return 2, int(m[1]), inside + len(_IN_LAYER) * (m[2] == "odd"), int(name.endswith("_lora/b"))
    first = next(i for i, pattern in enumerate(_ORDER) if re.fullmatch(pattern, name))
    linear = re.match(r"linear_(\d+)", name)
    return first, int(linear[1]) if linear else 0, 0, 0


def is_matrix(path: str, tied: bool) -> bool:
    """Whether a leaf is multiplied by vectors; a table only where it is also the head."""
    name = path.split("/", 1)[1]
    return bool(re.fullmatch(r".*(/kernel|_lora/[ab]|_projection)|head|added_head", name)) or tied and name in ("embed", "added_embed") and path.startswith("decoder/")


def stage(stage: build.Stage) -> dict[str, Any]:
    """FLOPs of one step on all devices: {"matrices": {component: …}, "attention": {component: …}, "similarity": …, "total": …}, with a window also
    {"before_window": {component: …}}, what of attention is of keys that no query sees any more."""
    by_layer, lowest = stacks.expand(param_rules.flatten(optim.merge(stage.abstract.learned.trainable, stage.abstract.frozen))), {}
    learns = {path: stage.labels[path].trainable for path in by_layer}
    for path in by_layer:
        if learns[path]:
            component = path.split("/")[0]
            lowest[component] = min(lowest.get(component, place(path)), place(path))

    def under(component):
        return any(name in lowest for name in BELOW[component])

    def below(component, where):
        return under(component) or component in lowest and lowest[component] < where

    def crosses(name, layer):
        """Products of the size of one, forward and backward, of a layer's cross-attention, whose keys and values are of what lies below its component."""
        at = f"{name}/layers/{layer}/even/cross_attention/"
        q, k, v = (any(learns[path] for path in by_layer if path.startswith(f"{at}{which}/")) or (below(name, (2, layer, CROSS, 0)) if which == "q" else under(name)) for which in "qkv")
        return 2 + (q or k) + v + q + k

    tied = getattr(getattr(parts(stage).get("decoder"), "config", None), "tied", False)
    matrices = dict.fromkeys(stage.components, 0)
    for path, leaf in by_layer.items():
        component = path.split("/")[0]
        if is_matrix(path, tied):
            head = tied and path.startswith("decoder/") and "embed" in path
            at = (len(_ORDER), 0, 0, 0) if head else place(path)
            passes = 1 + learns[path] + (under(component) if re.search(OF_IMAGE, path) else below(component, at))
            matrices[component] += 2 * passes * math.prod(leaf.shape) * vectors(stage, path)
    attention = {}
    for name, part in parts(stage).items():
        if hasattr(part, "segments"):
            sequences, length, width = attends(stage, name)
            products = lambda layer: 4 * (asked(stage, f"{name}/layers/{layer}/") or length) * length * width * sequences
            halves = (0, len(_IN_LAYER)) if isinstance(part, QFormer) else (0,)
            attention[name] = sum(products(layer) * (3 if below(name, (2, layer, ATTENTION + 1 + half, 0)) else 1) for layer in range(sum(part.segments)) for half in halves)
            if isinstance(part, QFormer):
                attention[name] += sum(2 * crosses(name, layer) for layer in range(sum(part.segments))) * length * read(stage) * width * sequences
    before = {name: all_pairs * (1 - window / length) ** 2 / 2 for name, all_pairs in attention.items()
              if (window := getattr(parts(stage)[name].config, "window", None)) and window < (length := attends(stage, name)[1])}
    similarity = 6 * stage.shape.rows**2 * parts(stage)["contrast_head"].joint if "contrast_head" in stage.components else 0
    return {"matrices": matrices, "attention": attention, "similarity": similarity, "total": sum(matrices.values()) + sum(attention.values()) + similarity,
            **({"before_window": before} if before else {})}


def useful(found: Mapping[str, Any]) -> float:
    """What of a floor counts for MFU: all but half of causal attention, and but what lies before a window."""
    return found["total"] - sum(found["attention"].get(name, 0) for name in CAUSAL) / 2 - sum(found.get("before_window", {}).values())


def parts(stage: build.Stage) -> Mapping[str, Any]:
    """{component: module} of what the stage computes."""
    return {name: getattr(stage.model, name) for name in stage.components}


def vectors(stage: build.Stage, path: str) -> int:
    """How many vectors a matrix reads in one step."""
    component, name = path.split("/", 1)
    s = stage.shape
    few = 0 if re.search(r"/attention/[kv](_lora)?/", path) else asked(stage, path)
    images = s.rows * s.images
    if component == "contrast_head":
        return s.rows
    if component in ("encoder", "projector"):
        if few:
            return images * few
        if component == "projector":
            return images * (read(stage) if re.search(OF_IMAGE, path) else parts(stage)["projector"].config.tokens(read(stage)))
        encoder = parts(stage)["encoder"].config
        return images * (encoder.tokens_per_image + (encoder.class_token and name.startswith("layers/")))
    return s.rows * (few or s.length if name.startswith("layers/") else s.targets)


def read(stage: build.Stage) -> int:
    """How many vectors of an image the projector reads."""
    return stage.shape.features.patches if stage.shape.features else parts(stage)["projector"].config.reads(parts(stage)["encoder"].config)


def asked(stage: build.Stage, path: str) -> int:
    """Of a leaf of a last block that is computed for some tokens alone, how many of a sequence they are; 0 for any other."""
    name = path.split("/")[0]
    module = parts(stage).get(name)
    if not getattr(module, "asked_only", False) or not path.startswith(f"{name}/layers/{sum(module.segments) - 1}/"):
        return 0
    return 1 if name == "encoder" else stage.shape.targets


def attends(stage: build.Stage, component: str) -> tuple[int, int, int]:
    """Sequences of one step, their length, and heads times head size."""
    config, s = parts(stage)[component].config, stage.shape
    if component == "encoder":
        return s.rows * s.images, config.tokens_per_image + config.class_token, config.width
    if component == "projector":
        return s.rows * s.images, config.queries, config.width
    return s.rows, s.length, config.heads * config.head_dim if hasattr(config, "head_dim") else config.width
