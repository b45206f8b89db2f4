"""A stage's config → module, labels, optimizer, abstract state, shardings and step. Touches no data and no device."""
import contextlib
import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from vlmjax import kernels, losses, optim, param_rules, sharding, stacks
from vlmjax.data import batch as batches
from vlmjax.errors import UserError, did_you_mean
from vlmjax.models import clip, decoder, param_shapes, projector, vit
from vlmjax.models.attention import BySegments
from vlmjax.models.parts import split_over
from vlmjax.models.vlm import VLM
from vlmjax.train import apart, state, step
from vlmjax.train.settings import CompileConfig, Component, ModelConfig, Precision, StageConfig


# The last layer of a decoder is computed for the supervised places alone where that leaves out this share of all tokens of all layers; for less, a segment more is
# not worth compiling.
ASKED_FROM = 0.05


@dataclasses.dataclass(frozen=True)
class Stage:
    """Everything a stage computes with. `step` is what the loop runs and the proofs look at. encoder: of a stage that reads features; it is none of its components."""

    name: str
    config: StageConfig
    steps: int
    mesh: Mesh
    shape: batches.BatchShape
    model: Any  # VLM or CLIP
    labels: dict[str, optim.Label]
    loss: step.Loss
    optimizer: optax.GradientTransformation
    step: Callable
    abstract: state.TrainState  # ShapeDtypeStructs with shardings
    components: tuple[str, ...]
    attention: str  # of the language model, in words; empty without one
    encoder: apart.Encoder | None = None

    @property
    def by_segments(self) -> bool:
        """Whether its attention reads segments alone, so that its rows may have neither parents nor a prefix."""
        return isinstance(getattr(getattr(self.model, "decoder", None), "attend", None), BySegments)

    @property
    def reads(self) -> tuple[str, ...]:
        """The components that what it learns hangs on."""
        return (*self.components, *(("encoder",) if self.encoder else ()))

    @property
    def params(self) -> dict[str, jax.ShapeDtypeStruct]:
        """{path in memory: abstract leaf}, learned and frozen."""
        return {**param_rules.flatten(self.abstract.learned.trainable), **param_rules.flatten(self.abstract.frozen)}

    @functools.cached_property
    def unsharded(self) -> sharding.Unsharded:
        return sharding.unsharded(self.params, self.abstract.learned.opt_state, self.mesh)

    def abstract_batch(self) -> dict[str, jax.ShapeDtypeStruct]:
        place = sharding.batch(self.mesh)
        return {k: jax.ShapeDtypeStruct(dims, dtype, sharding=place) for k, (dims, dtype) in batches.spec(self.config.objective, self.shape).items()}

    @functools.cached_property
    def traced(self) -> jax.stages.Traced:
        """(learned, frozen, batch) → (learned, metrics), for exactly these shapes; `learned` is donated. What is proven of it is what runs."""
        with context(self.mesh):
            out = jax.tree.map(lambda leaf: leaf.sharding, self.abstract.learned)
            step_fn = jax.jit(self.step, donate_argnums=0, out_shardings=(out, sharding.replicated(self.mesh)))
            return step_fn.trace(self.abstract.learned, self.abstract.frozen, self.abstract_batch())

    def lower(self) -> jax.stages.Lowered:
        with context(self.mesh):
            return self.traced.lower()

    def compile(self) -> Callable:
        """The program of `lower`, compiled once."""
        with context(self.mesh):
            return self.lower().compile(kernels.compiler_options(self.mesh.devices.flat[0].platform, vars(self.model).values()))


@contextlib.contextmanager
def context(mesh: Mesh):
    """Names of activation axes in the models mean axes of this mesh."""
    with mesh, jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(sharding.ACTIVATIONS):
        yield


