"""compile.lowering of a spec: which rewrites lowering applies, and what goes wrong in a user's own ones."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from compile.errors import CompileError, described, is_sigterm
from compile.frontend.loading import importable
from compile.lowering import REWRITES, Lowered, LoweringError, Rewrite, load_rewrites, lower

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec

_UNLOWERED = (
    "Its Python code has to do the same in every call: keep what one call leaves for the next, and what the data "
    "decides, out of forward."
)
_REMEDY = "Define subclasses of compile.lowering.FunctionRewrite or ModuleRewrite; docs/lowering.md shows both."


@dataclass(frozen=True)
class Rewriting:
    """off: names of built-in rewrites that are left out. own: a user's rewrites, asked first. files: where from.

    chip: for a chip's compiler; a processor keeps what only that needs rewritten.
    """

    off: tuple[str, ...] = ()
    own: tuple[Rewrite, ...] = ()
    files: tuple[Path, ...] = ()
    chip: bool = True

    def lower(self, module: nn.Module, example: tuple[Tensor, ...], what: str = "The model") -> Lowered:
        """compile.lowering.lower with these switches.

        Raises CompileError when the module cannot be lowered, or a user's rewrite fails: with its file and line.
        """
        with self.guarded(what):
            return lower(module, example, disabled=self.off, extra=self.own, chip=self.chip)

    def with_more(self, first: Rewriting) -> Rewriting:
        """These switches with a user's rewrites of `first` in front. Raises CompileError for two of one name."""
        own = (*first.own, *self.own)
        names = Counter(rewrite.name for rewrite in (*own, *REWRITES))
        twice = [rewrite.name for rewrite in own if names[rewrite.name] > 1]
        if twice:
            raise CompileError(
                f"{first.files[0].name}: the name {twice[0]!r} is another rewrite's.",
                "Names stand in reports: choose another. A built-in rewrite is turned off by compile: "
                f"{{lowering: {{off: [{twice[0]}]}}}}.",
            )
        return replace(self, own=own, files=(*first.files, *self.files))

    @contextmanager
    def guarded(self, what: str = "The model") -> Iterator[None]:
        """An exception out of a user's rewrite becomes a CompileError that names its file and line, as does a
        LoweringError; others pass."""
        try:
            yield
        except CompileError:
            raise
        except Exception as error:
            if any(Path(frame.filename) in self.files for frame in traceback.extract_tb(error.__traceback__)):
                raise CompileError(f"A rewrite of your own failed: {described(error)}.", "Correct it there.") from error
            if not isinstance(error, LoweringError):
                raise
            raise CompileError(f"{what} cannot be lowered: {error}", _UNLOWERED) from error

    def __str__(self) -> str:
        """For a plan; empty where nothing is said."""
        names = {"off": self.off, "own": [rewrite.name for rewrite in self.own]}
        return "; ".join(f"{kind}: {', '.join(found)}" for kind, found in names.items() if found)


ALL = Rewriting()


def of_spec(spec: EndpointSpec, more: Path | None = None) -> Rewriting:
    """What a spec says, with one more file of rewrites (--rewrites), which is asked first.

    Raises CompileError: a file that fails or defines no rewrite, or two rewrites of one name.
    """
    chosen = spec.compile.lowering
    found = made([spec.root / file for file in (chosen and chosen.rewrites) or ()], spec.root)
    found = replace(found, off=tuple((chosen and chosen.off) or ()), chip=spec.compile.target != "cpu")
    return found.with_more(made([more], spec.root)) if more else found


def made(files: Sequence[Path], root: Path) -> Rewriting:
    """The rewrites of these files beside all built-in ones; a file may import modules of its folder and of `root`.

    Raises CompileError: a file that fails or defines no rewrite, or two rewrites of one name.
    """
    found = ALL
    for path in reversed([file.resolve() for file in files]):
        found = found.with_more(Rewriting(own=tuple(_loaded(path, root)), files=(path,)))
    return found


def _loaded(path: Path, root: Path) -> list[Rewrite]:
    with importable(path, root):
        try:
            return load_rewrites(path)
        except SystemExit as error:
            if is_sigterm(error):
                raise
            raise CompileError(f"{path.name} ends Python when it is run: {described(error)}.", _REMEDY) from error
        except LoweringError as error:
            cause = error.__cause__
            if isinstance(cause, SyntaxError):
                file = Path(cause.filename or path).name
                raise CompileError(f"{file}, line {cause.lineno}: {cause.msg}.", "Correct it there.") from error
            if cause is not None:
                raise CompileError(f"{path.name} cannot be run: {described(cause)}.", "Correct it there.") from error
            raise CompileError(str(error).replace(str(path), path.name), _REMEDY) from error
