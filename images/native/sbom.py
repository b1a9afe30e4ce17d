"""Print what an image adds to its base as a CycloneDX document. The standard library alone.

    python3 -I sbom.py BASE REQUIREMENTS...

REQUIREMENTS: the locked files that were installed; the versions are those that are there. The format:
https://cyclonedx.org/docs/1.5/json/. No date and no serial number: the same image makes the same text.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import metadata
from pathlib import Path
from typing import Any


def sbom(requirements: str, base: str) -> dict[str, Any]:
    """The document. Raises PackageNotFoundError for a package of the file that is not installed."""
    names = re.findall(r"^([A-Za-z0-9._-]+)==", requirements, re.MULTILINE)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": "inferentia-endpoints-native", "bom-ref": "image"}},
        "components": [{"type": "container", "name": base, "bom-ref": "base"}, *map(_component, sorted(names))],
    }


def _component(name: str) -> dict[str, Any]:
    found = metadata(name)
    url = f"pkg:pypi/{name.lower()}@{found['Version']}"
    licence = found.get("License-Expression") or found.get("License")
    known = [{"license": {"name": licence.splitlines()[0]}}] if licence else []
    return {
        "type": "library",
        "name": name,
        "version": found["Version"],
        "purl": url,
        "bom-ref": url,
        "licenses": known,
    }


if __name__ == "__main__":
    print(
        json.dumps(
            sbom("".join(Path(name).read_text(encoding="utf-8") for name in sys.argv[2:]), sys.argv[1]), indent=2
        )
    )