def modules(config: ModelConfig, vocabulary: int, compute: str, compiled: CompileConfig = CompileConfig(),
            checkpoints: Mapping[str, Mapping[str, Any]] = {}, added: tuple[int, int] | None = None) -> dict[str, nn.Module]:
    """{component: module}, each with all its layers in one segment. `vocabulary`: of the tokenizer; `added`: (first id, how many) of the tokens a run adds to it. `checkpoints`: {component that has
    weights: {component: sizes} of what they are of}."""
    def variant(component, table, where):
        if component.variant and component.variant not in table or not (component.variant or where in checkpoints):
            raise UserError(f"model.{where}.variant: {component.variant!r} is not known{did_you_mean(component.variant, table)}")
        sizes, stored = table.get(component.variant), None
        if where in checkpoints:
            if where not in checkpoints[where]:
                raise UserError(f"model.{where}.weights: {component.weights} holds no {where}, it has {', '.join(checkpoints[where])}")
            stored = checkpoints[where][where]
        if sizes and component.vocab:
            sizes = dataclasses.replace(sizes, vocab=vocabulary - (added[1] if added else 0) if component.vocab == -1 else component.vocab)
        if stored:
            differ = [f"{key} {b}, not {a}" for key, a in vars(sizes or stored).items() if key not in ("mean", "std", "feature_layer", "lora", "added") and a != (b := vars(stored).get(key))]
            if differ:
                raise UserError(f"model.{where}: {component.weights} has {', '.join(differ)} (variant '' takes the checkpoint's sizes)")
            sizes = stored
        if added and where == "decoder":
            if sizes.added:
                raise UserError(f"model.{where}: {component.weights} has added tokens of its own; join them first: vlmjax convert --model={component.weights} --to=DIR")
            if added[0] > sizes.vocab:
                raise UserError(f"model.{where}: its vocabulary of {sizes.vocab} is smaller than the tokenizer's {added[0]}")
            sizes = dataclasses.replace(sizes, added=added)
        known = getattr(sizes, "vocabulary", getattr(sizes, "vocab", vocabulary))
        if known < vocabulary:
            raise UserError(f"model.{where}: its vocabulary of {known} is smaller than the tokenizer's {vocabulary}")
        if component.feature_layer is not None:
            if not hasattr(sizes, "feature_layer") or not -sizes.layers <= component.feature_layer <= -1:
                raise UserError(f"model.{where}.feature_layer: {component.feature_layer} is not one of -{getattr(sizes, 'layers', 0)} … -1")
            sizes = dataclasses.replace(sizes, feature_layer=component.feature_layer)
        if component.lora:
            if not hasattr(sizes, "projections"):
                raise UserError(f"model.{where}.lora: adapters go beside the projections of layers, and a {where} has none")
            component.lora.check(f"model.{where}.lora", sizes.projections)
            if sizes.lora not in (None, component.lora):
                raise UserError(f"model.{where}.lora: {component.weights} has other adapters ({sizes.lora}); merge them first: vlmjax convert --model={component.weights} --to=DIR")
            sizes = dataclasses.replace(sizes, lora=component.lora)
        return sizes

    options = dict(dtype=jnp.dtype(compute), unroll=compiled.unroll or True, remat=compiled.remat)
    out = {}
    if config.decoder:
        language = variant(config.decoder, decoder.VARIANTS, "decoder")
        out["decoder"] = decoder.Decoder(language, segments=(language.layers,), **options)
    if config.encoder:
        sizes = variant(config.encoder, vit.VARIANTS, "encoder")
        out["encoder"] = vit.ViT(sizes, segments=(sizes.layers,), **options)
        if config.projector:
            if not config.decoder:
                raise UserError("model.projector: leads to a language model, and the config has no model.decoder")
            kind = variant(config.projector, projector.VARIANTS, "projector")
            out["projector"] = projector.make(kind, sizes.width, language.width, **options)
        if config.text_tower:
            text = variant(config.text_tower, clip.VARIANTS, "text_tower")
            out["text_tower"] = clip.TextTower(text, segments=(text.layers,), **options)
            out["contrast_head"] = clip.ContrastHead(vision_width=sizes.width, text_width=text.width, joint=text.joint, eps=sizes.eps)
    return out


