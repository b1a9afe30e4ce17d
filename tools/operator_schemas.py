"""Writes the schemas of a torch release's functional operators: compile/portable/schemas/torch-VERSION.json.

    python tools/operator_schemas.py 2026-11-30

Run with the Python that has this torch; the date is written down as that of the making. Needs nothing but torch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

SCHEMAS = Path(__file__).resolve().parents[1] / "compile" / "portable" / "schemas"
SOURCE = "torch._C._jit_get_all_schemas() by tools/operator_schemas.py: every aten overload without a mutable argument"


def functional() -> dict[str, str]:
    """The text of each schema by name and overload, sorted; raises ValueError where a release has two of one name."""
    found: dict[str, str] = {}
    for schema in torch._C._jit_get_all_schemas():
        writes = any(argument.alias_info and argument.alias_info.is_write for argument in schema.arguments)
        if writes or not schema.name.startswith("aten::"):
            continue
        name = f"{schema.name}.{schema.overload_name}" if schema.overload_name else schema.name
        if found.setdefault(name, str(schema)) != str(schema):
            raise ValueError(f"{name} has two schemas: {found[name]} and {schema}")
    return dict(sorted(found.items()))


def main(made: str) -> None:
    """Writes the file of the torch that runs this; made: the date, as YYYY-MM-DD."""
    version = torch.__version__.partition("+")[0]
    operators = functional()
    lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(text)}" for name, text in operators.items())
    head = "".join(
        f"  {json.dumps(key)}: {json.dumps(value)},\n"
        for key, value in {"source": SOURCE, "torch": version, "made": made}.items()
    )
    path = SCHEMAS / f"torch-{version}.json"
    path.write_text(f'{{\n{head}  "operators": {{\n{lines}\n  }}\n}}\n', encoding="utf-8")
    print(f"{path.name}: {len(operators)} operators, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
