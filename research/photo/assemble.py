"""The multimodal model: transformers' FastVLM around a language model and an image encoder, with a projector that nobody has trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import CLIPImageProcessor, FastVlmConfig, FastVlmForConditionalGeneration, LlavaProcessor

from research.photo.language import CHAT_TEMPLATE, IMAGE_TOKEN, LanguageModel
from research.photo.vision import STRIDE, ImageEncoder
from slq.errors import ConfigError
from slq.io.provenance import isolated_rng


def assemble(
    language: LanguageModel, encoder: ImageEncoder, size: int, seed: int = 0
) -> tuple[FastVlmForConditionalGeneration, LlavaProcessor]:
    """Put the parts together, in float32.

    Args:
        language: the language model.
        encoder: the image encoder.
        size: pixels of an image's side.
        seed: of the projector's first weights.

    Returns:
        The model, in eval mode, and its processor.

    Raises:
        ConfigError: for a size that does not divide into patches.
    """
    processor = _processor(language, encoder, size)
    tokenizer: Any = language.tokenizer
    rows = max(len(tokenizer), len(language.body["embed_tokens.weight"]))
    vision = {"model_type": "timm_wrapper", "architecture": encoder.architecture, "do_pooling": False, "hidden_size": encoder.width}
    config = FastVlmConfig(
        vision_config=vision,
        text_config={**language.config, "vocab_size": rows},
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        image_seq_length=(size // STRIDE) ** 2,
        tie_word_embeddings=language.head is None,
    )
    with isolated_rng(seed):
        model = FastVlmForConditionalGeneration(config).eval()
    model.model.vision_tower.timm_model.load_state_dict(dict(encoder.tensors))
    embeddings = _with_rows(language.body["embed_tokens.weight"], rows)
    model.model.language_model.load_state_dict({**language.body, "embed_tokens.weight": embeddings})
    if language.head is not None:
        model.lm_head.load_state_dict({"weight": _with_rows(language.head, rows)})
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    return model, processor


def _processor(language: LanguageModel, encoder: ImageEncoder, size: int) -> LlavaProcessor:
    if size % STRIDE:
        raise ConfigError(f"size must be a multiple of {STRIDE}, the encoder's stride, not {size}.")
    images = CLIPImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=list(encoder.mean),
        image_std=list(encoder.std),
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=language.tokenizer,
        chat_template=CHAT_TEMPLATE,
        patch_size=STRIDE,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
    )


def _with_rows(matrix: Tensor, rows: int) -> Tensor:
    """A vocabulary's matrix with rows for further tokens: the mean of all others, which no state prefers to them."""
    return torch.cat([matrix, matrix.mean(dim=0).expand(rows - len(matrix), -1)])
