"""Tiny artifacts for the hosting tests: their code/inference_code/server is a plain HTTP server, not the project's."""

from __future__ import annotations

import io
import tarfile

SERVER = """
import argparse, json, os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
parser = argparse.ArgumentParser()
parser.add_argument("--model-dir"); parser.add_argument("--host"); parser.add_argument("--port", type=int)
arguments = parser.parse_args()
MODE = "MODE_HERE"
print("this worker is", MODE, flush=True)
if MODE == "broken":
    sys.exit("operator aten::frobnicate is not supported")
class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_): pass
    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items(): self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def do_GET(self): self.answer(200 if MODE != "silent" else 500)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if body == b"crash": os._exit(3)
        if body == b"child": body = str(os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "600")).encode()
        if body == b"slow": time.sleep(1.5)
        if body == b"bad": return self.answer(400, b'{"error": "bad"}', Content_Type="application/json")
        if body == b"big": return self.answer(200, b"x" * 26_000_000, Content_Type="text/plain")
        seen = {name: self.headers[name] for name in (
            "Content-Type", "Accept", "X-Amzn-SageMaker-Custom-Attributes", "X-Amzn-SageMaker-Inference-Id"
        )}
        shown = {"mode": MODE, "body": body.decode("latin-1")[:50], "size": len(body), "headers": seen,
                 "host": self.headers["Host"], "origin": self.headers["Origin"],
                 "pid": os.getpid(), "flavour": os.environ.get("FLAVOUR"), "folder": arguments.model_dir}
        self.answer(200, json.dumps(shown).encode(), Content_Type="application/json", X_Other="dropped",
                    X_Amzn_SageMaker_Custom_Attributes="seen=yes")
ThreadingHTTPServer((arguments.host, arguments.port), Handler).serve_forever()
"""


def artifact(mode: str) -> bytes:
    """A model.tar.gz whose worker answers with `mode`; "broken" ends at its start, "silent" never passes its ping."""
    return tarball({"code/inference_code/__init__.py": "", "code/inference_code/server.py": server(mode)})


def server(mode: str) -> str:
    """The text of the worker."""
    return SERVER.replace("MODE_HERE", mode)


def tarball(files: dict[str, str]) -> bytes:
    """A gzip compressed tar archive of text files; names are taken as they are, safe or not."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()