def needed(available: dict[str, nn.Module], objective: str, images: int, where: str) -> dict[str, nn.Module]:
    """The components an objective computes, the encoder cut to the blocks and tokens it uses."""
    names = ("encoder", "text_tower", "contrast_head") if objective == "contrastive" else ("encoder", "projector", "decoder") if images else ("decoder",)
    if missing := [name for name in names if name not in available]:
        raise UserError(f"{where}: the objective {objective} needs model.{missing[0].replace('contrast_head', 'text_tower')}, which the config lacks")
    out = {name: available[name] for name in names}
    if objective == "next_token" and images:
        out["encoder"] = out["encoder"].clone(segments=(out["encoder"].config.feature_blocks,))
    if objective == "contrastive":
        out["encoder"] = out["encoder"].clone(asked_only=out["encoder"].config.class_token)
    return out


def batch_shape(config: StageConfig, encoder: Any) -> batches.BatchShape:
    """`encoder`: its config, or None for a model without images."""
    return batches.BatchShape(rows=config.batch, length=config.length, images=config.images, targets=config.targets, size=encoder.size if encoder and config.images else 0)


def join(parts: dict[str, nn.Module]) -> Any:
    """{component: module} → CLIP or VLM."""
    if "text_tower" in parts:
        return clip.CLIP(**parts)
    return VLM(encoder=parts.get("encoder"), projector=parts.get("projector"), decoder=parts["decoder"])


def abstract_params(parts: Mapping[str, nn.Module]) -> dict[str, jax.ShapeDtypeStruct]:
    """{path in memory: abstract leaf} of all components, float32. Each stack is traced in one segment, which takes a fraction of the
    time, and cut afterwards."""
    out = {}
    for name, module in parts.items():
        one = {"segments": (sum(module.segments),)} if hasattr(module, "segments") else {}
        whole = module.clone(**one, **({"asked_only": False} if getattr(module, "asked_only", False) else {}))  # with it the last block must stand alone
        flat = param_rules.flatten({name: param_shapes(whole)})
        for path, leaf in flat.items():
            if not stacks.is_stacked(path):
                out[path] = leaf
                continue
            for start, stop in stacks.segment_bounds(module.segments):
                own = path.replace(f"layers/{stacks.segment_name(0, sum(module.segments))}/", f"layers/{stacks.segment_name(start, stop)}/")
                out[own] = jax.ShapeDtypeStruct((stop - start, *leaf.shape[1:]), leaf.dtype)
    return out


def recut(parts: dict[str, nn.Module], labels: dict[str, Any]) -> dict[str, nn.Module]:
    """The same modules with their stacks cut where labels differ, and before a last block that computes fewer tokens than the others."""
    alone = tuple(f"{name}/layers/{sum(module.segments) - 1}/" for name, module in parts.items() if getattr(module, "asked_only", False))
    lengths = stacks.cut({path: (label, path.startswith(alone)) for path, label in labels.items()})
    return {name: module.clone(segments=lengths[f"{name}/layers"]) if f"{name}/layers" in lengths else module for name, module in parts.items()}


def loss_of(model: Any, objective: str) -> step.Loss:
    if objective == "contrastive":
        def loss(params, batch, key=None):
            image = model.image_features(params, batch["pixels"], key)
            text = model.text_features(params, batch["tokens"], batch["segments"], key)
            return losses.contrastive(image, text, model.logit_scale(params), batch["pair"], batch["image_mask"][:, 0])
    else:
        def loss(params, batch, key=None):
            (B, S), (axes, groups), head = batch["targets"].shape, split_over("batch"), jax.eval_shape(model.head, params)
            split = losses.Split(groups if B % groups == 0 else 1, axes, split_over("vocab")[1])
            chunks = losses.chunks(B, S, model.decoder.config.vocabulary, sum(kernel.size for kernel in head.values()), split)
            supervised = batch["targets"], batch["weights"]
            if chunks == 1:
                return losses.next_token(model.logits(params, batch, key), *supervised)
            return losses.next_token_in_chunks(functools.partial(decoder.read, model.decoder.config), model.head(params), model.supervised(params, batch, key), *supervised, chunks, split)
    return loss


