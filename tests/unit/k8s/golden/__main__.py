"""Renews the committed manifests."""

from tests.unit.k8s.golden import FILE, golden

FILE.write_text(golden(), encoding="utf-8")
