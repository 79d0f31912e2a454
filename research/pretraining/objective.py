"""What pre-training lowers: the loss of the answers, and that of what single tokens tell by themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import InternVLForConditionalGeneration

from research.pretraining.batches import IGNORED
from research.pretraining.cells import CLASSES

READING_WEIGHT = 0.2


class Readers(nn.Module):
    """One linear reader of tokens for each kind of class."""

    def __init__(self, width: int):
        super().__init__()
        self.heads = nn.ModuleDict({kind: nn.Linear(width, len(names)) for kind, names in CLASSES.items()})

    def forward(self, tokens_BTD: Tensor, labels: dict[str, Tensor]) -> Tensor:
        """Sum over kinds of the mean cross-entropy over the tokens whose class is known; labels: (B, T) each."""
        return torch.stack([reading_loss(head, tokens_BTD, labels[kind]) for kind, head in self.heads.items()]).sum()


def reading_loss(head: nn.Module, tokens_BTD: Tensor, labels_BT: Tensor) -> Tensor:
    """Mean cross-entropy of a head over tokens whose class is known (0 where none is), scaled to a common length before."""
    known = labels_BT != IGNORED
    if not known.any():
        return tokens_BTD.new_zeros(())
    return nn.functional.cross_entropy(head(nn.functional.layer_norm(tokens_BTD[known], tokens_BTD.shape[-1:])).float(), labels_BT[known])


class Objective(nn.Module):
    """The model and, for pre-training alone, what reads its tokens: images before the decoder, images and nouns half way through it."""

    def __init__(self, model: InternVLForConditionalGeneration):
        super().__init__()
        self.model = model
        decoder = model.config.get_text_config()
        self.cells, self.halfway = Readers(decoder.hidden_size), Readers(decoder.hidden_size)
        self.middle = decoder.num_hidden_layers // 2

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and what to log: mean cross-entropy over answer tokens, the share predicted right, the readers' losses."""
        cells, told = ({kind: batch[f"{where}_{kind}"] for kind in CLASSES} for where in ("cell", "told"))
        inputs = {name: batch[name] for name in ("input_ids", "position_ids", "attention_mask", "pixel_values")}
        output = self.model.model(**inputs, use_cache=False, output_hidden_states=True)
        wanted = batch["labels"] != IGNORED
        logits, labels = self.model.lm_head(output.last_hidden_state[wanted]).float(), batch["labels"][wanted]
        answers = nn.functional.cross_entropy(logits, labels)
        in_cells = self.cells(output.image_hidden_states, cells)
        # The same readers for what is told and what is shown, so that both come to the same place.
        states_BTD = output.hidden_states[self.middle]
        shown_BTD = states_BTD[batch["input_ids"] == self.model.config.image_token_id].view_as(output.image_hidden_states)
        halfway = self.halfway(states_BTD, told) + self.halfway(shown_BTD, cells)
        right = (logits.argmax(-1) == labels).float().mean()
        measured = {"loss": answers, "token_accuracy": right, "cell_loss": in_cells, "halfway_loss": halfway}
        return answers + READING_WEIGHT * (in_cells + halfway), {name: value.detach() for name, value in measured.items()}
