"""endpoints/images.lock.json: the images of your own registry that endpoints run, by digest.

Written by `inferentia image build` alone, and committed. A tag could be moved, a digest is the image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .errors import dotted
from .lock import LockError
from .places import INSTALLED
from .platforms import Image

FILE = "endpoints/images.lock.json"
# Bases in one's own registry, each under its digest; see `image mirror`.
MIRROR = "inferentia-endpoints/bases"
# In the artifact bucket: what images add to their bases, each list under its image's tag.
SBOMS = "images/"
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class BuiltImage(BaseModel):
    """One image. tag: as it was pushed. base, base_digest: what it was built on, as found then.

    sources: digests.image_sources() of then. account, region: of the registry that it is in.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: Digest
    tag: str
    base: str
    base_digest: Digest
    sources: str = Field(pattern=r"^[0-9a-f]{64}$")
    account: str = Field(pattern=r"^\d{12}$")
    region: str


_FILE = TypeAdapter(dict[str, BuiltImage])


def key(image: Image) -> str:
    """Under which the file has an image of the platform table."""
    return f"{image.repository}:{image.tag}"


def sbom_file(image: Image) -> str:
    """The CycloneDX list of what an image adds to its base, beside images.lock.json."""
    return f"endpoints/{key(image).rpartition('/')[2].replace(':', '-')}.sbom.json"


def requirements(image: Image) -> str:
    """The locks of the packages that images/native/install.sh installs, as one text."""
    found = sorted((INSTALLED / "images" / "native").glob(f"*-py{image.python.replace('.', '')}.txt"))
    return "".join(file.read_text(encoding="utf-8") for file in found)


def reference(image: Image, built: BuiltImage | None) -> str:
    """The image's address without its registry: by digest where it was built, else by tag."""
    return f"{image.repository}@{built.digest}" if built else f"{image.repository}:{image.tag}"


def read(root: Path) -> dict[str, BuiltImage]:
    """The images by `key`; none where there is no file. Raises LockError, in one line, for a file that is none."""
    path = root / FILE
    try:
        return _FILE.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise LockError(f"{FILE} cannot be read: {error.strerror}. Mend it, or take it from git.") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = f"{dotted(first['loc'])}: " if first["loc"] else ""
        raise LockError(f"{FILE}: {where}{first['msg']}. Take it from git, or build the images again.") from None


def text(images: Mapping[str, BuiltImage]) -> str:
    """The file's content."""
    rows = {name: image.model_dump(mode="json") for name, image in images.items()}
    return json.dumps(rows, indent=2, sort_keys=True) + "\n"


def find(
    root: Path, image: Image, endpoint: str, account: str | None = None, region: str | None = None
) -> tuple[BuiltImage | None, list[str]]:
    """The image that an endpoint runs, and why it cannot be deployed: to this account and region, where they are known.

    An image of AWS's registry needs none: (None, []).
    """
    if image.registry == "aws":
        return None, []
    command = f"Run: inferentia image build {endpoint}"
    try:
        built = read(root).get(key(image))
    except LockError as error:
        return None, [str(error)]
    if built is None:
        return None, [f"{FILE} has no image {key(image)}, which {endpoint} runs. {command}"]
    for what, wanted, found in (("account", account, built.account), ("region", region, built.region)):
        if wanted is not None and wanted != found:
            return built, [f"The image {key(image)} of {FILE} is in the {what} {found}, not in {wanted}. {command}"]
    return built, []
