"""`serve`: the built artifact on a local port."""

from __future__ import annotations

import base64
import shlex
from pathlib import Path
from typing import Annotated

import typer

import endpoint_spec as specs
from compile.cli.options import Name, Root, err, out
from compile.errors import CompileError
from compile.frontend.project import endpoint
from compile.packaging import artifact, golden_sample
from compile.packaging.local_server import Worker, running
from endpoint_spec.lock import lock_path

Port = Annotated[int, typer.Option(min=0, max=65535, help="The port on 127.0.0.1; 0 takes a free one.")]

_SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "application/x-npy": "npy", "application/json": "json"}


def serve_command(name: Name, port: Port = 8080, root: Root = Path()) -> None:
    """Run the artifact's own code on this machine until Ctrl-C, and print the curl line that asks it.

    The rehearsal is served where there is one: it runs on any CPU.
    """
    spec = endpoint(name, root)
    rehearsal = lock_path(spec, True).is_file() or not lock_path(spec, False).is_file()
    built = artifact.find(spec, rehearsal=rehearsal)
    with artifact.unpacked(built) as files:
        environment = golden_sample.environment(spec, built.lock)
        err.print(f"Loading {name} ({'rehearsal' if rehearsal else spec.compile.target}) ...", highlight=False)
        with running(files.folder, environment, files.scratch / "worker.log", port) as worker:
            _introduce(spec, built, worker)
            try:
                code = worker.process.wait()
            except KeyboardInterrupt:
                return
            raise CompileError(f"The worker stopped with exit code {code}.")


def _introduce(spec: specs.EndpointSpec, built: artifact.Built, worker: Worker) -> None:
    """Prints the curl line, with the sample of the lock as the file to send."""
    out.print(
        f"{spec.name} answers at {worker.url}/invocations (weights: {built.lock.weights.source}). Ctrl-C ends it."
    )
    sample = built.lock.sample
    if sample is None:
        return
    asked = sample.request
    folder = built.archive.parent
    kind, answer = (_SUFFIXES.get(t.partition(";")[0].strip(), "bin") for t in (asked.content_type, asked.accept))
    body = folder / f"sample.{kind}"
    body.write_bytes(base64.b64decode(asked.body))
    line = (
        f"curl --fail --data-binary @{shlex.quote(str(body.relative_to(spec.root)))} "
        f"-H {shlex.quote('Content-Type: ' + asked.content_type)} -H {shlex.quote('Accept: ' + asked.accept)} "
        f"{worker.url}/invocations -o answer.{answer}"
    )
    out.print(line, markup=False, highlight=False, soft_wrap=True)


COMMANDS = {"serve": serve_command}
