"""How a model is loaded: the options of every command that names one, and what they make, written once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from slq.errors import InputError

if TYPE_CHECKING:
    from slq.encoders import FineTunedModel
    from slq.encoders.latent import LatentEncoder
    from slq.models import FrozenModel

MODEL_HELP = "`miniature`, a folder, a hub id such as OpenGVLab/InternVL3-1B-hf, or `random:internvl3-1b` (true shape, random weights)."


def _option(text: str, *flags: str) -> Any:
    return typer.Option(*flags, help=text, rich_help_panel="Loading the model")


@dataclass(frozen=True)
class Loading:
    """What the options say about loading a model; None where nothing was said. Each field is an option of the command line."""

    revision: Annotated[str | None, _option("Commit, tag or branch of a model on the hub.")] = None
    dtype: Annotated[str | None, _option("float32, bfloat16 or float16. Default: float32 on the CPU, else bfloat16.")] = None
    device: Annotated[str | None, _option("cpu, cuda, cuda:1, mps. Default: an accelerator if there is one.")] = None
    attn_implementation: Annotated[
        str | None, _option("eager, sdpa, flash_attention_2, ... Default: what transformers chooses, sdpa where the model has it.")
    ] = None
    device_map: Annotated[
        str | None, _option("`auto` spreads a model that is larger than one device over all there are; in place of --device.")
    ] = None
    quantization: Annotated[str | None, _option("8bit or 4bit weights, with bitsandbytes: less memory, other numbers.")] = None
    trust_remote_code: Annotated[
        bool, _option("Run the Python files that come with the weights. Read them before you do.", "--trust-remote-code")
    ] = False
    preprocessing: Annotated[
        str | None,
        _option("How images are prepared: paper (one view each, as in the SLQ paper) or native (the model's own). Default: paper."),
    ] = None
    max_pixels: Annotated[
        int | None, _option("Larger images are scaled down to this many pixels, where the model keeps an image's shape (Qwen-VL).")
    ] = None
    max_text_tokens: Annotated[int | None, _option("Texts are cut after this many tokens. Default: 128.")] = None
    instruction: Annotated[str | None, _option("Words put behind every item. Default: none.")] = None

    def model(self, name: str) -> FrozenModel:
        """The model of this name, with the preprocessing that was asked for."""
        from slq.models import Preprocessing, load_model

        return load_model(name, preprocessing=Preprocessing(**self._asked_preprocessing()), **self._options())

    def latent_encoder(self, adapter: str, name: str | None = None) -> LatentEncoder:
        """The adapter over the model of this name (None: the one it was learned on), with the adapter's own preprocessing.

        Raises InputError where other preprocessing was asked for.
        """
        from slq.encoders.latent import LatentEncoder

        return LatentEncoder.from_pretrained(adapter, name=name, **self.beside_its_own_preprocessing())

    def encoder(self, adapter: str, name: str | None = None) -> LatentEncoder | FineTunedModel:
        """As `latent_encoder`, for all that `slq train` can have learned: a model tuned by LoRA or in full too."""
        from slq.encoders import load_encoder

        return load_encoder(adapter, name=name, **self.beside_its_own_preprocessing())

    def beside_its_own_preprocessing(self) -> dict[str, Any]:
        """What loading something learned is told; raises InputError where other preprocessing was asked for."""
        if asked := self._asked_preprocessing():
            flags = ", ".join("--preprocessing" if key == "name" else "--" + key.replace("_", "-") for key in asked)
            raise InputError(f"An adapter brings its own preprocessing along: leave out {flags}.")
        return self._options()

    def _asked_preprocessing(self) -> dict[str, Any]:
        asked = {
            "name": self.preprocessing,
            "max_pixels": self.max_pixels,
            "max_text_tokens": self.max_text_tokens,
            "instruction": self.instruction,
        }
        return {key: value for key, value in asked.items() if value is not None}

    def _options(self) -> dict[str, Any]:
        """What `load_model` is told, apart from the name and the preprocessing."""
        options = {
            "revision": self.revision,
            "dtype": self.dtype,
            "device": self.device,
            "attn_implementation": self.attn_implementation,
            "device_map": self.device_map,
            "quantization": self.quantization,
        }
        return {key: value for key, value in options.items() if value is not None} | {"trust_remote_code": self.trust_remote_code}


OF_WEIGHTS = ("dtype", "device", "attn_implementation", "device_map", "quantization", "trust_remote_code")  # an adapter says the rest


def loads_a_model(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options of `Loading` (those of these names; none: all) in place of its parameter `wanted`."""
    chosen = [field for field in fields(Loading) if not names or field.name in names]
    hints = get_type_hints(Loading, include_extras=True)
    added = [
        inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=hints[each.name]) for each in chosen
    ]

    def with_options(command: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(command, eval_str=True)
        own = [parameter for name, parameter in signature.parameters.items() if name != "wanted"]

        @wraps(command)
        def run(*args: Any, **given: Any) -> Any:
            asked = {each.name: given.pop(each.name) for each in chosen if each.name in given}
            return command(*args, **given, wanted=Loading(**asked))

        run.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        return run

    return with_options
