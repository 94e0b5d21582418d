#!/usr/bin/env python3
"""Writes v1.30.json and v1.37.json: what the API server of a release accepts, for the kinds that we deploy.

The source is Kubernetes' published OpenAPI description (Apache-2.0) as the package kubernetes-validate carries it:

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install kubernetes-validate==1.37.0
    /tmp/venv/bin/python tests/schema/kubernetes/extract.py

One line for each type. A field's type is string, integer, number, boolean, any, int-or-string, quantity, the name of
another type, [type] for a list or {type} for a map; `!` after a field's name says that it must be there.
"""

import json
import pathlib

import kubernetes_validate

RELEASES = ["1.30", "1.37"]  # the first with the lifecycle action `sleep`, and the newest
KINDS = [
    "apps/v1/Deployment",
    "autoscaling/v2/HorizontalPodAutoscaler",
    "batch/v1/Job",
    "networking.k8s.io/v1/Ingress",
    "networking.k8s.io/v1/NetworkPolicy",
    "policy/v1/PodDisruptionBudget",
    "v1/ConfigMap",
    "v1/Namespace",
    "v1/Service",
    "v1/ServiceAccount",
]
SPECIAL = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "int-or-string",
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "quantity",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "string",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "string",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "any",
}


def expression(schema, wanted):
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        if name in SPECIAL:
            return SPECIAL[name]
        wanted.add(name)
        return name.removeprefix("io.k8s.")
    kind = schema.get("type", "any")
    if isinstance(kind, list):  # each type is paired with null, which our files do without
        kind = next(k for k in kind if k != "null")
    if kind == "array":
        return f"[{expression(schema['items'], wanted)}]"
    if kind == "object":
        more = schema.get("additionalProperties")
        assert isinstance(more, dict) and "properties" not in schema, schema
        return f"{{{expression(more, wanted)}}}"
    return kind


def release(version, folder):
    definitions = json.loads((folder / f"v{version}.0-local-strict/_definitions.json").read_text())["$defs"]
    kinds, types, wanted = {}, {}, set()
    for name, schema in definitions.items():
        for gvk in schema.get("x-kubernetes-group-version-kind", []):
            path = "/".join(filter(None, [gvk["group"], gvk["version"], gvk["kind"]]))
            if path in KINDS:
                kinds[path] = name.removeprefix("io.k8s.")
                wanted.add(name)
    assert sorted(kinds) == sorted(KINDS), set(KINDS) - set(kinds)
    while todo := [name for name in wanted if name.removeprefix("io.k8s.") not in types]:
        for name in todo:
            schema = definitions[name]
            required = schema.get("required", [])
            types[name.removeprefix("io.k8s.")] = {
                field + ("!" if field in required else ""): expression(of, wanted)
                for field, of in sorted(schema.get("properties", {}).items())
                if field != "status"  # the server writes it
            }
    return kinds, types


def write(path, kinds, types):
    lines = [f" {json.dumps(name)}: {json.dumps(types[name])}" for name in sorted(types)]
    head = json.dumps(kinds, indent=1, sort_keys=True)
    path.write_text(f'{{"kinds": {head},\n"types": {{\n' + ",\n".join(lines) + "\n}}\n")


if __name__ == "__main__":
    data = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    for number in RELEASES:
        write(pathlib.Path(__file__).parent / f"v{number}.json", *release(number, data))
