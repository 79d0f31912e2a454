"""Tiny random models of real families: transformers' own classes, each with its family's processor, tokens and chat template.

Every family is a row of `FAMILIES`; `build` writes one as a folder, as a hub would hold it. Images become some ten tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

LINES = ("a red cat sits on the green mat", "two blue boats under a bridge", "what is in the image?", "user assistant model turn")
WIDTH, LAYERS, HEADS = 64, 2, 4

# --- chat templates, each in its family's form ----------------------------------------------------------------------------


def chat_ml(image: str, system: str = "", answer: str = "") -> str:
    """The form of InternVL and of the Qwens; `answer` is what stands behind the generation prompt."""
    return (
        "{% if messages[0]['role'] != 'system' %}" + (f"<|im_start|>system\n{system}<|im_end|>\n" if system else "") + "{% endif %}"
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}" + image + "{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n" + answer + "' }}{% endif %}"
    )


IDEFICS3_TEMPLATE = (
    "<|begin_of_text|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
# Mistral's form has no generation prompt: the model answers behind [/INST].
LLAVA_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{{ ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'][0]['text'] + '</s>' }}{% endif %}{% endfor %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


# --- tokenizers -----------------------------------------------------------------------------------------------------------


def train_tokenizer(pad: str, eos: str, control: tuple[str, ...], bos: str | None, named: Mapping[str, str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE with the family's control tokens; `named` are those its processor asks for by name."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    tokens = list(dict.fromkeys([pad, eos, *([bos] if bos else []), *control, *named.values()]))
    trainer = trainers.BpeTrainer(
        vocab_size=len(tokens) + 300,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in tokens],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(LINES, trainer)
    if bos:  # as Llama's and Gemma's tokenizers do it
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, bpe.token_to_id(bos))]
        )
    options = {"bos_token": bos} if bos else {}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=pad, eos_token=eos, extra_special_tokens=dict(named), **options)


# --- models ---------------------------------------------------------------------------------------------------------------


def decoder(tokenizer: PreTrainedTokenizerFast, **changes: Any) -> dict[str, Any]:
    """What every decoder's config shares, small."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS // 2,
        "max_position_embeddings": 2048,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **changes,
    }


