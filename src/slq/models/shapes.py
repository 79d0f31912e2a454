"""Models at the true shapes of published models, with random weights: for benchmarks where weights cannot be had.

`load_model("random:internvl3-1b")` is transformers' own InternVL3-1B down to the number of parameters, so time and memory are those of
the real model; what it embeds and says means nothing. Control tokens stand at their published ids; the tokens between them come from the
miniature's byte-level tokenizer, so a text makes more tokens than under the published one.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast
from transformers.initialization import no_init_weights

from slq.errors import ModelError
from slq.models.processors import InternVLStillProcessor, Qwen3VLStillProcessor

PREFIX = "random:"
SEED = 0
GENERATION = 1  # raised when `sample_weights` gives other weights

# --- shapes, as the published config.json has them --------------------------------------------------------------------------


def internvl3(**decoder: int) -> dict[str, Any]:
    """An InternVL3: InternViT-300M at 448 pixels before a Qwen2 decoder, input and output embeddings apart.

    Args:
        **decoder: settings of the Qwen2 decoder.
    """
    vision = {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "image_size": [448, 448],
        "patch_size": [14, 14],
        "attention_bias": True,
    }
    text = {
        "model_type": "qwen2",
        "vocab_size": 151674,
        "max_position_embeddings": 32768,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        "tie_word_embeddings": False,
        **decoder,
    }
    return {
        "model_type": "internvl",
        "vision_config": vision,
        "text_config": text,
        "image_token_id": 151667,
        "tie_word_embeddings": False,
    }


def qwen3_vl(**decoder: int) -> dict[str, Any]:
    """A Qwen3-VL: a vision encoder in patches of 16, which feeds three of its layers into the decoder's first three; embeddings tied.

    Args:
        **decoder: settings of the Qwen3 decoder.
    """
    vision = {
        "hidden_size": 1024,
        "depth": 24,
        "num_heads": 16,
        "intermediate_size": 4096,
        "patch_size": 16,
        "out_hidden_size": decoder["hidden_size"],
        "deepstack_visual_indexes": [5, 11, 17],
    }
    text = {
        "vocab_size": 151936,
        "head_dim": 128,
        "max_position_embeddings": 262144,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5000000.0,
            "mrope_section": [24, 20, 20],
            "mrope_interleaved": True,
        },
        "tie_word_embeddings": True,
        **decoder,
    }
    return {"model_type": "qwen3_vl", "vision_config": vision, "text_config": text, "tie_word_embeddings": True}


SHAPES = {
    "internvl3-1b": internvl3(hidden_size=896, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2, intermediate_size=4864),
    "internvl3-8b": internvl3(
        hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4, intermediate_size=18944
    ),
    "qwen3-vl-2b": qwen3_vl(hidden_size=2048, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, intermediate_size=6144),
    "qwen3-vl-4b": qwen3_vl(hidden_size=2560, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8, intermediate_size=9728),
}


def revision(name: str) -> str:
    """What stands for the weights of a shape: equal revisions, equal weights.

    Args:
        name: `random:<shape>`.
    """
    shape = json.dumps(SHAPES[name.removeprefix(PREFIX)], sort_keys=True)
    drawn = torch.randn(8, generator=torch.Generator().manual_seed(SEED)).tolist()  # another torch may draw other numbers
    return f"random weights, seed {SEED}, {hashlib.sha256(f'{GENERATION} {shape} {drawn}'.encode()).hexdigest()[:16]}"


# --- tokens and templates ---------------------------------------------------------------------------------------------------

END, TURN_END = "<|endoftext|>", "<|im_end|>"
CHAT_TOKENS = {END: 151643, "<|im_start|>": 151644, TURN_END: 151645}
# No still image needs <video>: it stands where the published vocabulary has the last of its box tokens.
INTERNVL_TOKENS = {**CHAT_TOKENS, "<img>": 151665, "</img>": 151666, "<IMG_CONTEXT>": 151667, "<video>": 151673}
INTERNVL_NAMES = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
QWEN_TOKENS = {**CHAT_TOKENS, "<|vision_start|>": 151652, "<|vision_end|>": 151653, "<|image_pad|>": 151655, "<|video_pad|>": 151656}


def chat_template(image: str) -> str:
    """The form that both families share; `image` stands for an image.

    Args:
        image: what stands for an image.
    """
    return (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}{{ '" + image + "' }}{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


def build_tokenizer(control: Mapping[str, int], named: Mapping[str, str]) -> PreTrainedTokenizerFast:
    """The miniature's tokenizer, with these control tokens at these ids; `named` are those a processor asks for by name.

    Args:
        control: ids by token.
        named: tokens by the names that a processor asks for.
    """
    content = json.loads(files("slq.miniature").joinpath("weights", "tokenizer.json").read_text(encoding="utf-8"))
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"] = [{"id": place, "content": token, **plain} for token, place in control.items()]
    content["model"]["vocab"].update(control)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        pad_token=END,
        eos_token=TURN_END,
        padding_side="left",
        extra_special_tokens=dict(named),
    )


def build_processor(model_type: str) -> InternVLStillProcessor | Qwen3VLStillProcessor:
    """The family's processor for still images: one tile of 448 pixels for InternVL, the image's own shape for Qwen3-VL.

    Args:
        model_type: `internvl` or `qwen3_vl`.
    """
    if model_type == "internvl":
        from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

        return InternVLStillProcessor(
            image_processor=GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}, crop_to_patches=False),
            tokenizer=build_tokenizer(INTERNVL_TOKENS, INTERNVL_NAMES),
            image_seq_length=256,
            chat_template=chat_template("<IMG_CONTEXT>\n"),
        )
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen3VLStillProcessor(
        image_processor=Qwen2VLImageProcessorPil(
            patch_size=16,
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
            size={"shortest_edge": 65536, "longest_edge": 16777216},
        ),
        tokenizer=build_tokenizer(QWEN_TOKENS, {}),
        chat_template=chat_template("<|vision_start|><|image_pad|><|vision_end|>"),
    )


# --- models -----------------------------------------------------------------------------------------------------------------


def build_random(name: str, dtype: torch.dtype, device: torch.device, attn_implementation: str | None = None) -> tuple[Any, Any]:
    """Build a published shape with random weights.

    Args:
        name: `random:<shape>`.
        dtype: of the weights.
        device: where they are to be.
        attn_implementation: default, sdpa.

    Returns:
        Model and processor.

    Raises:
        ModelError: for another shape than those of `SHAPES`.
    """
    shape = SHAPES.get(name.removeprefix(PREFIX))
    if shape is None:
        raise ModelError(f"There is no model {name!r}: with random weights there are {', '.join(PREFIX + each for each in SHAPES)}.")
    config = AutoConfig.for_model(**copy.deepcopy(shape))
    processor = build_processor(config.model_type)
    with no_init_weights(), device:
        model = AutoModelForImageTextToText.from_config(config, dtype=dtype, attn_implementation=attn_implementation or "sdpa")
    model.tie_weights()
    sample_weights(model, SEED)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model, processor


@torch.no_grad()
def sample_weights(model: torch.nn.Module, seed: int) -> None:
    """Fill every parameter: matrices normal so that outputs are as large as inputs, embeddings as published, biases 0, scales 1.

    Sampled in float32 on the CPU, one after the other: the same weights, up to rounding, in every dtype and on every device.

    Args:
        model: transformers' own.
        seed: of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif parameter.dim() == 1:
            parameter.fill_(1.0)
        else:
            scale = 0.02 if "embed" in name else parameter[0].numel() ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator).mul_(scale))
