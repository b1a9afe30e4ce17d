"""Prove an image from inside: start it as SageMaker does, on a small artifact, and compare an answer.

    python3 -I prove.py SOURCES TARGET

SOURCES: the folder that has inference_code/. The graph is traced for the CPU and marked as a rehearsal, so that no chip
is asked for: this proves Python, packages, verifier, server and batching, not the chip.
Exit code 0: the answer is right; 1, with a line: it is not, or there is none.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

MODEL_DIR, ENTRYPOINT = Path("/opt/ml/model"), Path(__file__).with_name("entrypoint.sh")
STARTS_WITHIN_SECONDS = 120
ASKED, EXPECTED = {"x": [1.0, 2.0, 3.0]}, [2.0, 4.0, 6.0]


def make_artifact(sources: Path, target: str) -> str:
    """An artifact whose model doubles [batch, 3]; returns the sha256 of its manifest."""
    import torch

    sys.path.insert(0, str(sources))
    from inference_code.artifact import manifest as m

    class Doubling(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    example = torch.zeros(2, 3)
    shutil.rmtree(MODEL_DIR, ignore_errors=True)
    (MODEL_DIR / "graphs").mkdir(parents=True)
    shutil.copytree(
        sources / "inference_code",
        MODEL_DIR / "code" / "inference_code",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    torch.jit.save(torch.jit.trace(Doubling(), example), str(MODEL_DIR / "graphs" / "main.pt"))
    tensor = m.TensorDescription("x", (2, 3), "float32")
    graph = m.PackagedVariant(
        role="main",
        bucket={"n": 1},
        batch_size=2,
        file="graphs/main.pt",
        inputs=(tensor,),
        outputs=(m.TensorDescription("output", (2, 3), "float32"),),
        structure={"kind": "tensor", "index": 0},
    )
    files = {str(p.relative_to(MODEL_DIR)): m.file_sha256(p) for p in MODEL_DIR.rglob("*") if p.is_file()}
    manifest = m.ArtifactManifest(
        name="proof",
        rehearsal=True,
        stand_in=False,
        target=target,
        digests=m.Digests("0" * 64, "0" * 64),
        task=m.TaskEntry("tensor", {}),
        handler=None,
        graphs=(graph,),
        versions={"torch": str(torch.__version__)},
        cores_per_copy=1,
        environment={},
        files=files,
    )
    m.write(manifest, MODEL_DIR / m.FILE_NAME)
    return hashlib.sha256((MODEL_DIR / m.FILE_NAME).read_bytes()).hexdigest()


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, server: subprocess.Popen[bytes]) -> object:
    """The answer to one request, once the server is healthy. Raises OSError, and HTTPError for a refusal."""
    end = time.monotonic() + STARTS_WITHIN_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"{url}/ping", timeout=2).close()
            break
        except OSError:
            if time.monotonic() > end or server.poll() is not None:
                raise
            time.sleep(0.2)
    body, headers = json.dumps(ASKED).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/invocations", body, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def main() -> int:
    """See the module."""
    digest = make_artifact(Path(sys.argv[1]), sys.argv[2])
    port = free_port()
    # The port as SageMaker gives it to a container that is not alone on its machine.
    given = {"ENDPOINT_MANIFEST_SHA256": digest, "ENDPOINT_SERVER": "native", "SAGEMAKER_BIND_TO_PORT": str(port)}
    server = subprocess.Popen(["sh", str(ENTRYPOINT), "serve"], env={**os.environ, **given})
    try:
        found = ask(f"http://127.0.0.1:{port}", server)
    except (OSError, ValueError) as error:  # no answer, a refusal, or no JSON
        text = error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else str(error)
        print(f"prove.py: no answer from the server: {text}", file=sys.stderr)
        return 1
    finally:
        server.terminate()
        server.wait(30)
    if not isinstance(found, dict) or found.get("outputs") != EXPECTED:
        print(f"prove.py: {json.dumps(ASKED)} was answered with {json.dumps(found)}, not {EXPECTED}", file=sys.stderr)
        return 1
    print(f"prove.py: the server answered {json.dumps(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
