"""A run's record: what the compiler said of each variant, as files of build/record/."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from operations.errors import OperationError
from operations.jobs.content import stored
from operations.jobs.run import Run


def prefix(run: Run) -> str:
    """Where it lies in the bucket: INDEX/... for each variant, gather/... for the gathering."""
    return f"{run.prefix}record/"


def of_failure(run: Run, root: Path) -> tuple[Path, int]:
    """Bring the whole record to build/record/NAME/RUN/; return the folder and how many files there are.

    Raises:
        OperationError: where S3 refuses, or a key would leave the folder.
    """
    home = root / "build" / "record" / run.name / run.run
    return home, _fetch(run, {path: PurePosixPath(path) for path in stored(run.account, run.bucket, prefix(run))}, home)


def of_success(run: Run, root: Path) -> int:
    """Bring what was said of each graph to build/record/NAME/, where a build here leaves it; return the files' number.

    Raises:
        OperationError: where S3 refuses, or a key would leave the folder.
    """
    found = {path: PurePosixPath(path) for path in stored(run.account, run.bucket, prefix(run))}
    graphs = {path: PurePosixPath(*parts.parts[1:]) for path, parts in found.items() if len(parts.parts) > 2}
    return _fetch(run, graphs, root / "build" / "record" / run.name)


def _fetch(run: Run, files: dict[str, PurePosixPath], home: Path) -> int:
    for path, place in files.items():
        if ".." in place.parts or place.is_absolute():
            raise OperationError(f"s3://{run.bucket}/{prefix(run)} holds the key {path!r}, which leaves its folder")
        target = home / place
        target.parent.mkdir(parents=True, exist_ok=True)
        run.account.s3.download_file(run.bucket, prefix(run) + path, str(target))
    return len(files)
