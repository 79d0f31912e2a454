"""What pre-training lowers: the loss of the answers, and that of what the picture tokens tell by themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import InternVLForConditionalGeneration

from slq.miniature.pretraining.batches import IGNORED
from slq.miniature.pretraining.cells import CLASSES

CELL_WEIGHT = 0.2


class CellHeads(nn.Module):
    """One linear reader of picture tokens, scaled to a common length, for each kind of class."""

    def __init__(self, width: int):
        super().__init__()
        self.heads = nn.ModuleDict({kind: nn.Linear(width, len(names)) for kind, names in CLASSES.items()})

    def forward(self, tokens_BTD: Tensor, labels: dict[str, Tensor]) -> Tensor:
        """Sum over kinds of the mean cross-entropy over the tokens whose class is known; labels: (B, T) each."""
        tokens_BTD = nn.functional.layer_norm(tokens_BTD, tokens_BTD.shape[-1:])
        losses = []
        for kind, head in self.heads.items():
            known = labels[kind] != IGNORED
            if known.any():
                losses.append(nn.functional.cross_entropy(head(tokens_BTD[known]).float(), labels[kind][known]))
        return torch.stack(losses).sum()


class Objective(nn.Module):
    """The model and, for pre-training alone, the heads that read its picture tokens."""

    def __init__(self, model: InternVLForConditionalGeneration):
        super().__init__()
        self.model = model
        self.heads = CellHeads(model.config.get_text_config().hidden_size)

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and what to log: mean cross-entropy over answer tokens, the share predicted right, the heads' loss."""
        cells = {kind: batch[f"cell_{kind}"] for kind in CLASSES}
        inputs = {name: batch[name] for name in ("input_ids", "position_ids", "attention_mask", "pixel_values")}
        output = self.model.model(**inputs, use_cache=False)
        wanted = batch["labels"] != IGNORED
        logits, labels = self.model.lm_head(output.last_hidden_state[wanted]).float(), batch["labels"][wanted]
        answers = nn.functional.cross_entropy(logits, labels)
        places = self.heads(output.image_hidden_states, cells)
        right = (logits.argmax(-1) == labels).float().mean()
        return answers + CELL_WEIGHT * places, {"loss": answers.detach(), "token_accuracy": right, "cell_loss": places.detach()}
