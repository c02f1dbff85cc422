"""Looks at the Bicep files under infra/ without Bicep: do they parse, do modules and parameters fit, is every name declared, is every
parameter described?

    python .ci/bicep.py infra/main.bicep infra/main.parameters.json

Follows the modules from the first file. Prints what is wrong, one line each, and exits with 1; else says what was looked at.
"""

import json
import re
import sys
from pathlib import Path

from pycep import BicepParser

# What expressions may use without declaring it.
KEYWORDS = {"true", "false", "null", "if", "for", "in", "existing"}
FUNCTIONS = {"concat", "contains", "empty", "guid", "string", "subscription", "subscriptionResourceId", "toLower", "union", "uniqueString"}
STATEMENTS = {"param", "var", "resource", "module", "output", "targetScope"}


class File:
    """A file: its tree, and its text without comments and the literal parts of strings."""

    def __init__(self, path, parser):
        self.path = path
        text = path.read_text(encoding="utf-8")
        self.tree = parser.parse(text=text)
        self.code = expressions(text)
        self.parameters = self.tree.get("parameters", {})
        self.outputs = self.tree.get("outputs", {})
        self.modules = self.tree.get("modules", {})

    def declared(self):
        kinds = ("parameters", "variables", "resources", "modules")
        return {name for kind in kinds for name in self.tree.get(kind, {})}

    def required(self):
        return {name for name, parameter in self.parameters.items() if parameter["default"] is None}

    def is_secure(self, name):
        return any(decorator["type"] == "secure" for decorator in self.parameters[name]["decorators"])

    def is_described(self, name):
        decorators = self.parameters[name]["decorators"]
        return any(decorator["type"] == "description" and decorator["argument"] for decorator in decorators)


def expressions(text):
    """The text with comments and literals blanked out, but with what stands in ${…}."""
    out, depth, i = [], [], 0
    while i < len(text):
        in_literal = bool(depth) and depth[-1] == "'"
        if in_literal and text.startswith("\\", i):
            i += 2
        elif in_literal and text.startswith("${", i):
            depth.append("{")
            out.append(" ")
            i += 2
        elif in_literal:
            if text[i] == "'":
                depth.pop()
                out.append("'")
            i += 1
        elif text.startswith("'''", i):
            # No escapes and no ${…} in these.
            i = text.index("'''", i + 3) + 3
            out.append("''")
        elif text.startswith("//", i):
            i = text.index("\n", i)
        elif text[i] == "'":
            depth.append("'")
            out.append("'")
            i += 1
        else:
            if depth and text[i] == "{":
                depth.append("{")
            elif depth and text[i] == "}":
                depth.pop()
            out.append(text[i])
            i += 1
    return "".join(out)


def names_at_fault(file):
    """Names that are used but not declared, or the other way round."""
    code = re.sub(r"^@.*$", "", file.code, flags=re.M)
    loops = set(re.findall(r"\[for (\w+) in", code))
    # `kind name …`: what is behind is an expression, what is before is not.
    code = re.sub(r"^(param \w+ \w+|output \w+ \w+|var \w+|resource \w+ ''|module \w+ ''|targetScope)", "", code, flags=re.M)
    used = set()
    for match in re.finditer(r"(?<![\w.])([A-Za-z_]\w*)\b(\s*\(|\s*:(?!:))?", code):
        name, after = match.group(1), (match.group(2) or "").strip()
        # A colon is also in `a ? b : c` and `for a in b: c`.
        before = code[: match.start()].rsplit("\n", 1)[-1]
        is_key = after == ":" and not re.search(r"\?[^\n]*$|\bfor \w+ in $", before)
        if is_key or name in KEYWORDS:
            continue
        if after == "(":
            if name not in FUNCTIONS:
                yield f"calls {name}(), which .ci/bicep.py does not know"
            continue
        used.add(name)
    for name in sorted(used - file.declared() - loops):
        yield f"uses {name}, which is not declared"
    for kind in ("parameters", "variables"):
        for name in sorted(set(file.tree.get(kind, {})) - used):
            yield f"declares {name} and does not use it"


def faults(file, modules):
    """What is wrong in one file; `modules` has the files of its modules by their symbolic names."""
    yield from names_at_fault(file)
    for name in file.parameters:
        if not file.is_described(name):
            yield f"parameter {name} has no @description"
    for name, module in modules.items():
        given = set(file.modules[name]["config"].get("params", {}))
        for parameter in sorted(given - set(module.parameters)):
            yield f"module {name} has no parameter {parameter}"
        for parameter in sorted(module.required() - given):
            yield f"module {name} is not given {parameter}"
        for parameter in sorted(given & set(module.parameters) & set(file.parameters)):
            if file.is_secure(parameter) and not module.is_secure(parameter):
                yield f"the secure parameter {parameter} is given to module {name}, where it is not"
    for name, output in sorted(set(re.findall(r"\b(\w+)\.outputs\.(\w+)", file.code))):
        if name not in modules:
            yield f"reads outputs of {name}, which is no module"
        elif output not in modules[name].outputs:
            yield f"module {name} has no output {output}"
    for name, resource in file.tree.get("resources", {}).items():
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}(-preview)?", resource["api_version"] or ""):
            yield f"resource {name} has no API version"


def main(first, parameters):
    parser, problems, files, todo = BicepParser(), [], {}, [Path(first)]
    while todo:
        path = todo.pop()
        if path in files:
            continue
        try:
            files[path] = File(path, parser)
        except Exception as error:  # The parser's own exceptions have no common base.
            print(f"error: {path}: cannot be read: {str(error).splitlines()[0]}", file=sys.stderr)
            return 1
        todo += [path.parent / module["detail"]["path"] for module in files[path].modules.values()]
    for path, file in files.items():
        modules = {name: files[path.parent / module["detail"]["path"]] for name, module in file.modules.items()}
        problems += [f"{path}: {fault}" for fault in faults(file, modules)]
    main_file = files[Path(first)]
    given = json.loads(Path(parameters).read_text(encoding="utf-8"))["parameters"]
    problems += [f"{parameters}: {first} has no parameter {name}" for name in given if name not in main_file.parameters]
    problems += [f"{parameters}: {name} is missing" for name in sorted(main_file.required() - set(given))]
    unseen = sorted(set(Path(first).parent.rglob("*.bicep")) - set(files))
    problems += [f"{path}: no module of {first}" for path in unseen]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not problems:
        print(f"{len(files)} Bicep files, {len(main_file.parameters)} parameters: all fit")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