def tower(**changes: Any) -> dict[str, Any]:
    """A vision tower of 56 x 56 pixels in patches of 14."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    return {**sizes, "image_size": 56, "patch_size": 14, **changes}


def qwen_tower(patch_size: int, **changes: Any) -> dict[str, Any]:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "depth": LAYERS, "num_heads": 2, "out_hidden_size": WIDTH}
    return {**sizes, "patch_size": patch_size, "spatial_merge_size": 2, "temporal_patch_size": 2, **changes}


def rotary(*sections: int, **changes: Any) -> dict[str, Any]:
    """Multi-axis rotary positions: how many frequencies turn with time, height and width."""
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": list(sections), **changes}


def internvl(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    vision = tower(image_size=[56, 56], patch_size=[14, 14], attention_bias=True, layer_scale_init_value=1.0)
    text = {"model_type": "qwen2", **decoder(tokenizer)}
    return {"vision_config": vision, "text_config": text, "image_token_id": tokenizer.context_image_token_id, "image_seq_length": 4}


def qwen_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    names = {"image": "<|image_pad|>", "video": "<|video_pad|>", "vision_start": "<|vision_start|>", "vision_end": "<|vision_end|>"}
    return {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def qwen3_vl(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    vision = qwen_tower(16, num_position_embeddings=16, deepstack_visual_indexes=[0, 1])
    text = decoder(tokenizer, head_dim=16, rope_parameters=rotary(4, 2, 2, mrope_interleaved=True))
    return {"vision_config": vision, "text_config": text, **qwen_ids(tokenizer)}


def qwen2_5_vl(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    vision = qwen_tower(14, window_size=56, fullatt_block_indexes=[1])  # windows of 2 x 2 merged patches, smaller than an image
    text = decoder(tokenizer, rope_parameters=rotary(2, 3, 3))
    return {"vision_config": vision, "text_config": text, **qwen_ids(tokenizer)}


def qwen3_5(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    linear = {"linear_key_head_dim": 16, "linear_value_head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4}
    positions = rotary(2, 1, 1, mrope_interleaved=True, partial_rotary_factor=0.5)
    layers = ["linear_attention", "full_attention"]
    text = decoder(tokenizer, head_dim=16, layer_types=layers, rope_parameters=positions, **linear)
    return {"vision_config": qwen_tower(16, num_position_embeddings=16), "text_config": text, **qwen_ids(tokenizer)}


def idefics3(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    text = {"model_type": "llama", **decoder(tokenizer)}
    image = tokenizer.convert_tokens_to_ids("<image>")
    return {"vision_config": tower(), "text_config": text, "image_token_id": image, "scale_factor": 2}


def llava_next(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vision_config": {"model_type": "clip_vision_model", **tower(projection_dim=32)},
        "text_config": {"model_type": "mistral", **decoder(tokenizer, sliding_window=None)},
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        "image_grid_pinpoints": PINPOINTS,
        "image_seq_length": 16,
    }


def fast_vlm(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    # A convolutional encoder of timm, with batch norms, whose counters have no dimension.
    vision = {"model_type": "timm_wrapper", "architecture": "test_efficientnet", "do_pooling": False, "hidden_size": 256}
    image = tokenizer.convert_tokens_to_ids("<image>")
    return {"vision_config": vision, "text_config": {"model_type": "llama", **decoder(tokenizer)}, "image_token_index": image}


def gemma3(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    # A window shorter than the test's prompts, so that sliding layers drop tokens.
    layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
    return {
        "vision_config": {"model_type": "siglip_vision_model", **tower()},
        "text_config": decoder(tokenizer, head_dim=16, query_pre_attn_scalar=16, **layers),
        "mm_tokens_per_image": 4,
        "image_token_index": tokenizer.image_token_id,
        "boi_token_index": tokenizer.boi_token_id,
        "eoi_token_index": tokenizer.eoi_token_id,
    }


# --- the families ---------------------------------------------------------------------------------------------------------

CHAT_ML = ("<|im_start|>", "<|im_end|>")
QWEN = (*CHAT_ML, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
QWEN_NAMED = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
TILES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
PINPOINTS = [[56, 112], [112, 56], [112, 112]]
IMAGE = {"height": 56, "width": 56}


def qwen_images(patch_size: int) -> dict[str, Any]:
    """Between 4 and 16 tokens an image, whatever its shape."""
    side = 2 * patch_size
    return {"patch_size": patch_size, "merge_size": 2, "size": {"shortest_edge": 4 * side**2, "longest_edge": 16 * side**2}}


@dataclass(frozen=True)
class FamilyCase:
    """One family, tiny. model, processor, image_processor, video_processor: names of transformers' classes."""

    model: str
    config: Callable[[PreTrainedTokenizerFast], dict[str, Any]]
    processor: str
    image_processor: str
    images: dict[str, Any]
    template: str
    pad: str
    eos: str
    control: tuple[str, ...]
    bos: str | None = None
    named: dict[str, str] = field(default_factory=dict)
    processor_options: dict[str, Any] = field(default_factory=dict)
    video_processor: str | None = None