def stage(name: str, config: StageConfig, available: dict[str, nn.Module], precision: Precision, mesh: Mesh, steps: int, seed: int = 0) -> Stage:
    """`available`: from `modules`; `steps`: from config.steps, or counted from config.epochs by who knows the data; `seed`: of dropout."""
    where = f"stages.{name}"
    config.check(where, mesh)
    parts = needed(available, config.objective, config.images, where)
    if "decoder" in parts and (1 - config.targets / config.length) / parts["decoder"].config.layers >= ASKED_FROM:
        parts["decoder"] = parts["decoder"].clone(asked_only=True)
    by_layer = optim.labels(list(stacks.expand(abstract_params(parts))), config.trainable, config.optimizer, where)
    parts = recut(parts, by_layer)
    shape, encoder = batch_shape(config, parts["encoder"].config if "encoder" in parts else None), None
    if config.encode_once:
        module = parts.pop("encoder")
        encoder = apart.encoder(module, abstract_params({"encoder": module}), by_layer, jnp.dtype(precision.frozen), mesh, where)
        by_layer = {path: label for path, label in by_layer.items() if path.split("/")[0] in parts}
        shape = dataclasses.replace(shape, features=batches.Features(parts["projector"].config.reads(module.config), module.config.width, jnp.dtype(module.dtype)))
    computing, attention = kernels.give(parts, config.attention, mesh, config.per_group, f"{where}.attention")
    model = join(computing)
    loss = loss_of(model, config.objective)
    optimizer = optim.make(config.optimizer, by_layer, steps, jnp.dtype(precision.moments))
    abstract = abstract_state(abstract_params(parts), by_layer, optimizer, precision, mesh)
    drops = any(part.config.lora and part.config.lora.dropout for part in parts.values() if hasattr(getattr(part, "config", None), "lora"))
    key = (lambda number: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode())), number)) if drops else None
    program = step.make(loss, optimizer, optim.schedule(config.optimizer, steps), config.accumulate, key)
    made = Stage(name, config, steps, mesh, shape, model, by_layer, loss, optimizer, program, abstract, tuple(parts), attention, encoder)
    sharding.check_unsharded(made.unsharded, config.max_unsharded, made.params, mesh, f"{where}.max_unsharded")
    return made


def abstract_state(params: dict[str, jax.ShapeDtypeStruct], by_layer: dict[str, optim.Label], optimizer: optax.GradientTransformation,
                   precision: Precision, mesh: Mesh) -> state.TrainState:
    """The whole train state as ShapeDtypeStructs with shardings."""
    places = sharding.parameters(params, mesh)
    learns = {path: by_layer[stacks.layer_paths(path)[0]].trainable for path in params}
    typed = {path: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(precision.params if learns[path] else precision.frozen), sharding=places[path])
             for path, leaf in params.items()}
    trainable, frozen = optim.split(param_rules.unflatten(typed), by_layer)
    everywhere = sharding.replicated(mesh)
    opt_state = jax.eval_shape(optimizer.init, trainable)
    moving = param_rules.flatten(trainable)
    opt_places = sharding.like_parameters(opt_state, moving, places, mesh)
    opt_state = jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), opt_state, opt_places)
    scalar = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    reached = {p: jax.ShapeDtypeStruct(leaf.shape[:1] if stacks.is_stacked(p) else (), jnp.bool_, sharding=everywhere) for p, leaf in moving.items()}
    return state.TrainState(state.Learned(scalar, trainable, opt_state, reached, scalar), frozen)
