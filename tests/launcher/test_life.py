"""What the launcher decides, in a world where generations come and go as they are told."""

from __future__ import annotations

import signal
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import BindError
from collector.launcher import life, reload, runs
from collector.launcher.life import Launcher, Phase
from collector.launcher.plan import Handoff, Plan
from collector.receiver.notice import Notice
from collector.telemetry.metrics import Metrics
from tests.fakes import FakeClock, RecordingSignals

PLAN = Plan(binds=("127.0.0.1:1", "127.0.0.1:2"), backlog=8, workers=2, lame_duck_s=3.0, drain_s=20.0)


class FakeGeneration:
    def __init__(self, number: int, handoff: Handoff) -> None:
        self.number, self.handoff, self.pid = number, handoff, 100 + number
        self.status: int | None = None
        self.is_ready = self.is_over = False
        self.told: list[str] = []

    def look(self) -> None:
        pass

    def terminate(self) -> None:
        self.told.append("terminate")

    def hurry(self) -> None:
        self.told.append("hurry")

    def kill(self) -> None:
        self.told.append("kill")

    def end(self, status: int = 0) -> None:
        self.status, self.is_over = status, True


class FakePreflight:
    def __init__(self) -> None:
        self.is_over = self.is_abandoned = False
        self.outcome: Handoff | str = ""

    def abandon(self) -> None:
        self.is_abandoned = True

    def verdict(self) -> Handoff | str:
        return self.outcome

    def end(self, outcome: Handoff | str) -> None:
        self.is_over, self.outcome = True, outcome


class FakeChild:
    def __init__(self) -> None:
        self.status: int | None = None
        self.heard: list[int] = []

    def signal(self, number: int) -> None:
        self.heard.append(number)


class FakeWorld:
    """Everything that was started is kept; `failing` is raised by whatever starts or listens next."""

    def __init__(self) -> None:
        self.listening: set[str] = set()
        self.generations: list[FakeGeneration] = []
        self.preflights: list[FakePreflight] = []
        self.farewells: list[FakeChild] = []
        self.said = 0
        self.notices: list[Notice] = []
        self.failing: Exception | None = None

    def _fail(self) -> None:
        if self.failing is not None:
            error, self.failing = self.failing, None
            raise error

    def listen(self, addresses: Sequence[str], backlog: int) -> None:
        self._fail()
        self.listening |= set(addresses)

    def keep_listeners(self, addresses: Sequence[str]) -> None:
        self.listening &= set(addresses)

    def start_generation(self, number: int, handoff: Handoff) -> FakeGeneration:
        self._fail()
        assert set(handoff.plan.binds) <= self.listening
        self.generations.append(FakeGeneration(number, handoff))
        return self.generations[-1]

    def start_preflight(self) -> FakePreflight:
        self._fail()
        self.preflights.append(FakePreflight())
        return self.preflights[-1]

    def start_farewell(self, handoff: Handoff) -> FakeChild:
        self._fail()
        self.farewells.append(FakeChild())
        return self.farewells[-1]

    def say_farewell(self, handoff: Handoff) -> None:
        self.said += 1

    def post(self, notice: Notice) -> None:
        self.notices.append(notice)


def handoff(**changes: object) -> Handoff:
    fields = {field: getattr(PLAN, field) for field in PLAN.__struct_fields__} | changes
    return Handoff(b"settings", Plan(**fields))


