#!/usr/bin/python3
"""Hold admin documents to what docs/protocol/admin.md says of them.

    admin_documents.py ADMIN.MD NOUN VERB < DOCUMENT

The blocks of code in that page are JSON with types in place of values: int, str, bool, uuid,
size, time; "?" may be null; {str: str} is an object of texts; [as X] are rows as of X. Every key of
the block must be there, with its type; more keys are fine.
"""
import json
import re
import sys

SECTIONS = {"vdi list": "vdi list, vdi info, vdi delete", "vdi info": "vdi list, vdi info, vdi delete",
            "vdi create": "vdi list, vdi info, vdi delete", "cluster format": "cluster info"}
SECTIONS.update({"vdi " + verb: SECTIONS["vdi info"] for verb in ("rename", "resize", "set")})
SECTIONS.update({"recovery " + verb: "recovery info" for verb in ("pause", "resume", "throttle")})
# These give one row of a list.
ROWS = {"cluster set": "cluster settings", "node drain": "node list", "node undrain": "node list",
        "store set": "store list", "cluster force-recover": "pg list"}
UUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}")


def is_int(value):
    return isinstance(value, int) and not isinstance(value, bool)


TYPES = {
    "int": is_int,
    "size": lambda v: is_int(v) and v >= 0,
    "bool": lambda v: isinstance(v, bool),
    "str": lambda v: isinstance(v, str),
    "uuid": lambda v: isinstance(v, str) and UUID.fullmatch(v),
    "time": lambda v: isinstance(v, str) and v.endswith("Z"),
    "map": lambda v: isinstance(v, dict) and all(isinstance(x, str) for x in v.values()),
}


def schema_of(page, command):
    if command in ROWS:
        return schema_of(page, ROWS[command])[0]
    section = SECTIONS.get(command, command)
    found = re.search(r"^### " + re.escape(section) + r"\n(.*?)(?=^##|\Z)", page, re.M | re.S)
    if not found:
        sys.exit(f"{command}: no section in the page")
    block = re.search(r"^```\n(.*?)^```", found[1], re.M | re.S)
    if not block:
        sys.exit(f"{command}: no block in its section")
    text = block[1].replace("{str: str}", '"map"')
    text = re.sub(r"\[as ([a-z ]+)\]", r'"as \1"', text)
    text = re.sub(r'(?<!["\w])(int|size|bool|str|uuid|time)(\??)(?!["\w])', r'"\1\2"', text)
    schema = json.loads(text)
    # one document serves list and info
    if command == "vdi list":
        return [schema]
    return schema


def check(page, value, schema, where):
    if isinstance(schema, str) and schema.startswith("as "):
        schema = schema_of(page, schema[3:])
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            yield f"{where}: an object is due, not {value!r}"
            return
        for key, inner in schema.items():
            if key not in value:
                yield f"{where}.{key}: is missing"
            else:
                yield from check(page, value[key], inner, f"{where}.{key}")
    elif isinstance(schema, list):
        if not isinstance(value, list):
            yield f"{where}: a list is due, not {value!r}"
            return
        for i, row in enumerate(value):
            yield from check(page, row, schema[0], f"{where}[{i}]")
    elif not (schema.endswith("?") and value is None) and not TYPES[schema.rstrip("?")](value):
        yield f"{where}: {schema} is due, not {value!r}"


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        page = file.read()
    command = " ".join(sys.argv[2:4])
    faults = list(check(page, json.load(sys.stdin), schema_of(page, command), command))
    print("\n".join(faults[:20]))
    sys.exit(1 if faults else 0)


main()
