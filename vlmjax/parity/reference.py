"""The other side of the comparison: transformers 5 on the CPU, eager attention, float32, under the keys of ours.py.

Needs the extra [torch]; everything of it is imported inside functions, so that importing this file needs nothing.
"""
import functools
import io
import os
from typing import Any

import numpy as np

from vlmjax.errors import UserError

NEW_TOKENS = 12
IGNORED = -100  # a label that transformers' losses leave out
Arrays = dict[str, np.ndarray]

# Names of LLaVA's parameters in memory → in the files that transformers writes; the first prefix that fits.
_LLAVA_FILES = (("model.language_model.", "language_model.model."), ("lm_head.", "language_model.lm_head."),
                ("model.multi_modal_projector.", "multi_modal_projector."))


def run(directory: str | os.PathLike, family: str, cases: Any) -> Arrays:
    """Everything that transformers computes of the checkpoint in `directory`, from the bytes and texts of `cases` (cases.py, or whatever
    has its names). family: clip, llama, mistral, qwen2, llava, internvl or blip-2. UserError without torch and transformers 5.

    clip: `pixels/NAME` u8[h, w, 3] after resize and crop ([n, h, w, 3] of an image that is cut into several tiles), `normalised/NAME` f32 of that shape, `tokens/I` i32[T], `vision_hidden/K`
    f32[N, P+1, E], `text_hidden/K` f32[n, T, E] (0 behind a text's end), `image_features` f32[N, J], `text_features` f32[n, J],
    `logits` f32[N, n] per image, `loss` f32[] of the first min(N, n) of both.

    llama, mistral, qwen2: `tokens/I` i32[T] of the prompts and then of the texts, `hidden/K` f32[1, T, D] of the first prompt (the input of each block,
    then the output after the final norm), `logits/I` f32[T, V], `greedy/I` i32[n] and `text/I`, its UTF-8, u8[bytes]; `loss` f32[] of the
    first answer after the first prompt.

    llava, internvl, blip-2: as llama with the prompts that have images, `tokens/I` after their expansion; `pixels`, `normalised` and `vision_hidden` as clip, the
    latter up to the layer that is used; `image_tokens` f32[N, P, D]. N: images, each tile of one.

    `gradient/NAME`: of the loss, by the name of the parameter in the checkpoint; the vision tower of a vision-language model is frozen.
    """
    readers = {"clip": _clip, "llama": _language_model, "mistral": _language_model, "qwen2": _language_model, "llava": _llava, "internvl": _internvl, "blip-2": _blip2}
    if family not in readers:
        raise UserError(f"parity: there is no reference for {family!r}, only for {', '.join(readers)}")
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise UserError(f"parity: the reference needs {error.name or 'torch and transformers'}: pip install vlmjax[torch]") from None
    if int(transformers.__version__.split(".")[0]) < 5:
        raise UserError(f"parity: the reference is transformers 5 and {transformers.__version__} is installed: pip install vlmjax[torch]")
    return {key: _array(value) for key, value in readers[family](os.fspath(directory), cases).items()}


