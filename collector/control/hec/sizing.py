"""
How many endpoints of HEC a service needs: arithmetic alone, with everything that it takes for granted.

Rates are bytes a second in envelopes and before compression, as HEC counts them; M and G are decimal.
"""

from __future__ import annotations

import math

import msgspec

from collector.control.hec import prediction
from collector.telemetry.hec.pace import MAX_PAUSE_S

_DAY_S = 86_400


class Assumption(msgspec.Struct, frozen=True):
    """A number that was not measured here: what it is, and where it comes from."""

    name: str
    value: str
    source: str


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """
    What comes, at its peak.

    `lines_per_s` of one worker, of `line_bytes` each; `wire_part` of that is sent. A request holds up to `batch_bytes`
    and waits `linger_s` for them; one connection carries `ceiling` at the most. `buffer_bytes` are of one worker.
    """

    lines_per_s: float
    line_bytes: float
    tasks: int
    workers: int
    wire_part: float
    batch_bytes: float
    linger_s: float
    ceiling: float
    buffer_bytes: int

    @property
    def connections(self) -> int:
        """Return how many there are: one a worker."""
        return self.tasks * self.workers

    @property
    def worker_rate(self) -> float:
        """Return what one worker sends."""
        return self.lines_per_s * self.line_bytes

    @property
    def rate(self) -> float:
        """Return what all send together."""
        return self.worker_rate * self.connections


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a HEC is planned with.

    Bytes a second that one node takes, from what is safe to what was seen; how many times the load it should take; how
    many nodes may be away; and an outage in seconds.
    """

    node_low: float = 5e6
    node_high: float = 10e6
    head_room: float = 1.5
    spare: int = 1
    outage_s: float = 30.0


class Use(msgspec.Struct, frozen=True):
    """A limit, and which part of it is used; over 1 it does not hold."""

    limit: str
    part: float
    words: str


class Sizing(msgspec.Struct, frozen=True, kw_only=True):
    """
    The answer.

    `nodes` if one takes `node_low`, `nodes_few` if it takes `node_high`; `nodes` is what to begin with. `uses` are the
    limits, that which binds first at their head. `recovery_s` after the outage, infinite if never; `lost_part` of what
    comes in it.
    """

    load: Load
    plan: Plan
    wire_rate: float
    requests_per_s: float
    request_bytes: float
    nodes: int
    nodes_few: int
    head_room: float
    connections_per_node: float
    backlog_bytes: float
    drain: float
    recovery_s: float
    lost_part: float
    bytes_a_day: float
    uses: list[Use]
    assumptions: list[Assumption]

    @property
    def binds(self) -> Use:
        """Return the limit that is reached first."""
        return self.uses[0]


def size(load: Load, plan: Plan, *, assumptions: list[Assumption]) -> Sizing:
    """Return what it takes; `assumptions` are about `load`, those about the plan are added."""
    nodes = nodes_for(load.rate, plan.node_low, plan)
    per_request = min(load.batch_bytes, max(load.line_bytes, load.worker_rate * load.linger_s))
    requests_per_s = load.rate / per_request if load.rate else 0.0
    capacity = nodes * plan.node_low
    drain = min(load.ceiling, capacity / load.connections)
    # What the sender does not notice of the outage's end is a part of the outage.
    silent_s = plan.outage_s + prediction.unnoticed_s(plan.outage_s)
    usable = prediction.usable_bytes(load.buffer_bytes)
    backlog = min(usable, load.worker_rate * silent_s)
    lost_part = prediction.loss_part(load.buffer_bytes, load.worker_rate, silent_s)
    return Sizing(
        load=load,
        plan=plan,
        wire_rate=load.rate * load.wire_part,
        requests_per_s=requests_per_s,
        request_bytes=per_request,
        nodes=nodes,
        nodes_few=nodes_for(load.rate, plan.node_high, plan),
        head_room=capacity / load.rate if load.rate else math.inf,
        connections_per_node=load.connections / nodes,
        backlog_bytes=backlog * load.connections,
        drain=drain,
        recovery_s=prediction.recovery_s(backlog, load.worker_rate, drain=drain),
        lost_part=lost_part,
        bytes_a_day=load.rate * _DAY_S,
        uses=_uses(load, plan, nodes, silent_s, usable),
        assumptions=[*assumptions, *_of_plan(plan, silent_s)],
    )


def nodes_for(rate: float, per_node: float, plan: Plan) -> int:
    """Return ceil(rate * head-room / node) and the spare ones."""
    # What divides evenly may come out a hair above.
    return max(1, math.ceil(rate * plan.head_room / per_node - 1e-9)) + plan.spare


def _uses(load: Load, plan: Plan, nodes: int, silent_s: float, usable: int) -> list[Use]:
    without = nodes - plan.spare
    uses = [
        Use(
            "one connection", load.worker_rate / load.ceiling,
            f"a worker sends {load.worker_rate / 1e6:.3g} MB/s, and its connection carries {load.ceiling / 1e6:.3g}",
        ),
        Use(
            "HEC without its spare nodes", load.rate / (without * plan.node_low),
            f"{load.rate / 1e6:.3g} MB/s come, and {without} of {nodes} nodes take {without * plan.node_low / 1e6:.3g}",
        ),
        Use(
            "the buffer in an outage", load.worker_rate * silent_s / usable,
            f"{load.worker_rate * silent_s / 1e6:.3g} MB come to a worker in {silent_s:.3g} s of silence, and "
            f"{usable / 1e6:.3g} MB of its buffer are for them",
        ),
    ]  # fmt: skip
    return sorted(uses, key=lambda use: use.part, reverse=True)


def _of_plan(plan: Plan, silent_s: float) -> list[Assumption]:
    return [
        Assumption(
            "a node takes", f"{plan.node_low / 1e6:g} to {plan.node_high / 1e6:g} MB/s, uncompressed",
            "no figure of Splunk's is known. Splunk Connect for Kafka: 32 MB/s into 3 indexers, 10.7 each; "
            "SC4S: 7 each. "
            "Measure yours: collector hec tune --url",
        ),
        Assumption("head-room", f"{plan.head_room:g} times the load", "a choice: peaks, and a backlog that has to go"),
        Assumption("spare nodes", f"{plan.spare}", "a choice: one is updated, or dies, and nobody notices"),
        Assumption(
            "an outage", f"{plan.outage_s:g} s, {silent_s:.3g} s for the sender",
            f"yours to say (--outage); the sender pauses between attempts, for up to {MAX_PAUSE_S:g} s, so that it "
            "finds HEC back later than it is (99 of 100 outages)",
        ),
        Assumption("load is even", "over workers, tasks and nodes", "a balancer before HEC that spreads connections"),
    ]  # fmt: skip
