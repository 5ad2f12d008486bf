"""A Helm chart of built objects: with its default values it gives those objects, and no others. Pure.

Names, images, sizes and the endpoint's configuration are values; everything else is written out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any

from heliostat.cluster.kubernetes.build import Manifest
from heliostat.cluster.kubernetes.kuberay.rule import DNS_1035, at
from heliostat.cluster.kubernetes.order import to_apply
from heliostat.cluster.kubernetes.plain import dump

HEADER = "# Written by `heliostat render helm`: change the spec and render again, or give Helm other values.\n"
HELPERS = """\
{{- define "heliostat.image" -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end -}}
{{- end -}}
"""
COMPONENT = "app.kubernetes.io/component"
_NUMBER = {"type": "integer", "minimum": 0}
_TEXT = {"type": "string"}
_NAME = {"type": "string", "pattern": f"^{DNS_1035}$", "maxLength": 47}
_IMAGE = {
    "repository": _TEXT,
    "tag": {"type": "string", "not": {"const": "latest"}},
    "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
}


def chart(objects: Iterable[Manifest], name: str, version: str) -> dict[str, str]:
    """Path -> text of a chart's files; `version` is Heliostat's."""
    made = _Chart()
    templates: dict[str, list[str]] = {}
    for one in to_apply(objects):
        part = one["metadata"].get("labels", {}).get(COMPONENT, "platform")
        templates.setdefault(part, []).append(made.template(one))
    return {
        "Chart.yaml": HEADER + dump(_about(name, version)),
        "values.yaml": HEADER + dump(made.values),
        "values.schema.json": json.dumps(_schema(made.values), indent=2) + "\n",
        "templates/_helpers.tpl": HELPERS,
        **{f"templates/{part}.yaml": "".join(texts) for part, texts in sorted(templates.items())},
    }


def _about(name: str, version: str) -> dict[str, str]:
    return {
        "apiVersion": "v2",
        "name": name,
        "description": f"{name}: where it trains, where it answers, and the registry between the two",
        "type": "application",
        "version": version,
        "appVersion": version,
        "kubeVersion": ">=1.30.0-0",
    }


class _Chart:
    """Takes values out of objects, and puts what Helm reads in their place."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {"names": {}, "images": {}}
        self._images: dict[str, str] = {}
        """Image -> its name in the values."""

    def template(self, one: Manifest) -> str:
        """The template of one object."""
        marked, marks = deepcopy(one), dict[str, str]()
        for place, key, expression, in_text in (*self._found(marked), *self._image_places(marked)):
            mark = f"HELIOSTAT-VALUE-{len(marks)}-"
            marks[mark] = expression
            place[key] = place[key].replace(in_text, mark) if in_text else mark
        text = dump(marked).replace("{{", '{{ "{{" }}')
        for mark, expression in marks.items():
            text = _placed(text, mark, expression)
        return f"---\n{text}"

    def _found(self, one: Manifest) -> Iterator[tuple[Any, Any, str, str]]:
        """What is a value in an object: its holder, its key, Helm's expression, and the part of the text that it is."""
        kind, spec = one["kind"], one.get("spec", {})
        if kind in ("RayCluster", "RayJob"):
            if kind == "RayJob":
                yield from self._job(one)
            yield from self._group(spec.get("rayClusterSpec", spec), "training")
        elif kind == "RayService":
            yield from self._group(spec["rayClusterConfig"], "serving")
            self.values["names"]["endpoint"] = one["metadata"]["name"]
            yield one["metadata"], "name", "{{ .Values.names.endpoint | quote }}", ""
            self.values["serving"]["config"] = spec["serveConfigV2"]
            yield spec, "serveConfigV2", "{{ .Values.serving.config | toJson }}", ""
        elif kind == "PodDisruptionBudget" and one["metadata"]["labels"].get(COMPONENT) == "serve":
            yield spec, "minAvailable", "{{ sub (int .Values.serving.minReplicas) 1 }}", ""

    def _job(self, one: Manifest) -> Iterator[tuple[Any, Any, str, str]]:
        name = self.values["names"]["job"] = one["metadata"]["name"]
        if one["spec"]["entrypoint"].endswith((f"--run {name}", f"--search {name}")):
            yield one["spec"], "entrypoint", "{{ .Values.names.job }}", name
        yield one["metadata"], "name", "{{ .Values.names.job | quote }}", ""

    def _group(self, cluster: Any, name: str) -> Iterator[tuple[Any, Any, str, str]]:
        """Sizes of the worker group, and the image of its cluster."""
        (group,) = cluster["workerGroupSpecs"]
        (container,) = group["template"]["spec"]["containers"]
        values = self.values.setdefault(name, {})
        for key in ("minReplicas", "maxReplicas"):
            values[key] = group[key]
            yield group, key, f"{{{{ int .Values.{name}.{key} }}}}", ""
        values["resources"] = container["resources"]
        yield container, "resources", f"{{{{ toYaml .Values.{name}.resources }}}}", ""

    def _image_places(self, value: Any) -> Iterator[tuple[Any, Any, str, str]]:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in list(items):
            if key == "image" and isinstance(item, str):
                yield value, key, f'{{{{ include "heliostat.image" .Values.images.{self._image(item)} | quote }}}}', ""
            elif not isinstance(item, str):
                yield from self._image_places(item)

    def _image(self, image: str) -> str:
        """The name of an image in the values: the last part of its path."""
        if image not in self._images:
            path, _, digest = image.partition("@")
            repository, tag = path.rsplit(":", 1) if ":" in path.rpartition("/")[2] else (path, "")
            name = re.sub(r"\W", "_", repository.rpartition("/")[2])
            name = name if name not in self.values["images"] else f"{name}{len(self._images)}"
            self._images[image] = name
            self.values["images"][name] = {"repository": repository, "tag": tag, "digest": digest}
        return self._images[image]


def _placed(text: str, mark: str, expression: str) -> str:
    """The text with Helm's expression at its mark; a mapping stands on lines of its own, under its key."""
    if "toYaml" not in expression:
        return text.replace(mark, expression)
    (line,) = re.findall(rf"^( *)(\S+): {mark}$", text, re.MULTILINE)
    indent = len(line[0]) + 2
    block = expression.replace(" }}", f" | nindent {indent} }}}}")
    return text.replace(f"{line[1]}: {mark}", f"{line[1]}: {block}")


def _schema(values: dict[str, Any]) -> dict[str, Any]:
    """What Helm holds values against: no key that there is not, no image of the tag `latest`."""
    parts = {
        "names": dict.fromkeys(values["names"], _NAME),
        "images": {key: _closed(_IMAGE) for key in values["images"]},
    }
    for part in ("training", "serving"):
        if part in values:
            parts[part] = {"minReplicas": _NUMBER, "maxReplicas": _NUMBER, "resources": {"type": "object"}}
    if at(values, "serving"):
        parts["serving"]["config"] = _TEXT
    properties = {key: _closed(one) for key, one in parts.items()}
    properties["global"] = {"type": "object"}
    return {"$schema": "https://json-schema.org/draft-07/schema#", **_closed(properties)}


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}