FAMILIES: dict[str, FamilyCase] = {
    "internvl": FamilyCase(
        model="InternVLForConditionalGeneration",
        config=internvl,
        processor="InternVLProcessor",
        image_processor="GotOcr2ImageProcessor",
        images={"size": IMAGE},
        template=chat_ml("<IMG_CONTEXT>\n"),
        pad="<|endoftext|>",
        eos="<|im_end|>",
        control=(*CHAT_ML, "<img>", "</img>", "<IMG_CONTEXT>", "<video>"),
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        processor_options={"image_seq_length": 4},
        video_processor="InternVLVideoProcessor",
    ),
    "qwen3_vl": FamilyCase(
        model="Qwen3VLForConditionalGeneration",
        config=qwen3_vl,
        processor="Qwen3VLProcessor",
        image_processor="Qwen2VLImageProcessor",
        images=qwen_images(16),
        template=chat_ml(QWEN_IMAGE),
        pad="<|endoftext|>",
        eos="<|im_end|>",
        control=QWEN,
        named=QWEN_NAMED,
        video_processor="Qwen3VLVideoProcessor",
    ),
    "qwen2_5_vl": FamilyCase(
        model="Qwen2_5_VLForConditionalGeneration",
        config=qwen2_5_vl,
        processor="Qwen2_5_VLProcessor",
        image_processor="Qwen2VLImageProcessor",
        images=qwen_images(14),
        template=chat_ml(QWEN_IMAGE, system="You are a helpful assistant."),
        pad="<|endoftext|>",
        eos="<|im_end|>",
        control=QWEN,
        named=QWEN_NAMED,
        video_processor="Qwen2VLVideoProcessor",
    ),
    "qwen3_5": FamilyCase(
        model="Qwen3_5ForConditionalGeneration",
        config=qwen3_5,
        processor="Qwen3VLProcessor",
        image_processor="Qwen2VLImageProcessor",
        images=qwen_images(16),
        template=chat_ml(QWEN_IMAGE, answer="<think>\\n\\n</think>\\n\\n"),
        pad="<|endoftext|>",
        eos="<|im_end|>",
        control=(*QWEN, "<think>", "</think>"),
        named=QWEN_NAMED,
        video_processor="Qwen3VLVideoProcessor",
    ),
    "idefics3": FamilyCase(
        model="Idefics3ForConditionalGeneration",
        config=idefics3,
        processor="Idefics3Processor",
        image_processor="Idefics3ImageProcessor",
        images={"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 56}},
        template=IDEFICS3_TEMPLATE,
        pad="<|finetune_right_pad_id|>",
        eos="<end_of_utterance>",
        bos="<|begin_of_text|>",
        control=("<fake_token_around_image>", "<image>", "<global-img>", *TILES),
        processor_options={"image_seq_len": 4},
    ),
    "llava_next": FamilyCase(
        model="LlavaNextForConditionalGeneration",
        config=llava_next,
        processor="LlavaNextProcessor",
        image_processor="LlavaNextImageProcessor",
        images={"size": {"shortest_edge": 56}, "crop_size": IMAGE, "image_grid_pinpoints": PINPOINTS},
        template=LLAVA_TEMPLATE,
        pad="<pad>",
        eos="</s>",
        bos="<s>",
        control=("<unk>", "<image>"),
        processor_options={"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    ),
    "fast_vlm": FamilyCase(
        model="FastVlmForConditionalGeneration",
        config=fast_vlm,
        processor="LlavaProcessor",
        image_processor="CLIPImageProcessor",
        images={"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}},
        template=chat_ml("<image>\n"),
        pad="<|endoftext|>",
        eos="<|im_end|>",
        control=(*CHAT_ML, "<image>"),
        processor_options={"patch_size": 32, "vision_feature_select_strategy": "full", "num_additional_image_tokens": 0},
    ),
    "gemma3": FamilyCase(
        model="Gemma3ForConditionalGeneration",
        config=gemma3,
        processor="Gemma3Processor",
        image_processor="Gemma3ImageProcessor",
        images={"size": IMAGE},
        template=GEMMA_TEMPLATE,
        pad="<pad>",
        eos="<end_of_turn>",
        bos="<bos>",
        control=("<start_of_turn>",),
        named={"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"},
        processor_options={"image_seq_length": 4},
    ),
}


def build(name: str, folder: Path) -> Path:
    """Write the family's tiny model and its processor to `folder`."""
    case = FAMILIES[name]
    tokenizer = train_tokenizer(case.pad, case.eos, case.control, case.bos, case.named)
    parts = {"image_processor": getattr(transformers, case.image_processor)(**case.images), "tokenizer": tokenizer}
    if case.video_processor:
        parts["video_processor"] = getattr(transformers, case.video_processor)()
    processor = getattr(transformers, case.processor)(**parts, chat_template=case.template, **case.processor_options)
    model_class = getattr(transformers, case.model)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(model_class.config_class(**case.config(tokenizer), tie_word_embeddings=False))
        _scale(model)
        _settle_batch_norms(model)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@torch.no_grad()
def _scale(model: torch.nn.Module) -> None:
    """Weights of the size that training gives, so that what a token sees shows in its states: a fresh model's hardly matter."""
    for parameter in model.parameters():
        if parameter.ndim >= 2:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
        else:
            parameter.add_(0.1 * torch.randn_like(parameter))


@torch.no_grad()
def _settle_batch_norms(model: torch.nn.Module) -> None:
    """Means and variances of what comes in, as training leaves them; without them a random convolutional encoder sees nothing."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    if norms:
        for norm in norms:
            norm.momentum = None  # the mean over all batches
            norm.train()
        encoder = model.base_model.vision_tower
        encoder(torch.nn.functional.interpolate(torch.randn(32, 3, 4, 4), size=(64, 64)))
        model.eval()
