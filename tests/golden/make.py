"""Makes the golden files: tiny random checkpoints as transformers 5 writes them, and what transformers computes with them.

`PYTHONPATH=. python tests/golden/make.py [FAMILY ...]` in an environment with torch and transformers 5 writes FAMILY/model/ and FAMILY/reference.npz
next to this file; the tests read them without either. `sentencepiece` makes a tokenizer.model and its ids, and needs that package too. `internvl_chat`, which transformers does not
have, is computed by its own code (opengvlab.py), and needs INTERNVL=CHECKOUT.
"""
import json
import pathlib
import shutil
import sys
import types

import numpy as np
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.golden import opengvlab
from vlmjax.parity import cases, reference

HERE = pathlib.Path(__file__).parent
MARGIN = 1e-3  # between the two largest logits at each greedy step: far above float32's noise, so that every machine picks the same
SIZE, PATCH, TILES = 28, 7, 4
VISION = dict(image_size=SIZE, patch_size=PATCH, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48, hidden_act="quick_gelu")
TEXT = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, max_position_embeddings=32, hidden_act="quick_gelu")
LANGUAGE = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, max_position_embeddings=256)
SENTENCES = (
    "A photo of three red squares and two blue circles on a white table.",
    "How many circles are in the picture? There are 12 circles and 3 squares.",
    "The cat sat on the mat, and the dog slept under the old chair by the door.",
    "It's a cold day; they'll see what we've done and what isn't ready.",
    "USER: Which is larger, the first or the second? ASSISTANT: The second one is larger.",
    "What's this? This is a small boat with a green sail on the lake.",
    "The answer is yes. The answer is no. The colour is yellow, orange or black.",
    "A leading space, a new line and a long question about many small things.",
)


# --- tokenizers -----------------------------------------------------------------------------------------------------------------