class Task:
    """A launcher in its fake world."""

    def __init__(self) -> None:
        self.world, self.clock, self.signals = FakeWorld(), FakeClock(), RecordingSignals()
        self.launcher = Launcher(handoff(), world=self.world, clock=self.clock, signals=self.signals, counts=Metrics())

    def tick(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        self.launcher.tick()

    def heard(self, number: int) -> None:
        self.launcher.heard(number)
        self.launcher.tick()

    @property
    def youngest(self) -> FakeGeneration:
        return self.world.generations[-1]

    def serve(self) -> FakeGeneration:
        """Bring the youngest generation to ready."""
        self.tick()
        self.youngest.is_ready = True
        self.tick()
        return self.youngest

    def preflight(self, outcome: Handoff | str) -> None:
        """Ask for a reload whose preflight ends so."""
        self.heard(signal.SIGHUP)
        self.world.preflights[-1].end(outcome)
        self.tick()

    @property
    def problem(self) -> str | None:
        told = self.world.notices[-1].reload
        return None if told is None else told.problem


@pytest.fixture
def task() -> Task:
    return Task()


# -- the start ---------------------------------------------------------------------------------------------


def test_a_task_listens_and_serves(task: Task) -> None:
    """The sockets are there before the first worker, so that early connections wait and do not fail."""
    first = task.serve()

    assert set(PLAN.binds) == task.world.listening
    assert [{"generation": 1, "pid": first.pid, "workers": 2, "seconds": 0.0}] == task.signals.named("generation_ready")
    assert not task.launcher.is_busy
    assert task.launcher.exit_status is None


def test_a_busy_address_is_tried_for_a_while(task: Task) -> None:
    """The workers of a launcher that was killed let go of it in a moment."""
    for _ in range(3):
        task.world.failing = BindError("busy", is_busy=True)
        task.tick(1.0)

    assert task.launcher.exit_status is None
    task.tick()
    assert 1 == len(task.world.generations)


@pytest.mark.parametrize(("is_busy", "after_s"), [(True, life.BIND_PATIENCE_S), (False, 0.0)])
def test_an_address_that_stays_busy_or_cannot_be_ends_the_start(task: Task, is_busy: bool, after_s: float) -> None:
    """An operator is to see it, and not a task that never listens."""
    task.world.failing = BindError("127.0.0.1:1 can't be listened on", is_busy=is_busy)
    task.tick(after_s)

    assert (1, "127.0.0.1:1 can't be listened on") == (task.launcher.exit_status, task.launcher.problem)
    assert not task.world.generations


def test_a_start_that_fails_ends_the_task(task: Task) -> None:
    """Code that never ran is no accident to repair; whoever started the task must see it fail."""
    task.tick()
    task.youngest.end(3)
    task.tick()
    task.tick()

    assert 1 == task.launcher.exit_status
    assert "gunicorn ended with 3" in str(task.launcher.problem)
    assert not task.world.farewells


# -- reload ------------------------------------------------------------------------------------------------


def test_the_old_generation_goes_when_the_new_one_is_ready_and_not_before(task: Task) -> None:
    """In between nobody would accept."""
    old = task.serve()
    task.preflight(handoff(workers=3))
    new = task.youngest

    assert new is not old
    assert [] == old.told
    new.is_ready = True
    task.tick()
    assert ["terminate"] == old.told
    assert [] == new.told
    old.end()
    task.tick()
    assert [2] == [call["generation"] for call in task.signals.named("reload_done")]
    assert [(1, 0, False)] == [
        (call["generation"], call["status"], call["killed"]) for call in task.signals.named("generation_ended")
    ]
    assert not task.launcher.is_busy


def test_a_preflight_that_fails_leaves_all_as_it_is_and_says_so(task: Task) -> None:
    """A slip of the pen must not cost more than a line in the log."""
    old = task.serve()
    task.preflight("COLLECTOR_WORKERS: 'many' is not a whole number")

    assert [old] == task.world.generations
    assert [] == old.told
    assert "COLLECTOR_WORKERS: 'many' is not a whole number" == task.problem
    assert ["preflight"] == [call["stage"] for call in task.signals.named("reload_rejected")]
    assert not task.world.notices[-1].leaving


def test_a_reload_that_is_done_clears_the_problem_of_the_one_before(task: Task) -> None:
    """What is shown must be about what is in force."""
    task.serve()
    task.preflight("broken")
    task.preflight(handoff())
    task.serve()

    assert task.problem is None


@pytest.mark.parametrize("late", [False, True])
def test_a_candidate_that_does_not_come_to_be_ready_is_seen_off(task: Task, late: bool) -> None:
    """The preflight can't know all: a port taken by the new code, a directory that it may not write."""
    old = task.serve()
    task.preflight(handoff())
    new = task.youngest
    if late:
        task.tick(reload.READY_S)
    else:
        new.status = 3
        task.tick()

    assert [] == old.told
    assert ["terminate"] == new.told
    assert ["generation"] == [call["stage"] for call in task.signals.named("reload_rejected")]
    assert task.problem
    task.tick(PLAN.drain_s + runs.MARGIN_S)
    assert ["terminate", "kill"] == new.told


def test_a_preflight_that_hangs_is_ended(task: Task) -> None:
    """It would hold up every later reload."""
    task.serve()
    task.heard(signal.SIGHUP)
    task.tick(reload.PREFLIGHT_S)

    assert task.world.preflights[-1].is_abandoned
    assert "60 s" in str(task.problem)
    task.preflight(handoff())
    assert 2 == len(task.world.generations)


def test_hups_during_a_reload_are_one_more_reload_after_it(task: Task) -> None:
    """The file may have changed after it was read; to read it once more is enough."""
    task.serve()
    task.heard(signal.SIGHUP)
    for _ in range(3):
        task.heard(signal.SIGHUP)
    task.world.preflights[-1].end(handoff())
    task.tick()
    task.serve()
    task.tick()

    assert 2 == len(task.world.preflights)
    task.world.preflights[-1].end(handoff())
    task.tick()
    task.serve()
    task.tick(1.0)
    assert 2 == len(task.world.preflights)
    assert 3 == len(task.world.generations)


def test_reloads_wait_while_too_many_generations_drain(task: Task) -> None:
    """Each holds the memory of a whole set of workers."""
    task.serve()
    for _ in range(reload.MAX_LEAVING):
        task.preflight(handoff())
        task.serve()
    task.heard(signal.SIGHUP)

    assert reload.MAX_LEAVING == len(task.world.preflights)
    assert task.launcher.is_busy
    task.world.generations[0].end()
    task.tick()
    task.tick()
    assert reload.MAX_LEAVING + 1 == len(task.world.preflights)


def test_a_new_address_is_listened_on_before_the_old_one_is_let_go(task: Task) -> None:
    """Devices move over while both answer."""
    task.serve()
    task.preflight(handoff(binds=("127.0.0.1:9", "127.0.0.1:2")))

    assert {"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:9"} == task.world.listening
    task.serve()
    assert {"127.0.0.1:2", "127.0.0.1:9"} == task.world.listening


def test_a_new_address_that_cannot_be_listened_on_rejects_the_reload(task: Task) -> None:
    """The old one still serves."""
    task.serve()
    task.heard(signal.SIGHUP)
    task.world.preflights[-1].end(handoff(binds=("127.0.0.1:9", "127.0.0.1:2")))
    task.world.failing = BindError("127.0.0.1:9 can't be listened on", is_busy=True)
    task.tick()

    assert set(PLAN.binds) == task.world.listening
    assert "127.0.0.1:9 can't be listened on" == task.problem
    assert 1 == len(task.world.generations)


def test_an_address_of_a_candidate_that_failed_is_let_go(task: Task) -> None:
    """Connections would wait there for nobody."""
    task.serve()
    task.preflight(handoff(binds=("127.0.0.1:9", "127.0.0.1:2")))
    task.youngest.end(1)
    task.tick()

    assert set(PLAN.binds) == task.world.listening


def test_what_cannot_be_started_rejects_the_reload(task: Task) -> None:
    """No process to be had is a reason like another."""
    task.serve()
    task.world.failing = BlockingIOError(11, "no process")
    task.heard(signal.SIGHUP)

    assert "no process" in str(task.problem)
    task.heard(signal.SIGHUP)
    task.world.preflights[-1].end(handoff())
    task.world.failing = None
    task.tick()
    assert 2 == len(task.world.generations)


def test_a_generation_that_does_not_end_in_its_time_is_killed_and_told(task: Task) -> None:
    """A worker that is stopped by a debugger would keep its memory for ever."""
    old = task.serve()
    task.preflight(handoff(drain_s=1.0))
    task.serve()
    task.tick(PLAN.drain_s + runs.MARGIN_S - 0.1)

    assert ["terminate"] == old.told
    task.tick(0.1)
    assert ["terminate", "kill"] == old.told
    old.end(-9)
    task.tick()
    assert [(True, -9)] == [(call["killed"], call["status"]) for call in task.signals.named("generation_ended")]


# -- the death of a master ---------------------------------------------------------------------------------


def test_a_master_that_dies_is_replaced_at_once(task: Task) -> None:
    """Its workers go on for a second at most; connections wait in the sockets, which stay."""
    first = task.serve()
    first.status = -9
    task.tick(life.LONG_LIFE_S)
    task.tick()

    assert 2 == len(task.world.generations)
    assert set(PLAN.binds) == task.world.listening
    (died,) = task.signals.named("master_died")
    assert {"generation": 1, "pid": first.pid, "status": -9, "restart_in_s": 0.0} == died
    # Its orphans drain by themselves; those that do not are ended.
    assert [] == first.told
    task.tick(PLAN.drain_s + runs.MARGIN_S)
    assert ["kill"] == first.told


def test_a_master_that_dies_again_and_again_is_replaced_later_and_later(task: Task) -> None:
    """A machine must not be kept busy by starts that come to nothing."""
    task.serve()
    delays = []
    for _ in range(8):
        task.youngest.end(1)
        task.tick()
        delays.append(task.signals.named("master_died")[-1]["restart_in_s"])
        task.tick(delays[-1])

    assert [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0] == delays
    assert 9 == len(task.world.generations)
    task.tick(life.LONG_LIFE_S)
    task.youngest.end(1)
    task.tick()
    assert 0.0 == task.signals.named("master_died")[-1]["restart_in_s"]


def test_a_reload_mends_what_dies_again_and_again(task: Task) -> None:
    """The code was broken after it was loaded; the operator puts a good one there and says so."""
    task.serve()
    for _ in range(5):
        task.youngest.end(1)
        task.tick()
        task.tick()
    task.preflight(handoff())
    new = task.serve()

    assert [] == new.told
    task.tick(life.MAX_DELAY_S)
    assert new is task.youngest
    assert not task.launcher.is_busy


def test_a_master_that_dies_during_a_reload_is_replaced_all_the_same(task: Task) -> None:
    """The candidate may come to nothing."""
    task.serve().status = -9
    task.heard(signal.SIGHUP)

    assert 2 == len(task.world.generations)
    task.world.preflights[-1].end("broken")
    task.tick()
    assert [] == task.youngest.told


def test_a_restart_that_finds_no_process_to_be_had_is_tried_again(task: Task) -> None:
    """The machine may have one in a moment."""
    task.serve().end(1)
    task.world.failing = BlockingIOError(11, "no process")
    task.tick()
    assert 1 == len(task.world.generations)

    task.tick(life.FIRST_DELAY_S)

    assert 2 == len(task.world.generations)


# -- the end -----------------------------------------------------------------------------------------------


def end(task: Task) -> int | None:
    """Let all that was told to go be gone, and the farewell be said."""
    for one in task.world.generations:
        if one.told:
            one.end()
    task.tick()
    task.world.farewells[-1].status = 0
    task.tick()
    return task.launcher.exit_status


def test_a_stop_is_first_unready_then_drains_and_says_the_last_word(task: Task) -> None:
    """A load balancer needs a moment to look elsewhere."""
    first = task.serve()
    task.heard(signal.SIGTERM)

    assert task.world.notices[-1].leaving
    assert [] == first.told
    assert task.world.listening
    task.tick(PLAN.lame_duck_s)
    assert ["terminate"] == first.told
    assert set() == task.world.listening
    assert 0 == end(task)
    assert (1, 0) == (len(task.world.farewells), task.world.said)


def test_a_second_term_ends_the_lame_duck_time_and_a_third_does_nothing(task: Task) -> None:
    """Who asks twice does not want to wait."""
    first = task.serve()
    task.heard(signal.SIGTERM)
    task.heard(signal.SIGTERM)
    task.heard(signal.SIGTERM)

    assert ["terminate"] == first.told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_an_interrupt_waits_for_nobody(task: Task, number: int) -> None:
    """At a terminal somebody sits and waits."""
    first = task.serve()
    task.heard(number)

    assert ["hurry"] == first.told
    task.tick(runs.QUICK_S + runs.MARGIN_S)
    assert ["hurry", "kill"] == first.told
    assert 0 == end(task)


def test_an_interrupt_shortens_a_drain(task: Task) -> None:
    """A stop that takes too long can be hurried."""
    first = task.serve()
    task.heard(signal.SIGTERM)
    task.heard(signal.SIGTERM)
    task.heard(signal.SIGQUIT)

    assert ["terminate", "hurry"] == first.told


def test_a_stop_during_a_preflight_ends_it(task: Task) -> None:
    """Its verdict would start what is to end."""
    task.serve()
    task.heard(signal.SIGHUP)
    task.heard(signal.SIGTERM)
    task.heard(signal.SIGTERM)

    assert task.world.preflights[-1].is_abandoned
    assert 1 == len(task.world.generations)
    assert 0 == end(task)


def test_a_stop_ends_candidate_and_leaving_ones_too(task: Task) -> None:
    """Nothing of a task may be left when it ends."""
    old = task.serve()
    task.preflight(handoff())
    current = task.serve()
    task.preflight(handoff())
    candidate = task.youngest
    task.heard(signal.SIGTERM)
    task.tick(PLAN.lame_duck_s)

    assert [["terminate"]] * 3 == [one.told for one in (old, current, candidate)]
    current.end()
    candidate.end()
    task.tick()
    assert Phase.DRAINING is task.launcher.phase
    assert 0 == end(task)


def test_a_stop_while_a_restart_is_due_starts_nothing(task: Task) -> None:
    """There is nobody to be lame."""
    task.serve()
    for _ in range(2):
        task.youngest.end(1)
        task.tick()
        task.tick()
    count = len(task.world.generations)
    task.heard(signal.SIGTERM)
    task.tick(life.MAX_DELAY_S)

    assert count == len(task.world.generations)
    assert 0 == end(task)


def test_a_master_that_dies_as_a_lame_duck_is_not_replaced(task: Task) -> None:
    """Its workers go, and a new one would come too late."""
    first = task.serve()
    task.heard(signal.SIGTERM)
    first.end(-9)
    task.tick()
    task.tick()

    assert 1 == len(task.world.generations)
    assert set() == task.world.listening
    assert 0 == end(task)


def test_what_can_not_be_killed_does_not_hold_up_the_end(task: Task) -> None:
    """A process that hangs in the kernel hears nothing; the task is killed by its orchestrator if we wait."""
    task.serve()
    task.heard(signal.SIGQUIT)
    task.tick(runs.QUICK_S + runs.MARGIN_S)
    task.tick(runs.MARGIN_S)
    task.world.farewells[-1].status = 0
    task.tick()

    assert 0 == task.launcher.exit_status
    assert [True] == [call["killed"] for call in task.signals.named("generation_ended")]


@pytest.mark.parametrize("how", ["fails", "hangs", "does not start"])
def test_a_farewell_that_fails_is_said_by_the_launcher_itself(task: Task, how: str) -> None:
    """The code on the disk may be broken, and the operator still wants the count."""
    first = task.serve()
    task.heard(signal.SIGQUIT)
    first.end()
    task.world.failing = BlockingIOError(11, "no process") if how == "does not start" else None
    task.tick()
    if how == "fails":
        task.world.farewells[-1].status = 1
    task.tick(life.FAREWELL_S if how == "hangs" else 0.0)

    assert (0, 1) == (task.launcher.exit_status, task.world.said)
    if how == "hangs":
        assert [signal.SIGKILL] == task.world.farewells[-1].heard


def test_a_stop_before_anything_listens_ends_at_once(task: Task) -> None:
    """An operator sees the wrong port, and stops it."""
    task.launcher.heard(signal.SIGTERM)
    task.tick()

    assert [] == task.world.generations
    assert 0 == end(task)


def test_a_hup_during_a_stop_is_not_heard(task: Task) -> None:
    """Nothing new may begin."""
    task.serve()
    task.heard(signal.SIGTERM)
    task.heard(signal.SIGHUP)

    assert [] == task.world.preflights


acts = st.sampled_from(
    ["hup", "term", "quit", "good", "bad", "ready", "die", "end", "tick", "wait", "long", "farewell"]
)


@given(st.lists(acts, max_size=40))
def test_whatever_happens_a_stop_comes_to_its_end_and_leaves_nothing(sequence: list[str]) -> None:
    """Signals and deaths come in any order; what must hold is that one serves, and that a stop stops."""
    task = Task()
    world = task.world
    for act in [*sequence, "term", "term", "quit"]:
        if act in {"hup", "term", "quit"}:
            task.launcher.heard({"hup": signal.SIGHUP, "term": signal.SIGTERM, "quit": signal.SIGQUIT}[act])
        elif act in {"good", "bad"} and world.preflights:
            world.preflights[-1].end(handoff() if act == "good" else "broken")
        elif act == "ready" and world.generations:
            world.generations[-1].is_ready = world.generations[-1].status is None
        elif act == "die" and world.generations:
            world.generations[-1].end(-9)
        elif act == "end":
            for one in world.generations:
                if one.told:
                    one.end()
        elif act == "farewell" and world.farewells:
            world.farewells[-1].status = 0
        if task.launcher.exit_status is None:
            task.tick({"wait": 1.0, "long": 61.0}.get(act, 0.0))
        if task.launcher.phase is Phase.SERVING:
            assert set(PLAN.binds) == world.listening
            # Somebody serves, comes, or is due.
            living = [one for one in world.generations if one.status is None and not one.told]
            assert living or task.launcher.is_busy
    for _ in range(100):
        if task.launcher.exit_status is not None:
            break
        task.tick(1.0)

    assert task.launcher.exit_status is not None
    assert set() == world.listening or task.launcher.problem
    assert all(one.told or one.is_over for one in world.generations)
