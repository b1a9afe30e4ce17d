"""`inferentia graph`: what a graph file holds, and what differs between two."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE
from rich.markup import escape
from rich.table import Table

from compile.cli.options import Json, Root, err, out
from compile.errors import CompileError, UsageError
from compile.frontend.project import endpoint
from compile.packaging import graph_file
from compile.portable import differences
from compile.portable.file import FORMAT, GraphFile, Node, Part, PortableVariant, State
from compile.portable.replay import refs, type_of
from endpoint_spec.lock import artifact_path

What = Annotated[str | None, typer.Argument(help="An endpoint that was built, or a FILE.graph.", show_default=False)]
Role = Annotated[str | None, typer.Option("--role", help="Only graphs of this role, e.g. encoder.")]
Bucket = Annotated[str | None, typer.Option("--bucket", help="Only this bucket, as the list shows it: image=518x518.")]
Batch = Annotated[int | None, typer.Option("--batch", min=1, help="Only this batch size.")]
Diff = Annotated[
    tuple[Path, Path] | None,
    typer.Option("--diff", metavar="A B", help="Compare two graph files; exit 1 where they differ."),
]
Rehearse = Annotated[bool, typer.Option("--rehearse", help="Of the endpoint's rehearsal, not of its build.")]
DIGITS = 12  # of a digest in a table; --json has all 64


def graph_command(
    what: What = None,
    role: Role = None,
    bucket: Bucket = None,
    batch: Batch = None,
    diff: Diff = None,
    rehearse: Rehearse = False,
    json_: Json = False,
    root: Root = Path(),
) -> None:
    """Show the operators, shapes, dtypes and weights of a graph, module by module; or compare two graph files.

    Where a file has several graphs they are listed; --role, --bucket and --batch choose one. With --diff: exit 0 where
    the graphs are the same (headers and source lines are not compared), 1 where they differ, 2 on wrong use.
    """
    if (what is None) == (diff is None):
        raise UsageError("Give an endpoint or a FILE.graph, or --diff with two files.", "inferentia graph --help")
    wanted = {"role": role, "bucket": bucket, "batch": batch}
    if diff:
        _compare(*diff, wanted, json_)
        return
    path = _path(str(what), rehearse, root)
    found = _read(path)
    chosen = _chosen(found, path, wanted)
    if json_:
        typer.echo(json.dumps(_document(path, found, chosen), indent=2, ensure_ascii=False))
        return
    _show_file(path, found)
    if len(chosen) > 1:
        out.print("Choose one with --role, --bucket and --batch to see its operators.", highlight=False)
        return
    _show_graph(chosen[0], found)


def _path(what: str, rehearse: bool, root: Path) -> Path:
    """Of a file by its path, or of what an endpoint's build wrote."""
    if what.endswith(".graph"):
        if not Path(what).is_file():
            raise UsageError(f"There is no file {what}.", "Name a FILE.graph, or an endpoint.")
        return Path(what)
    path = artifact_path(endpoint(what, root), rehearse).parent / graph_file.NAME
    if not path.is_file():
        option = " --rehearse" if rehearse else ""
        raise CompileError(f"{what} has no graph file: {path} is missing.", f"inferentia build {what}{option}")
    return path


def _read(path: Path) -> GraphFile:
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", "Name two graph files.")
    with err.status(f"reading {path}"):
        return graph_file.read(path)


def bucket_text(variant: PortableVariant) -> str:
    """As --bucket takes it: image=518x518,tokens=12."""
    sizes = {axis: size if isinstance(size, list) else [size] for axis, size in variant.bucket.items()}
    return ",".join(f"{axis}={'x'.join(map(str, size))}" for axis, size in sorted(sizes.items()))


def _chosen(file: GraphFile, path: Path, wanted: dict[str, Any]) -> list[PortableVariant]:
    found = []
    for variant in file.variants:
        has = {"role": variant.role, "bucket": bucket_text(variant), "batch": variant.batch_size}
        if all(value is None or value == has[name] for name, value in wanted.items()):
            found.append(variant)
    if not found:
        asked = " ".join(f"--{name} {value}" for name, value in wanted.items() if value is not None)
        there = "; ".join(
            f"--role {one.role} --bucket {bucket_text(one)} --batch {one.batch_size}" for one in file.variants
        )
        raise UsageError(f"{path} has no graph {asked}.", f"It has: {there}")
    return found


def _parts(variant: PortableVariant) -> Iterator[tuple[str, Part]]:
    if variant.host is not None:
        yield "host", variant.host
    yield "device", variant.device


# -- what it holds