def _clip(directory: str, cases: Any) -> dict[str, Any]:
    import torch
    import transformers

    model = _model(transformers.CLIPModel, directory)
    out, pixels = _processed(directory, cases)
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    out |= {f"tokens/{i}": tokenizer(text).input_ids for i, text in enumerate(cases.TEXTS)}
    texts = tokenizer(list(cases.TEXTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        out |= _numbered("vision_hidden", model.vision_model(pixels, output_hidden_states=True).hidden_states)
        real = texts["attention_mask"][..., None].bool()
        out |= _numbered("text_hidden", [state.where(real, 0.0) for state in model.text_model(**texts, output_hidden_states=True).hidden_states])
        out["image_features"] = _projected(model.get_image_features(pixel_values=pixels))
        out["text_features"] = _projected(model.get_text_features(**texts))
        out["logits"] = model(pixel_values=pixels, **texts).logits_per_image
    n = min(len(pixels), len(cases.TEXTS))
    loss = model(pixel_values=pixels[:n], **{key: value[:n] for key, value in texts.items()}, return_loss=True).loss
    return out | _loss_and_gradient(model, loss)


def _language_model(directory: str, cases: Any) -> dict[str, Any]:
    import transformers

    model = _model(transformers.AutoModelForCausalLM, directory)
    return _answers(model, directory, prompts(directory, "llama", cases), cases)


def _llava(directory: str, cases: Any) -> dict[str, Any]:
    import torch
    import transformers

    model = _model(transformers.LlavaForConditionalGeneration, directory)
    model.model.vision_tower.requires_grad_(False)
    out, pixels = _processed(directory, cases)
    with torch.no_grad():
        states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        # Blocks above the layer that is read have no effect, and vlmjax neither computes nor holds them.
        used = states[: len(states) + model.config.vision_feature_layer + 1]
        out |= _numbered("vision_hidden", used)
        out["image_tokens"] = torch.stack(list(_projected(model.get_image_features(pixel_values=pixels))))
    return out | _answers(model, directory, prompts(directory, "llava", cases), cases, _LLAVA_FILES)


def _internvl(directory: str, cases: Any) -> dict[str, Any]:
    """Its processor has one for videos and so needs torchvision: its two halves are called apart."""
    import torch
    import transformers

    model = _model(transformers.InternVLForConditionalGeneration, directory)
    model.model.vision_tower.requires_grad_(False)
    out, pixels = _processed(directory, cases, "internvl")
    with torch.no_grad():
        tower = model.model.vision_tower
        out |= _numbered("vision_hidden", [tower.embeddings(pixels), *_after_each(tower.encoder.layer, lambda: tower(pixels))])
        out["image_tokens"] = _projected(model.get_image_features(pixel_values=pixels))
    return out | _answers(model, directory, prompts(directory, "internvl", cases), cases, _LLAVA_FILES)


def _blip2(directory: str, cases: Any) -> dict[str, Any]:
    import torch
    import transformers

    model = _model(transformers.Blip2ForConditionalGeneration, directory)
    model.vision_model.requires_grad_(False)
    out, pixels = _processed(directory, cases)
    with torch.no_grad():
        tower = model.vision_model
        out |= _numbered("vision_hidden", [tower.embeddings(pixels), *_after_each(tower.encoder.layers, lambda: tower(pixels))])
        out["image_tokens"] = _projected(model.get_image_features(pixel_values=pixels))
    return out | _answers(model, directory, prompts(directory, "blip-2", cases), cases)


def _after_each(layers: Any, run: Any) -> list[Any]:
    """What each layer puts out while `run()` runs."""
    states: list[Any] = []
    handles = [layer.register_forward_hook(lambda _, __, output: states.append(output)) for layer in layers]
    run()
    for handle in handles:
        handle.remove()
    return states


def prompts(directory: str, family: str, cases: Any) -> list[dict[str, Any]]:
    """The model's inputs for each prompt, as torch tensors with a batch of 1, made by its tokenizer (by its processor where there are images)."""
    import transformers

    if family not in ("llava", "internvl", "blip-2"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        return [dict(tokenizer(prompt, return_tensors="pt")) for prompt in cases.PROMPTS]
    if expand := {"internvl": _internvl_prompt, "blip-2": _blip2_prompt}.get(family):
        return [expand(directory, prompt, [_upright(cases.images()[name]) for name in names]) for prompt, names in cases.IMAGE_PROMPTS]
    processor, files = transformers.AutoProcessor.from_pretrained(directory), cases.images()
    processor.image_processor = _image_processor(directory)
    return [dict(processor(images=[_upright(files[name]) for name in names] or None, text=[prompt], return_tensors="pt")) for prompt, names in cases.IMAGE_PROMPTS]


def _internvl_prompt(directory: str, prompt: str, images: list[Any]) -> dict[str, Any]:
    """What InternVLProcessor makes of it (transformers/models/internvl/processing_internvl.py: replace_image_token)."""
    import transformers

    tokenizer, config = transformers.AutoTokenizer.from_pretrained(directory), transformers.AutoConfig.from_pretrained(directory)
    seen = dict(_image_processor(directory, "internvl")(images, return_tensors="pt")) if images else {}
    for count in seen.pop("num_patches", []):
        tokens = tokenizer.context_image_token * config.image_seq_length * int(count)
        prompt = prompt.replace("<image>", f"{tokenizer.start_image_token}{tokens}{tokenizer.end_image_token}", 1)
    return dict(tokenizer(prompt, return_tensors="pt")) | seen


def _blip2_prompt(directory: str, prompt: str, images: list[Any]) -> dict[str, Any]:
    """Its processor puts an image before all text; the model reads it wherever the image tokens stand, and asks for one even where there are none."""
    import torch
    import transformers

    tokenizer, config = transformers.AutoTokenizer.from_pretrained(directory), transformers.AutoConfig.from_pretrained(directory)
    size = config.vision_config.image_size
    seen = dict(_image_processor(directory)(images, return_tensors="pt")) if images else {"pixel_values": torch.zeros(1, 3, size, size)}
    return dict(tokenizer(prompt.replace("<image>", "<image>" * config.num_query_tokens), return_tensors="pt")) | seen


def _model(kind: Any, directory: str) -> Any:
    import torch

    return kind.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()


def _upright(data: bytes) -> Any:
    """What transformers makes of a file: turned by its EXIF orientation, RGB, transparency dropped."""
    from PIL import Image
    from transformers.image_utils import load_image

    return load_image(Image.open(io.BytesIO(data)))


def _image_processor(directory: str, family: str = "") -> Any:
    """Pillow's: the default ones resample with torchvision, which rounds differently. InternVL's cuts images into tiles whatever its file says: its processor asks
    for it at every call (processing_internvl.py: images_kwargs)."""
    import transformers

    processor = transformers.AutoImageProcessor.from_pretrained(directory, backend="pil")
    return functools.partial(processor, crop_to_patches=True) if family == "internvl" else processor


def _processed(directory: str, cases: Any, family: str = "") -> tuple[dict[str, Any], Any]:
    """→ (`pixels` and `normalised` of all images, torch f32[N, 3, h, w] of the model's, tile after tile)."""
    import torch

    processor = _image_processor(directory, family)
    out, ready = {}, {}
    for name, data in cases.images().items():
        image = _upright(data)
        pixels = np.asarray(processor(image, do_rescale=False, do_normalize=False)["pixel_values"])
        ready[name] = np.asarray(processor(image)["pixel_values"], np.float32)
        for stage, values in (("pixels", pixels), ("normalised", ready[name])):
            out[f"{stage}/{name}"] = np.squeeze(values.transpose(0, 2, 3, 1), axis=0 if len(values) == 1 else ())
    return out, torch.from_numpy(np.concatenate([ready[name] for name in cases.MODEL_IMAGES]))


def _answers(model: Any, directory: str, inputs: list[dict[str, Any]], cases: Any, files: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    """Tokens, states, logits and greedy text of each prompt; loss and gradient of the first answer, tokens of the texts."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    # A config of its own: a checkpoint's may sample or punish repetition.
    greedy = transformers.GenerationConfig(do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=ends or None, pad_token_id=ends[0] if ends else 0)
    out: dict[str, Any] = {}
    with torch.no_grad():
        for i, one in enumerate(inputs):
            out[f"tokens/{i}"] = one["input_ids"][0]
            result = model(**one, output_hidden_states=i == 0, use_cache=False)
            out[f"logits/{i}"] = result.logits[0]
            if i == 0:
                out |= _numbered("hidden", getattr(result, "language_model_outputs", result).hidden_states)
            ids = model.generate(**one, generation_config=greedy)[0, one["input_ids"].shape[1] :].tolist()
            ids = ids[: next((n + 1 for n, id_ in enumerate(ids) if id_ in ends), len(ids))]
            out[f"greedy/{i}"] = ids
            out[f"text/{i}"] = np.frombuffer(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).encode(), np.uint8)
    out |= {f"tokens/{len(inputs) + i}": tokenizer(text).input_ids for i, text in enumerate(cases.TEXTS)}
    return out | _loss_and_gradient(model, _answer_loss(model, tokenizer, inputs[0], cases.ANSWERS[0]), files)


def _answer_loss(model: Any, tokenizer: Any, one: dict[str, Any], answer: str) -> Any:
    """The mean cross-entropy over the tokens of `answer`, encoded on their own, after a prompt."""
    import torch

    more = torch.tensor([tokenizer(answer, add_special_tokens=False).input_ids])
    ids = torch.cat([one["input_ids"], more], 1)
    labels = torch.cat([torch.full_like(one["input_ids"], IGNORED), more], 1)
    # What else the model was given: pixels, and masks that are all ones.
    rest = {key: value for key, value in one.items() if key == "pixel_values"}
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels, use_cache=False, **rest).loss


def _loss_and_gradient(model: Any, loss: Any, files: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    loss.backward()
    out = {"loss": loss}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            memory, file = next(((memory, file) for memory, file in files if name.startswith(memory)), ("", ""))
            out[f"gradient/{file}{name.removeprefix(memory)}"] = parameter.grad
    return out


def _projected(output: Any) -> Any:
    """transformers 5 returns an output object, whose pooled field is projected too; 4 returned the tensor."""
    return getattr(output, "pooler_output", output)


def _numbered(name: str, states: Any) -> dict[str, Any]:
    return {f"{name}/{k}": state for k, state in enumerate(states)}


def _array(value: Any) -> np.ndarray:
    """→ numpy, of the dtypes that the keys promise: integers are i32, floats f32, bytes stay."""
    array = np.asarray(value.detach().numpy() if hasattr(value, "detach") else value)
    return array if array.dtype == np.uint8 else array.astype(np.float32 if array.dtype.kind == "f" else np.int32)