def trained(backend: tokenizers.Tokenizer, size: int, **options) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """→ (vocabulary, merges) of `size` entries or as many as the sentences yield; alphabet first, then merges by rank."""
    backend.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=size, show_progress=False, min_frequency=2, **options))
    model = json.loads(backend.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def clip_tokenizer() -> transformers.CLIPTokenizer:
    """Lower-casing BPE over bytes with `</w>`: all bytes, all bytes at a word's end, merges, and the two special tokens last, as in OpenAI's."""
    like = transformers.CLIPTokenizer().backend_tokenizer  # its normaliser and its splitting
    backend = tokenizers.Tokenizer(models.BPE(continuing_subword_prefix="", end_of_word_suffix="</w>"))
    backend.normalizer, backend.pre_tokenizer = like.normalizer, like.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    last = [byte + "</w>" for byte in alphabet]
    # Named as special tokens they have fixed ids while training, which breaks ties between merges the same way each time.
    _, merges = trained(backend, 580, initial_alphabet=alphabet, end_of_word_suffix="</w>", special_tokens=last)
    tokens = [*alphabet, *last, *(left + right for left, right in merges), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=merges, model_max_length=TEXT["max_position_embeddings"])


def llama_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """SentencePiece's order: special tokens, the 256 bytes, merges, characters."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    # A piece may not cross a space, as in the published vocabularies; while encoding nothing is split.
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="never")
    found, merges = trained(backend, 200)
    joined = [left + right for left, right in merges]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *joined, *(token for token in found if len(token) == 1)]
    return {token: i for i, token in enumerate(tokens)}, merges


def llama_tokenizer() -> transformers.LlamaTokenizer:
    vocabulary, merges = llama_vocabulary()
    return transformers.LlamaTokenizer(vocab=vocabulary, merges=merges, add_bos_token=True, model_max_length=LANGUAGE["max_position_embeddings"])


def llava_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """The same pieces with the normaliser of the published file (Vicuna's): transformers uses it as it stands for llava, and replaces it by a
    Metaspace splitter for llama. `<image>` and `<pad>` are added behind the vocabulary."""
    vocabulary, merges = llama_vocabulary()
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special = lambda token: tokenizers.AddedToken(token, special=True, normalized=False)
    backend.add_special_tokens([special(token) for token in ("<unk>", "<s>", "</s>", "<image>", "<pad>")])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="left",
        extra_special_tokens={"image_token": "<image>"}, clean_up_tokenization_spaces=False, model_max_length=LANGUAGE["max_position_embeddings"])  # fmt: skip


def qwen2_tokenizer() -> transformers.Qwen2Tokenizer:
    """Byte-level BPE: the 256 bytes, merges, three special tokens."""
    like = transformers.Qwen2Tokenizer().backend_tokenizer
    backend = tokenizers.Tokenizer(models.BPE())
    backend.normalizer, backend.pre_tokenizer = like.normalizer, like.pre_tokenizer
    vocabulary, merges = trained(backend, 400, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer = transformers.Qwen2Tokenizer(vocab=vocabulary | {"<|endoftext|>": len(vocabulary)}, merges=merges, model_max_length=LANGUAGE["max_position_embeddings"],
                                            extra_special_tokens=["<|im_start|>", "<|im_end|>"])
    tokenizer.eos_token = "<|im_end|>"
    return tokenizer


# --- models ---------------------------------------------------------------------------------------------------------------------

def randomised(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Sets every parameter: nothing stays at 0 or 1, where a forgotten bias or scale would not show."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            shape = tuple(parameter.shape)
            if name.endswith("logit_scale"):
                value = np.array(1.9)
            elif name.endswith(".bias"):
                value = rng.uniform(-0.3, 0.3, shape)
            elif "embed" in name and "patch" not in name:  # tokens, positions, class token
                value = rng.normal(0, 0.7, shape)
            elif len(shape) == 1:
                value = 1 + rng.uniform(-0.3, 0.3, shape)
            else:  # wide enough that attention has favourites and logits have a clear winner
                value = rng.normal(0, 1.6 / np.prod(shape[1:]) ** 0.5, shape)
            parameter.copy_(torch.from_numpy(np.asarray(value, np.float32)))
    return model.eval()


def save_clip(directory: pathlib.Path, seed: int) -> None:
    tokenizer = clip_tokenizer()
    text = transformers.CLIPTextConfig(vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
                                       pad_token_id=tokenizer.pad_token_id, projection_dim=16, **TEXT)
    config = transformers.CLIPConfig(text_config=text, vision_config=transformers.CLIPVisionConfig(projection_dim=16, **VISION), projection_dim=16)
    randomised(transformers.CLIPModel(config), seed).save_pretrained(directory)
    images = transformers.CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(directory)


def save_llama(directory: pathlib.Path, seed: int) -> None:
    tokenizer = llama_tokenizer()
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), head_dim=8, rms_norm_eps=1e-5, bos_token_id=tokenizer.bos_token_id,
                                      eos_token_id=tokenizer.eos_token_id, **LANGUAGE)
    randomised(transformers.LlamaForCausalLM(config), seed).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def save_qwen2(directory: pathlib.Path, seed: int) -> None:
    tokenizer = qwen2_tokenizer()
    # Published ones: a padded table, and a base without BOS whose generation stops at either end.
    config = transformers.Qwen2Config(vocab_size=-(-len(tokenizer) // 8) * 8 + 8, tie_word_embeddings=True, rms_norm_eps=1e-6, bos_token_id=tokenizer.pad_token_id,
                                      eos_token_id=tokenizer.eos_token_id, rope_parameters={"rope_type": "default", "rope_theta": 1e6}, **LANGUAGE)
    model = randomised(transformers.Qwen2ForCausalLM(config), seed)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def save_mistral(directory: pathlib.Path, seed: int) -> None:
    """Its window is shorter than every prompt and answer."""
    tokenizer = llama_tokenizer()
    config = transformers.MistralConfig(vocab_size=len(tokenizer), head_dim=8, rms_norm_eps=1e-5, sliding_window=5, bos_token_id=tokenizer.bos_token_id,
                                        eos_token_id=tokenizer.eos_token_id, **LANGUAGE)
    randomised(transformers.MistralForCausalLM(config), seed).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def save_llava(directory: pathlib.Path, seed: int) -> None:
    tokenizer = llava_tokenizer()
    padded = -(-len(tokenizer) // 8) * 8 + 8  # llava-1.5-7b-hf has 32064 rows for 32002 tokens
    text = transformers.LlamaConfig(vocab_size=padded, head_dim=8, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, pad_token_id=tokenizer.pad_token_id, **LANGUAGE)
    config = transformers.LlavaConfig(vision_config=transformers.CLIPVisionConfig(projection_dim=16, **VISION), text_config=text, vision_feature_layer=-2,
                                      image_token_index=tokenizer.convert_tokens_to_ids("<image>"), image_seq_length=(SIZE // PATCH) ** 2)
    randomised(transformers.LlavaForConditionalGeneration(config), seed).save_pretrained(directory)
    images = transformers.LlavaImageProcessorPil(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})
    processor = transformers.LlavaProcessor(images, tokenizer, patch_size=PATCH, vision_feature_select_strategy="default", num_additional_image_tokens=1)
    processor.save_pretrained(directory)


def save_internvl(directory: pathlib.Path, seed: int) -> None:
    """As OpenGVLab's `-hf` checkpoints: a Qwen2 whose table has the marks around an image's tokens, and images in up to four tiles and a thumbnail."""
    special = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    base = qwen2_tokenizer()
    base.add_special_tokens({"extra_special_tokens": [*base.extra_special_tokens, *special.values()]})
    base.save_pretrained(directory)
    tokenizer = transformers.Qwen2Tokenizer.from_pretrained(directory, extra_special_tokens=special)
    tokenizer.chat_template = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}"
                               "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")
    text = transformers.Qwen2Config(vocab_size=-(-len(tokenizer) // 8) * 8 + 8, tie_word_embeddings=False, rms_norm_eps=1e-6, bos_token_id=tokenizer.pad_token_id,
                                    eos_token_id=tokenizer.eos_token_id, rope_parameters={"rope_type": "default", "rope_theta": 1e6}, **LANGUAGE)
    vision = transformers.InternVLVisionConfig(image_size=[SIZE, SIZE], patch_size=[PATCH, PATCH], hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
                                               attention_bias=True)
    config = transformers.InternVLConfig(vision_config=vision, text_config=text, image_token_id=tokenizer.context_image_token_id, image_seq_length=(SIZE // PATCH // 2) ** 2,
                                         tie_word_embeddings=False)
    model = randomised(transformers.InternVLForConditionalGeneration(config), seed)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.save_pretrained(directory)
    images = transformers.GotOcr2ImageProcessorPil(size={"height": SIZE, "width": SIZE}, max_patches=TILES, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    images.save_pretrained(directory)  # a whole InternVLProcessor has one for videos, which needs torchvision
    tokenizer.save_pretrained(directory)


def save_blip2(directory: pathlib.Path, seed: int) -> None:
    """MiniGPT-4's build: a Llama behind the Q-Former."""
    tokenizer = llava_tokenizer()
    text = transformers.LlamaConfig(vocab_size=-(-len(tokenizer) // 8) * 8 + 8, head_dim=8, rms_norm_eps=1e-6, bos_token_id=1, eos_token_id=2, pad_token_id=tokenizer.pad_token_id, **LANGUAGE)
    vision = transformers.Blip2VisionConfig(**VISION | {"hidden_act": "gelu"}, layer_norm_eps=1e-6)
    queries = transformers.Blip2QFormerConfig(hidden_size=24, num_hidden_layers=4, num_attention_heads=3, intermediate_size=40, vocab_size=8, max_position_embeddings=8)
    config = transformers.Blip2Config(vision_config=vision.to_dict(), qformer_config=queries.to_dict(), text_config=text.to_dict(), num_query_tokens=5,
                                      image_token_index=tokenizer.convert_tokens_to_ids("<image>"))
    model = randomised(transformers.Blip2ForConditionalGeneration(config), seed)
    with torch.no_grad():  # attention adds much the same to all queries: of more of it they become alike, and the gradients of their attention nothing but rounding
        for layer in model.qformer.encoder.layer:
            for attention in (layer.attention, getattr(layer, "crossattention", None)):
                if attention is not None:
                    attention.output.dense.weight *= 0.3
    model.save_pretrained(directory)
    images = transformers.BlipImageProcessorPil(size={"height": SIZE, "width": SIZE})
    images.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def save_internvl_chat(directory: pathlib.Path, seed: int) -> None:
    opengvlab.save(directory, json.loads(qwen2_tokenizer().backend_tokenizer.to_str())["model"], lambda model: randomised(model, seed))


SAVERS = {"clip": save_clip, "llama": save_llama, "mistral": save_mistral, "qwen2": save_qwen2, "llava": save_llava, "internvl": save_internvl, "internvl_chat": save_internvl_chat,
          "blip-2": save_blip2}


# --- choosing a seed ------------------------------------------------------------------------------------------------------------


def complaint(directory: pathlib.Path, family: str, out: dict[str, np.ndarray], given: types.ModuleType | types.SimpleNamespace) -> str:
    """Why these numbers would make a weak or a fragile test; empty if they would not."""
    if family == "clip":
        top = np.sort(out["logits"], axis=-1)
        return "" if np.ptp(out["logits"]) > 1 and (top[:, -1] - top[:, -2]).min() > 1e-2 else "the logits are alike"
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    answers = [out[key] for key in sorted(out) if key.startswith("greedy/")]
    ordinary = lambda ids: all(id_ < len(tokenizer) and id_ not in tokenizer.all_special_ids for id_ in ids)
    if not all(ordinary(ids[:-1]) and (ordinary(ids[-1:]) or len(ids) < reference.NEW_TOKENS) for ids in answers):
        return "a special or padding token in an answer"
    if min(len(set(ids.tolist())) for ids in answers) < 4:
        return "an answer that repeats itself"
    if all(len(ids) == reference.NEW_TOKENS for ids in answers):
        return "no answer that ends"
    if margin(directory, family, answers, given) < MARGIN:
        return "a greedy step that is nearly a tie"
    return ""


def margin(directory: pathlib.Path, family: str, answers: list[np.ndarray], given: types.ModuleType | types.SimpleNamespace) -> float:
    """The smallest difference of the two largest logits over all greedy steps."""
    own = family == "internvl_chat"
    kind = {"llava": transformers.LlavaForConditionalGeneration, "internvl": transformers.InternVLForConditionalGeneration,
            "blip-2": transformers.Blip2ForConditionalGeneration}.get(family, transformers.AutoModelForCausalLM)
    model = opengvlab.Model(directory) if own else kind.from_pretrained(directory, attn_implementation="eager").eval()
    smallest = np.inf
    for inputs, ids in zip((opengvlab if own else reference).prompts(str(directory), family, given), answers):
        more = torch.from_numpy(ids[None].astype(np.int64))
        inputs = inputs | {"input_ids": torch.cat([inputs["input_ids"], more], 1)}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with torch.no_grad():
            logits = model(**inputs).logits[0, -len(ids) - 1 : -1]
        two, places = logits.topk(2)
        assert places[:, 0].tolist() == ids.tolist(), "generate() did not take the largest logit"
        smallest = min(smallest, float((two[:, 0] - two[:, 1]).min()))
    return smallest


def make(family: str) -> None:
    directory = HERE / family / "model"
    own = family == "internvl_chat"
    given = types.SimpleNamespace(**vars(cases) | {"images": lambda: {name: cases.images()[name] for name in cases.MODEL_IMAGES}}) if own else cases
    for seed in range(1000):
        shutil.rmtree(directory.parent, ignore_errors=True)
        directory.mkdir(parents=True)
        SAVERS[family](directory, seed)
        out = (opengvlab if own else reference).run(directory, family, given)
        if not (problem := complaint(directory, family, out, given)):
            break
        print(f"{family}: seed {seed}: {problem}")
    else:
        sys.exit(f"{family}: no seed is good enough")
    # The files too: an image encoded elsewhere may have other bytes. Language models see none.
    files = {f"image/{name}": np.frombuffer(data, np.uint8) for name, data in cases.images().items() if f"pixels/{name}" in out}
    np.savez_compressed(directory.parent / "reference.npz", **out, **files)
    size = sum(path.stat().st_size for path in directory.parent.rglob("*") if path.is_file())
    print(f"{family}: seed {seed}, {len(out)} arrays, {size / 1e6:.2f} MB")


def make_sentencepiece() -> None:
    """A SentencePiece model trained as Llama's was, and what LlamaTokenizer makes of texts with it: ids by the value of `legacy`."""
    import sentencepiece

    directory = HERE / "sentencepiece"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4), model_prefix=str(directory / "tokenizer"), vocab_size=420, model_type="bpe", byte_fallback=True, split_digits=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2)
    (directory / "tokenizer.vocab").unlink()
    texts = [*cases.TEXTS, *cases.PROMPTS, "  two  leading", "a</s>b <s> c", "", "\n\nx\ty", "USER: <image>\nHi ASSISTANT: yes</s>USER: no"]
    ids = {}
    for legacy in (None, True, False):
        settings = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True, **({} if legacy is None else {"legacy": legacy})}
        (directory / "config.json").write_text('{"model_type": "llama"}')
        (directory / "tokenizer_config.json").write_text(json.dumps(settings))
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        ids[json.dumps(legacy)] = [tokenizer(text).input_ids for text in texts]
    for name in ("config.json", "tokenizer_config.json"):
        (directory / name).unlink()
    (directory / "ids.json").write_text(json.dumps({"texts": texts, "ids": ids}))


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    for name in sys.argv[1:] or [*SAVERS, "sentencepiece"]:
        make_sentencepiece() if name == "sentencepiece" else make(name)
