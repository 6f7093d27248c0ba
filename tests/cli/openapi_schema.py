"""What api/openapi.yaml says, in a form that tests can ask: which operation a request is, and whether a value has the
shape a schema asks for. Only the parts of JSON Schema that the contract uses; an unknown keyword is an error here, so
that nothing is skipped silently."""
import pathlib
import re

import yaml

CONTRACT = pathlib.Path(__file__).resolve().parents[2] / "api" / "openapi.yaml"
KNOWN = {"type", "enum", "pattern", "minimum", "maximum", "multipleOf", "required", "properties", "items", "minItems",
         "maxItems", "uniqueItems", "nullable", "allOf", "maxLength", "additionalProperties", "description", "default",
         "format", "$ref"}
TYPES = {"string": str, "integer": int, "boolean": bool, "object": dict, "array": list}


class Contract:
    def __init__(self, path=CONTRACT):
        self.document = yaml.safe_load(pathlib.Path(path).read_text(encoding="utf-8"))
        self.paths = []
        for template, item in self.document["paths"].items():
            pattern = re.compile("^" + re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template) + "$")
            self.paths.append((template, pattern, item))

    def resolve(self, node):
        while isinstance(node, dict) and "$ref" in node:
            target = self.document
            for part in node["$ref"][2:].split("/"):
                target = target[part]
            node = target
        return node

    def find(self, method, path):
        """(operation, template, path parameters) of a request, or None."""
        best = None
        for template, pattern, item in self.paths:
            match = pattern.match(path)
            if match and method.lower() in item:
                # a literal path wins over one with parameters (/v1/vms/check-xml)
                if best is None or template.count("{") < best[1].count("{"):
                    best = (item[method.lower()] | {"parameters": item.get("parameters", []) + item[method.lower()].get(
                        "parameters", [])}, template, match.groupdict())
        return best

    def request_breaches(self, operation, path_parameters, query, body):
        out, known = [], set()
        for parameter in map(self.resolve, operation["parameters"]):
            name, where = parameter["name"], parameter["in"]
            value = path_parameters.get(name) if where == "path" else query.get(name)
            if where == "query":
                known.add(name)
            if value is None:
                if parameter.get("required"):
                    out.append(f"{where} parameter {name} is missing")
                continue
            schema = self.resolve(parameter["schema"])
            if schema.get("type") == "integer":
                value = int(value) if re.fullmatch(r"-?\d+", value) else value
            if schema.get("type") == "boolean":
                value = {"true": True, "false": False}.get(value, value)
            out += self.breaches(schema, value, name)
        out += [f"query parameter {name} is not known" for name in query if name not in known]
        wanted = operation.get("requestBody")
        if wanted is None:
            return out + (["a body where none is expected"] if body is not None else [])
        if body is None:
            return out + (["the body is missing"] if wanted.get("required") else [])
        return out + self.breaches(wanted["content"]["application/json"]["schema"], body, "body")

    def response_schema(self, operation, status):
        responses = operation["responses"]
        answer = self.resolve(responses.get(str(status)) or responses.get("default") or {})
        content = answer.get("content", {})
        kind = next(iter(content), None)
        return kind, (content[kind]["schema"] if kind else None)

    def breaches(self, schema, value, where="value"):
        schema = self.resolve(schema)
        unknown = set(schema) - KNOWN
        if unknown:
            raise ValueError(f"openapi.yaml uses {unknown}, which this checker does not know")
        if value is None:
            allowed = schema.get("nullable") or (None in schema.get("enum", []))
            return [] if allowed else [f"{where}: null where a value is expected"]
        out = []
        for part in schema.get("allOf", []):
            out += self.breaches(part, value, where)
        kind = schema.get("type")
        if kind:
            good = isinstance(value, TYPES[kind]) and not (kind == "integer" and isinstance(value, bool))
            if not good:
                return out + [f"{where}: {kind} expected, got {value!r:.60}"]
        if "enum" in schema and value not in schema["enum"]:
            out.append(f"{where}: {value!r:.60} is not one of {schema['enum']}")
        if isinstance(value, str):
            if "pattern" in schema and not re.search(schema["pattern"], value):
                out.append(f"{where}: {value!r:.60} does not match {schema['pattern']}")
            if len(value) > schema.get("maxLength", len(value)):
                out.append(f"{where}: longer than {schema['maxLength']}")
        if isinstance(value, int) and not isinstance(value, bool):
            if value < schema.get("minimum", value) or value > schema.get("maximum", value):
                out.append(f"{where}: {value} is out of range")
            if "multipleOf" in schema and value % schema["multipleOf"]:
                out.append(f"{where}: {value} is no multiple of {schema['multipleOf']}")
        if isinstance(value, list):
            if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
                out.append(f"{where}: {len(value)} items")
            for i, item in enumerate(value):
                out += self.breaches(schema.get("items", {}), item, f"{where}[{i}]")
        if isinstance(value, dict):
            properties = schema.get("properties", {})
            out += [f"{where}: {name} is missing" for name in schema.get("required", []) if name not in value]
            extra = schema.get("additionalProperties", True)
            for name, item in value.items():
                if name in properties:
                    out += self.breaches(properties[name], item, f"{where}.{name}")
                elif extra is False:
                    out.append(f"{where}: {name} is not known")
                elif isinstance(extra, dict):
                    out += self.breaches(extra, item, f"{where}.{name}")
        return out
