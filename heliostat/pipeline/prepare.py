"""Prepares the spec's data: encodes the records and stores them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliostat.spec import Spec
from heliostat.view.terminal import View

if TYPE_CHECKING:
    from heliostat.train.data.encoder import Encoder
    from heliostat.train.data.prepared import Prepared


def run(spec: Spec, view: View) -> Prepared:
    """The spec's data, encoded and in storage; reused if nothing has changed."""
    from heliostat.train.data.prepared import prepare as prepare_data

    encoder = encoder_of(spec)
    with view.progress("prepare") as advance:
        prepared = prepare_data(spec.data, encoder, spec.storage, advance)
    view.prepared(prepared)
    return prepared


def prepared_data(spec: Spec) -> Prepared | None:
    """The prepared data if nothing has changed since, else None; needs no Ray."""
    from heliostat.train.data.prepared import find_prepared

    return find_prepared(spec.data, encoder_of(spec), spec.storage)


def encoder_of(spec: Spec) -> Encoder:
    """The encoder for the spec's data; raises ConfigError if the base model cannot read what it makes of texts."""
    from heliostat.train import tasks
    from heliostat.train.models.bases import base_model
    from heliostat.train.models.compatibility import check_texts

    folder = base_model(spec.model, spec.storage)
    if folder:
        check_texts(folder, spec.task, spec.data.max_length)
    return tasks.get(spec.task).encoder(spec.data, folder)


def reuse(spec: Spec, view: View) -> bool:
    """Shows the prepared data if they are up to date; returns whether they are."""
    prepared = prepared_data(spec)
    if prepared:
        view.prepared(prepared)
    return prepared is not None
