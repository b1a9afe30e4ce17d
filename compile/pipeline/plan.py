"""What a build will do: its model, target and variants; then its weights and keys, each found once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compile.analysis import capacity as capacities
from compile.analysis import preflight
from compile.analysis.capacity import Capacity
from compile.analysis.variant import AnalyzedVariant, analyzed
from compile.definition import GraphVariant, ModelDefinition
from compile.errors import CompileError
from compile.frontend import loading, weights
from compile.frontend.weights import ResolvedWeights
from compile.lowering.config import Rewriting, of_spec
from compile.pipeline.cache_key import key, model_digest, shared, versions
from compile.pipeline.captures import made_by
from compile.progress import Reporter
from compile.targets import Target
from compile.targets import resolve as resolve_target
from endpoint_spec.digests import build_content, digest
from endpoint_spec.platforms import Image
from inference_code import tasks

if TYPE_CHECKING:
    from endpoint_spec import EndpointSpec


@dataclass(frozen=True)
class Plan:
    """What a build will do; made before anything expensive."""

    spec: EndpointSpec
    target: Target
    definition: ModelDefinition
    variants: tuple[GraphVariant, ...]
    record: Path
    rewriting: Rewriting

    def analyzed(self, variant: GraphVariant, reporter: Reporter) -> AnalyzedVariant:
        """A variant, lowered. Raises CompileError when it cannot be lowered or traced."""
        graph = self.definition.graphs[variant.role]
        accept = self.spec.compile.accept.findings
        return analyzed(variant, graph, self.spec.compile.target, self.rewriting, accept, reporter)


@dataclass(frozen=True)
class ResolvedPlan:
    """A plan with what is found once for all of its variants.

    digest: of the build. versions: of what captures. keys: of captured variants in the cache, by the variant's file, in
    the plan's order.
    """

    plan: Plan
    weights: ResolvedWeights
    digest: str
    versions: Mapping[str, str]
    keys: Mapping[str, str]

    @property
    def header(self) -> dict[str, Any]:
        """What a graph file states of where its graphs come from."""
        spec, definition, report = self.plan.spec, self.plan.definition, self.weights.report
        license_ = getattr(spec.model.weights, "license", None)
        return {
            "name": spec.name,
            "build_digest": self.digest,
            "made_by": made_by(),
            "target": spec.compile.target,
            "target_torch": self.plan.target.torch,
            "task": definition.task,
            "settings": dict(definition.task_settings),
            "roles": {
                role: {"padding": dict(definition.padding(role)), "shared_outputs": list(graph.shared_outputs)}
                for role, graph in definition.graphs.items()
            },
            "weights": {
                "source": report.source,
                "sha256": report.sha256,
                **({} if license_ is None else {"license": license_}),
            },
        }


def plan(
    spec: EndpointSpec,
    *,
    rehearse: bool,
    check: bool = True,
    work: Path | None = None,
    compiler_python: Path | None = None,
    elsewhere: Image | None = None,
) -> Plan:
    """Raises CompileError when the target cannot be compiled for here, or the model cannot be made.

    check: false for a plan that is only shown, which needs no compiler. work: where the compiler works and the record
    is kept, instead of build/record/. compiler_python: the interpreter with the target's compiler, by default this one.
    elsewhere: the container image in which a job compiles.
    """
    target = resolve_target(spec.compile.target, rehearse, compiler_python, elsewhere)
    if check:
        target.check(spec)
    rewriting = of_spec(spec)
    definition = loading.definition(spec)
    for role, graph in definition.graphs.items():
        preflight.require(
            preflight.of_module(graph.module), spec.compile.accept.findings, f"{spec.name}, graph {role},"
        )
    known = tasks.built_in()
    if spec.serve.handler is None and definition.task not in known:
        raise CompileError(
            f"{spec.path.name}: the model's task {definition.task!r} is not built in ({', '.join(sorted(known))}), "
            "and the spec names no handler.",
            "Write serve: {handler: path.py} with preprocess(request) and postprocess(outputs, item).",
        )
    buckets, batches = definition.sizes(spec.compile)
    variants = tuple(
        GraphVariant(role, bucket, batch) for role in definition.graphs for bucket in buckets for batch in batches
    )
    return Plan(spec, target, definition, variants, (work or spec.root / "build" / "record") / spec.name, rewriting)


def resolve(planned: Plan, reporter: Reporter) -> ResolvedPlan:
    """Find and hash the weights and make the keys. Asked before weights are loaded.

    Raises CompileError for weights that are absent or have another digest than the spec declares.
    """
    spec, made = planned.spec, versions()
    with reporter.step("weights"):
        found = weights.resolve(spec)
    environment = {**made, "target-torch": planned.target.torch, "definition": model_digest(planned.definition)}
    content = build_content(spec, found.report.sha256)
    known = shared(content, found.report, planned.target.rehearsal, environment)
    keys = {variant.file: key(known, variant) for variant in planned.variants}
    return ResolvedPlan(planned, found, digest(content), made, keys)


def survey(planned: Plan, reporter: Reporter) -> Capacity:
    """The matrix with its predicted sizes. Raises CompileError when a graph cannot be lowered or traced."""
    spec = planned.spec
    sizes = [capacities.size(planned.analyzed(variant, reporter), spec) for variant in planned.variants]
    return capacities.capacity(spec, sizes, spec.root)
