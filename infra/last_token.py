"""Decoders as classifiers: the label is read at the last real token, which the attention mask tells."""

from __future__ import annotations

from typing import Any

import torch

HEADS = ("score", "classifier")
"""Names that transformers gives the linear layer with an output for each label."""


def read_last_token(model: Any) -> None:
    """Makes a classifier that is a decoder read the label at the last token of the attention mask, in place.

    transformers reads it at the rightmost token that is not the padding token: at a wrong one if texts are padded with
    another token or end in that one, and it refuses batches if there is no padding token. Its decoders apply the head
    to all tokens and then pick one. Here the head is given the last real token in place of every other, so that
    whichever is picked is right. Models whose head gets one vector for each text stay unchanged.
    """
    heads = (getattr(model, name, None) for name in HEADS)
    head = next((one for one in heads if isinstance(one, torch.nn.Module) and not list(one.children())), None)
    if head is None:
        return
    _name_padding(model.config.get_text_config())
    mask: list[torch.Tensor | None] = [None]

    def note(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        mask[0] = inputs.get("attention_mask")

    def pick(_: Any, args: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        return (at_last_token(args[0], mask[0]),) if args[0].ndim == 3 else None

    model.register_forward_pre_hook(note, with_kwargs=True)
    head.register_forward_pre_hook(pick)


def at_last_token(states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """`states` [texts, tokens, width] with those of each text's last token, by the mask [texts, tokens], in all places.

    Without a mask nothing is padded.
    """
    if mask is None:
        return states[:, -1:].expand_as(states)
    places = torch.arange(states.shape[1], device=states.device)
    last = (places * (mask != 0)).argmax(dim=1)
    return states[torch.arange(len(states), device=states.device), last][:, None].expand_as(states)


def _name_padding(config: Any) -> None:
    """Names a padding token where there is none, which transformers asks for; nothing depends on which."""
    if config.pad_token_id is None:
        end = config.eos_token_id
        config.pad_token_id = next(iter(end), 0) if isinstance(end, list) else end or 0
