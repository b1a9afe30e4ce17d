"""Finding the Neuron SDK, and saying plainly when it is not the real one."""

from __future__ import annotations

import importlib

from compile.errors import CompileError


def require(package: str, target: str) -> None:
    """Raises CompileError unless the Neuron package can be imported on this machine.

    The packages of these names on PyPI are placeholders whose import fails with "WRONG PACKAGE"; the real ones come
    from AWS's Neuron repository (https://awsdocs-neuron.readthedocs-hosted.com, "pip repositories").
    """
    rehearse = "Build with --rehearse to trace the same lowered graphs for the CPU of this machine."
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise CompileError(f"{package} is installed, but {error.name} is missing.", rehearse) from None
        raise CompileError(f"Target {target} needs {package}, which is not installed here.", rehearse) from None
    except Exception as error:  # the placeholder raises whatever its author chose
        if "WRONG PACKAGE" in str(error).upper():
            raise CompileError(
                f"The {package} installed here is PyPI's placeholder (WRONG PACKAGE), not the Neuron SDK.",
                f"Install it from AWS's Neuron repository on a compile machine. {rehearse}",
            ) from None
        raise CompileError(f"{package} cannot be imported: {error}", rehearse) from error


def not_yet(target: str) -> CompileError:
    """Compiling with the SDK is a later step of this project; nothing is faked here."""
    return CompileError(
        f"Compiling for {target} with the Neuron SDK is not supported by this version.",
        "Build with --rehearse to trace the same lowered graphs for the CPU of this machine.",
    )