def _show_file(path: Path, file: GraphFile) -> None:
    _line(f"[bold]{escape(str(path))}[/bold]")
    for name, value in (("format", FORMAT), *sorted(file.header.items())):
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        _line(f"{escape(_printable(name))}: {escape(_printable(text))}")
    table = _table(f"{len(file.variants)} graph(s)", "role", "bucket")
    for name in ("batch", "host", "device", "weights MB", "references"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in file.variants:
        bytes_ = {state.tensor: _bytes(state, file) for _, part in _parts(one) for state in part.state}
        table.add_row(
            *(escape(one.role), escape(bucket_text(one)), str(one.batch_size)),
            *(str(len(one.host.nodes) if one.host else 0), str(len(one.device.nodes))),
            *(_megabytes(sum(bytes_.values())), str(len(one.references))),
        )
    out.print(table)


def _show_graph(variant: PortableVariant, file: GraphFile) -> None:
    for what, entries in (("in", variant.inputs), ("out", variant.outputs)):
        for entry in entries:
            _line(f"{what:3} {escape(str(entry))}")
    for name, part in _parts(variant):
        _show_part(name, part, file)


def _show_part(name: str, part: Part, file: GraphFile) -> None:
    """Operators by module in the order in which they run, then the weights."""
    table = _table(f"{name}: operators", "module, source", "operator", "makes", "weights")
    names = {state.value: state.name for state in part.state}
    last = None
    for node in part.nodes:
        read = [names[value] for value in refs((node.args, node.kwargs)) if value in names]
        where = escape(node.where or ".") if node.where != last else ""
        makes = "\n".join(escape(str(kind)) for kind in node.types)
        table.add_row(where, escape(node.operator), makes, "\n".join(map(escape, read)))
        last = node.where
    out.print(table)
    table = _table(f"{name}: weights", "name", "type")
    table.add_column("MB", justify="right", no_wrap=True)
    table.add_column("digest", no_wrap=True)
    for state in part.state:
        kind = escape(str(type_of(file.tensors[state.tensor])))
        table.add_row(escape(state.name), kind, _megabytes(_bytes(state, file)), state.tensor[:DIGITS])
    out.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=escape(title), title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _line(text: str) -> None:
    out.print(text, highlight=False, soft_wrap=True)


def _bytes(state: State, file: GraphFile) -> int:
    tensor = file.tensors[state.tensor]
    return tensor.numel() * tensor.element_size()


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.3f}" if count < 1e6 else f"{count / 1e6:.1f}"


def _printable(text: str) -> str:
    """A header is any JSON: no character of it may reach the terminal as a command."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _document(path: Path, file: GraphFile, chosen: Sequence[PortableVariant]) -> dict[str, Any]:
    return {
        "file": str(path),
        "format": FORMAT,
        "header": dict(file.header),
        "graphs": [_graph(variant, file) for variant in chosen],
    }


def _graph(variant: PortableVariant, file: GraphFile) -> dict[str, Any]:
    return {
        "role": variant.role,
        "bucket": dict(variant.bucket),
        "batch_size": variant.batch_size,
        **{
            what: [{"name": entry.name, **asdict(entry.type)} for entry in entries]
            for what, entries in (("inputs", variant.inputs), ("outputs", variant.outputs))
        },
        "references": len(variant.references),
        "parts": {
            name: {
                "nodes": [_node(node) for node in part.nodes],
                "weights": [_state(state, file) for state in part.state],
            }
            for name, part in _parts(variant)
        },
    }


def _node(node: Node) -> dict[str, Any]:
    makes = [asdict(kind) for kind in node.types]
    return {"module": node.module, "source": node.source, "operator": node.operator, "makes": makes}


def _state(state: State, file: GraphFile) -> dict[str, Any]:
    kind = type_of(file.tensors[state.tensor])
    sizes = {"bytes": _bytes(state, file), "parameter": state.parameter}
    return {"name": state.name, **asdict(kind), **sizes, "digest": state.tensor}


# -- what differs


def _compare(before: Path, after: Path, wanted: dict[str, Any], json_: bool) -> None:
    if any(value is not None for value in wanted.values()):
        raise UsageError("--diff compares all graphs.", "Leave --role, --bucket and --batch away.")
    one, other = _read(before), _read(after)
    found = differences.of_files(one, other)
    names = sorted(one.header.keys() | other.header.keys())
    headers = [name for name in names if one.header.get(name, ...) != other.header.get(name, ...)]
    if json_:
        rows = [asdict(difference) for difference in found]
        document = {"before": str(before), "after": str(after), "same": not found, "headers": headers}
        typer.echo(json.dumps({**document, "differences": rows}, indent=2, ensure_ascii=False))
    else:
        _show_differences(found, headers)
    if found:
        raise typer.Exit(1)


def _show_differences(found: Sequence[differences.Difference], headers: Sequence[str]) -> None:
    """As `diff` shows them: - what is gone, + what has come, ~ what changed, below graph, part and module."""
    last = ("", "", "")
    for one in found:
        place = (one.graph, one.part, one.module)
        if place != last:
            _line(f"[bold]{escape(', '.join(filter(None, place)))}[/bold]")
        last = place
        sign, colour = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}[one.kind]
        texts = [text for text in (_short(one, one.before), _short(one, one.after)) if text]
        _line(f"  [{colour}]{sign}[/{colour}] {escape(' '.join([one.what, '  ->  '.join(texts)]).rstrip())}")
    if headers:
        _line(f"The headers differ in: {escape(_printable(', '.join(headers)))}")
    if not found:
        _line("[green]The graphs are the same.[/green]")


def _short(difference: differences.Difference, text: str) -> str:
    digest, _, rest = text.partition(" ")
    return f"{digest[:DIGITS]} {rest}".rstrip() if difference.what.startswith("weight ") else text


COMMANDS = {"graph": graph_command}
