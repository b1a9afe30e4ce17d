"""What a conformance run does and what each step costs at worst; it stops before a budget, never after it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

from endpoint_spec import EndpointSpec
from endpoint_spec.cost import ALARM_METRICS, HOURS
from endpoint_spec.custom_metrics import custom_metrics
from endpoint_spec.platforms import price, service_price

from ..errors import OperationError, WrongUseError

FREE_DASHBOARDS = 3  # of an account, https://aws.amazon.com/cloudwatch/pricing/ (free tier)


@dataclass(frozen=True)
class Step:
    """One step: what it makes or changes, the minutes after which it is ended, and the most instances that run then."""

    name: str
    does: str
    minutes: int
    instances: int


# The spec scales to 2 instances, and to 3 from `scale` on. An update runs the new ones beside the old ones.
STEPS = (
    Step("deploy", "artifact to S3; stack of a model, endpoint, scaling, 4 alarms, dashboard, key, topic, log", 40, 2),
    Step("invoke", "a few requests, good and bad; an update that must be refused; the metrics that appear", 15, 2),
    Step("update", "the alarm's threshold and the model's environment change", 40, 4),
    Step("alarm", "an update with the alarm as its rollback trigger, and requests until it rings", 30, 4),
    Step("rollback", "CloudFormation takes that update back", 45, 4),
    Step("scale", "a second instance", 40, 5),
    Step("destroy", "everything of it; an update that still runs is waited for", 60, 5),
)
DESTROY = STEPS[-1]


@dataclass(frozen=True)
class Prices:
    """US dollars an hour of an instance and of all else together; once: what is billed whole. Each with its reason."""

    instance: float
    services: float
    once: float
    reasons: tuple[str, ...]


def prices(spec: EndpointSpec, root: Path, hourly: float | None, dashboards: int) -> Prices:
    """The prices of a run. hourly: of an instance, where the user gave it. dashboards: that the account has already.

    A key is billed by the hour (https://aws.amazon.com/kms/pricing/), metrics too (https://aws.amazon.com/cloudwatch/pricing/);
    of a dashboard no document says so, and it counts whole unless it is one of the account's free ones.

    Raises:
        WrongUseError: the instance's price is not known and was not given, or is no price.
    """
    kind, known = spec.serve.instance_type, price(spec.serve.instance_type, "sagemaker", root)
    if hourly is None and known is None:
        raise WrongUseError(
            f"no price of {kind} is known, so no budget can be kept. Look it up "
            "(https://aws.amazon.com/sagemaker/pricing/) and give it in US dollars: --hourly-price 0.12; or write "
            "it into prices.yaml."
        )
    if hourly is not None:
        each, reason = hourly, "--hourly-price"
    else:
        assert known is not None  # noqa: S101  (refused above)
        each, reason = known.usd_per_hour, f"{known.region}, {known.date}, {known.source}"
    if not isfinite(each) or each <= 0:
        raise WrongUseError(f"an hour of {kind} cannot cost {each:g} US dollars. Give its price: --hourly-price 0.12.")
    monthly = {
        "customer_key": 1,
        "alarm_metric": ALARM_METRICS,
        "custom_metric": custom_metrics(spec).known,
    }
    services = sum(service_price(name, root).usd * count for name, count in monthly.items()) / HOURS
    dashboard = service_price("dashboard", root).usd
    free = dashboards < FREE_DASHBOARDS
    billed = "one of the account's first three, which are free" if free else f"{dashboard:g} USD, whole"
    counted = ", ".join(f"{count} {name.replace('_', ' ')}s" for name, count in monthly.items())
    return Prices(
        each,
        services,
        0.0 if free else dashboard,
        (
            f"{kind}: {each:g} USD an hour ({reason})",
            f"{counted}: {services:.4f} USD an hour together",
            f"dashboard: {billed}",
            "not counted: requests, data, logs, storage of a few MB; alarms of scaling, whose number is not documented",
        ),
    )


def worst(step: Step, of: Prices) -> float:
    """US dollars that a step costs at worst: all its minutes, with the most instances."""
    return step.minutes / 60 * (step.instances * of.instance + of.services)


def check_budget(budget: float | None) -> float:
    """The budget, or WrongUseError where there is none."""
    if budget is None:
        raise WrongUseError("a conformance run costs money and needs a limit in US dollars: --budget 2.")
    if not isfinite(budget) or budget <= 0:
        raise WrongUseError(f"a budget of {budget:g} US dollars buys nothing. Give one such as --budget 2.")
    return budget


@dataclass
class Ledger:
    """What a run may have cost so far; every step asks it before it begins. now: seconds, of any beginning."""

    budget: float
    prices: Prices
    now: Callable[[], float] = time.monotonic
    spent: float = 0.0
    running: tuple[Step, float] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.spent += self.prices.once

    def begin(self, step: Step) -> None:
        """End the step before, at what its time costs at worst, and begin this one.

        Raises:
            OperationError: the step, and destroying everything after it, might exceed the budget. Destroying is never
                refused.
        """
        self.end()
        after = 0.0 if step is DESTROY else worst(DESTROY, self.prices)
        needed = self.spent + worst(step, self.prices) + after
        if step is not DESTROY and needed > self.budget:
            raise OperationError(
                f"stopped before {step.name}: {self.spent:.2f} USD may be spent, {step.name} costs up to "
                f"{worst(step, self.prices):.2f} and destroying up to {after:.2f}: more than the budget of "
                f"{self.budget:.2f}. Give at least --budget {needed + 0.005:.2f}."
            )
        self.running = step, self.now()

    def end(self) -> None:
        """What the running step may have cost."""
        if self.running is not None:
            step, began = self.running
            self.spent += (self.now() - began) / 3600 * (step.instances * self.prices.instance + self.prices.services)
            self.running = None


def total(of: Prices) -> float:
    """US dollars of a whole run at worst."""
    return of.once + sum(worst(step, of) for step in STEPS)
