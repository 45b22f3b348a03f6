"""Tenants reload without a restart, in all workers at once, and never to what no valid file said."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.admission import tenant_file
from collector.admission.tenants import LEAD_S, REST_S, TenantBook
from collector.settings import DEV_TENANT, parse_tenants
from collector.tenant import Tenant
from tests.fakes import FakeClock, RecordingSignals

ROOT = Path(__file__).resolve().parents[2]
TICK_S = 0.25
#: In this time a change is seen, rests, is published and comes into force.
RELOAD_S = REST_S + LEAD_S + 3 * TICK_S


def toml(*tenant_ids: str, extra: str = "") -> str:
    """Write a file with these tenants, each with a key of its own."""
    digests = {tenant_id: sha256(tenant_id.encode()).hexdigest() for tenant_id in tenant_ids}
    return extra + "".join(f'[tenants.{name}]\nkeys = ["{digest}"]\n' for name, digest in digests.items())


def tenants(*tenant_ids: str) -> tuple[Tenant, ...]:
    return parse_tenants(toml(*tenant_ids), ("default",))


class Task:
    """Workers of one task on one board, with one clock and one record of their signals."""

    def __init__(self, folder: Path, text: str) -> None:
        self.file = folder / "collector.toml"
        self.board = folder / "spool" / "tenants"
        self.file.write_text(text)
        self.clock = FakeClock()
        self.signals = RecordingSignals()
        self.books: list[TenantBook] = []
        self.is_held_back = False
        self.held_back: list[Callable[[], None]] = []

    def spawn(self, run: Callable[[], None]) -> None:
        """Run at once, or let it wait in `held_back`."""
        if self.is_held_back:
            self.held_back.append(run)
        else:
            run()

    def book(
        self,
        initial: tuple[Tenant, ...] | None = None,
        *,
        read_s_ago: float = 0.0,
        routes: tuple[str, ...] = ("default",),
        with_file: bool = True,
    ) -> TenantBook:
        """Start a worker; without `initial` it read the file as it is now, and knows its text."""
        text_sha256 = sha256(self.file.read_bytes()).hexdigest() if initial is None else ""
        book = TenantBook(
            self.file if with_file else None,
            self.board,
            initial=parse_tenants(self.file.read_text(), routes) if initial is None else initial,
            routes=routes,
            clock=self.clock,
            signals=self.signals,
            read_at_s=self.clock.monotonic() - read_s_ago,
            text_sha256=text_sha256,
            spawn=self.spawn,
        )
        book.start()
        self.books.append(book)
        return book

    def end(self, book: TenantBook) -> None:
        """End a worker as the kernel does: its locks go."""
        self.books.remove(book)
        book.close()

    def tick(self) -> None:
        self.clock.advance(TICK_S)
        for book in self.books:
            book.tick()

    def run(self, seconds: float = RELOAD_S) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.tick()

    def ids(self) -> list[str]:
        """Return each worker's tenants, as one word a worker."""
        return [",".join(tenant.id for tenant in book.table.tenants) for book in self.books]

    def said(self) -> list[str]:
        return [name for name, _ in self.signals.calls]


@pytest.fixture
def task(tmp_path: Path) -> Iterator[Task]:
    task = Task(tmp_path, toml("a"))
    yield task
    for book in task.books:
        book.close()


# -- a change ----------------------------------------------------------------------------------------------


def test_a_change_comes_into_force_in_all_workers_at_one_instant(task: Task) -> None:
    """A device that is answered by two workers must not meet two truths."""
    for _ in range(3):
        task.book()
    task.run()
    task.file.write_text(toml("a", "b"))
    moments: list[list[str]] = []

    for _ in range(200):
        task.clock.advance(0.01)
        # The workers tick at odd times, and never all of them.
        task.books[len(moments) % 3].tick()
        moments.append(task.ids())

    assert all(1 == len(set(moment)) for moment in moments)
    assert ["a"] * 3 == moments[0]
    assert ["a,b"] * 3 == moments[-1]
    assert ["tenants_loaded", "tenants_loaded"] == task.said()


def test_a_change_waits_until_every_worker_may_have_seen_it(task: Task) -> None:
    """A worker that was busy for a moment must not be the last to know."""
    early, late = task.book(), task.book()
    task.run()
    task.file.write_text(toml("b"))
    early.tick()
    task.clock.advance(REST_S)

    early.tick()
    task.clock.advance(LEAD_S - 0.01)
    late.tick()

    assert ["a", "a"] == task.ids()

    task.clock.advance(0.01)

    assert ["b", "b"] == task.ids()


def replaced(file: Path, text: str) -> None:
    other = file.with_name("other")
    other.write_text(text)
    other.replace(file)


def edited_in_place(file: Path, text: str) -> None:
    file.write_text(text)


def swapped_by_links(file: Path, text: str) -> None:
    """Do it as Kubernetes does: the file is a link into a folder that is a link."""
    fresh = Path(tempfile.mkdtemp(dir=file.parent))
    (fresh / "collector.toml").write_text(text)
    data = file.parent / "..data"
    (file.parent / "..tmp").symlink_to(fresh)
    (file.parent / "..tmp").replace(data)
    if not file.is_symlink():
        file.unlink()
        file.symlink_to("..data/collector.toml")


def deleted_first(file: Path, text: str) -> None:
    file.unlink()
    file.write_text(text)


@pytest.mark.parametrize("change", [replaced, edited_in_place, swapped_by_links, deleted_first])
def test_a_file_may_change_in_any_way(task: Task, change: Callable[[Path, str], None]) -> None:
    """Editors, mounts and copying each have their own."""
    task.book()
    task.run()

    change(task.file, toml("b"))
    task.run()
    first = task.ids()
    change(task.file, toml("c"))
    task.run()

    assert (["b"], ["c"]) == (first, task.ids())


def test_a_change_of_the_same_length_and_time_is_seen(task: Task) -> None:
    """`cp -p` and `touch -r` keep both."""
    task.book()
    task.run()
    status = task.file.stat()
    task.file.write_text(toml("b"))
    os.utime(task.file, ns=(status.st_atime_ns, status.st_mtime_ns))

    task.run()

    assert status.st_size == task.file.stat().st_size
    assert ["b"] == task.ids()


def test_a_file_that_is_being_written_is_left_to_rest(task: Task) -> None:
    """Half a file can be valid, and lack half of the tenants."""
    task.book()
    task.run()

    for text in itertools.accumulate([toml("a"), *(toml(f"t{number}") for number in range(20))]):
        task.file.write_text(text)
        task.tick()
        task.clock.advance(REST_S - TICK_S - 0.01)
        task.tick()

    assert ["a"] == task.ids()
    assert 1 == len(task.said())

    task.run()

    assert [21] == [len(book.table) for book in task.books]


def test_a_file_that_changes_while_it_is_read_is_read_again(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read is the beginning of one file and the end of another."""
    book = task.book()
    task.run()
    task.file.write_text(toml("b"))
    really = Path.read_bytes
    writes = iter([toml("b", "c")])

    def read_bytes(path: Path) -> bytes:
        content = really(path)
        if path == task.file and (text := next(writes, "")):
            path.write_text(text)
        return content

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    seen = set()
    for _ in range(20):
        task.tick()
        seen |= {*task.ids()}

    assert {"a", "b,c"} == seen
    assert [] == book.problems


def test_what_is_no_change_of_the_tenants_changes_nothing(task: Task) -> None:
    """A comment, or a setting that is read at the start, is no reload."""
    task.book()
    task.run()

    task.file.write_text(toml("a", extra="drain_s = 3 # soon\n"))
    task.run()

    assert ["tenants_loaded"] == task.said()
    assert [[]] == [book.problems for book in task.books]


def test_a_second_change_waits_for_the_first(task: Task) -> None:
    """Two that are on their way at once could overtake each other."""
    task.book()
    task.book()
    task.run()
    task.file.write_text(toml("b"))
    task.run(REST_S + 2 * TICK_S)
    published = len(task.said())
    task.file.write_text(toml("c"))
    seen = set()

    for _ in range(20):
        task.tick()
        seen |= {tuple(task.ids())}

    assert 2 == published
    assert {("a", "a"), ("b", "b"), ("c", "c")} == seen


def test_a_tick_that_is_overtaken_leaves_out_no_tenants(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its look at the clock and its look at the board, an instant may pass and the next one be published."""
    swift, slow = task.book(), task.book()
    task.run()
    task.file.write_text(toml("b"))
    task.run(REST_S + 2 * TICK_S)
    task.file.write_text(toml("c"))
    task.run(LEAD_S - 2 * TICK_S)
    look = task.clock.monotonic

    def overtaken() -> float:
        now = look()
        monkeypatch.undo()
        task.clock.advance(LEAD_S)
        swift.tick()
        return now

    monkeypatch.setattr(task.clock, "monotonic", overtaken)
    before = [len(task.said())]
    slow.tick()
    before.append(len(task.said()))

    assert [2, 3] == before
    assert ["b", "b"] == task.ids()

    task.run()

    assert ["c", "c"] == task.ids()


# -- a broken file -----------------------------------------------------------------------------------------


def remove(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize(
    ("breaking", "said"),
    [
        (lambda file: file.write_text("[tenants"), "is not TOML"),
        (lambda file: file.write_text(toml("b") + "keyz = 1"), "[tenants.b] keyz: no such field"),
        (lambda file: file.write_text('[tenants.b]\nkeys = ["plain"]'), "looks like a plain key"),
        (lambda file: file.write_text(toml("b") + 'route = "x"'), "'x' is no route"),
        (lambda file: file.write_text(""), "has no [tenants.<id>] table"),
        (lambda file: file.write_bytes(b"\xff"), "is not UTF-8"),
        (remove, "can't be read: No such file or directory"),
    ],
)
def test_a_broken_file_keeps_the_tenants_and_is_told_once(
    task: Task, breaking: Callable[[Path], object], said: str
) -> None:
    """A slip of the pen is no reason to turn devices away, and one line is enough to say so."""
    for _ in range(3):
        task.book()
    task.run()

    breaking(task.file)
    task.run(10.0)

    assert ["a"] * 3 == task.ids()
    (rejection,) = task.signals.named("tenants_rejected")
    assert said in rejection["problems"][0]
    assert [rejection["problems"]] * 3 == [book.problems for book in task.books]


def test_a_file_that_is_mended_is_no_problem_any_more(task: Task) -> None:
    """Readiness shows the problem until it is gone, to the old content or to a new one."""
    task.book()
    task.book()
    task.run()
    for text, ids in ((toml("a"), "a"), (toml("b"), "b")):
        task.file.write_text("[")
        task.run()

        assert all(book.problems for book in task.books)

        task.file.write_text(text)
        task.run()

        assert [[], []] == [book.problems for book in task.books]
        assert [ids] * 2 == task.ids()


def test_a_broken_file_that_is_saved_again_is_not_told_again(task: Task) -> None:
    """Only what is new is news; another mistake is."""
    task.book()
    task.run()
    for text in ("[", "[", "[[", "[["):
        task.file.unlink()
        task.file.write_text(text)
        task.run()

    assert 2 == len(task.signals.named("tenants_rejected"))


def test_tenants_that_are_gone_do_not_bring_the_default_one(task: Task) -> None:
    """An emptied file would open a public server to a key that everybody knows."""
    task.book()
    task.run()
    task.file.write_text("drain_s = 3\n")

    task.run()

    assert ["a"] == task.ids()


def test_a_run_with_the_default_tenant_may_return_to_it(task: Task) -> None:
    """On a laptop tenants are tried out, and taken out again."""
    task.file.write_text("")
    task.book((DEV_TENANT,))
    seen = [task.ids()]
    for text in (toml("a"), "drain_s = 3\n"):
        task.file.write_text(text)
        task.run()
        seen.append(task.ids())

    assert [["dev"], ["a"], ["dev"]] == seen


# -- what a reading costs ----------------------------------------------------------------------------------


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each text that is parsed from now on."""
    texts: list[str] = []

    def note(text: str, routes: Collection[str], *, fallback: tuple[Tenant, ...] | None) -> tuple[Tenant, ...]:
        texts.append(text)
        return parse_tenants(text, routes, fallback=fallback)

    monkeypatch.setattr(tenant_file, "parse_tenants", note)
    return texts


def test_a_file_that_is_as_the_settings_read_it_is_not_parsed_again(task: Task, parsed: list[str]) -> None:
    """With ten thousand tenants it took a second of the worker's loop, soon after every start."""
    for _ in range(3):
        task.book()
    task.run(5.0)

    assert [] == parsed


def test_a_file_that_changed_since_the_settings_read_it_is_parsed(task: Task, parsed: list[str]) -> None:
    """What the settings say was read a moment before the start."""
    task.book()
    task.file.write_text(toml("b"))
    task.run()

    assert [toml("b")] == parsed
    assert ["b"] == task.ids()


@pytest.mark.parametrize("text", [toml("b"), toml("a", extra="# the same tenants\n")])
def test_a_changed_file_is_parsed_by_one_worker(task: Task, parsed: list[str], text: str) -> None:
    """What one has found out is on the board for all, also that nothing is new."""
    for _ in range(3):
        task.book()
    task.run()
    task.file.write_text(text)
    task.run(5.0)

    assert [text] == parsed


def test_a_file_that_has_to_wait_its_turn_is_not_parsed_again(task: Task, parsed: list[str]) -> None:
    """Of two changes in a moment the second waits until the first is in force, and is looked at by each tick."""
    task.book()
    task.run()
    task.file.write_text(toml("b"))
    task.run(REST_S + TICK_S)
    task.file.write_text(toml("c"))
    task.run(3 * RELOAD_S)

    assert [toml("b"), toml("c")] == parsed
    assert ["c"] == task.ids()


def test_workers_go_on_while_a_file_is_parsed_and_change_together_afterwards(task: Task) -> None:
    """One worker has the lock for a second or two; uploads, ticks and the instant must not suffer for it."""
    for _ in range(3):
        task.book()
    task.run()
    task.file.write_text(toml("b"))
    task.is_held_back = True
    task.run(5.0)
    assert ["a"] * 3 == task.ids()
    assert 3 == len(task.held_back)
    task.is_held_back = False
    task.held_back.pop(1)()
    published_at_s = task.clock.monotonic()

    moments: list[list[str]] = []
    while task.clock.monotonic() < published_at_s + LEAD_S + TICK_S:
        task.clock.advance(0.01)
        task.books[len(moments) % 3].tick()
        moments.append(task.ids())

    assert all(1 == len(set(moment)) for moment in moments)
    assert LEAD_S == pytest.approx(0.01 * (1 + moments.index(["b"] * 3)), abs=0.02)
    assert ["tenants_loaded", "tenants_loaded"] == task.said()


def test_the_lead_is_counted_from_the_end_of_the_parsing(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing may take longer than the lead: from its beginning, the others would learn of an instant that is over."""
    book, other = task.book(), task.book()
    task.run()

    def slowly(run: Callable[[], Any]) -> Any:
        found = run()
        task.clock.advance(3.0)
        return found

    monkeypatch.setattr(book, "_offload", slowly)
    task.file.write_text(toml("b"))
    for _ in range(5):
        task.clock.advance(TICK_S)
        book.tick()
    assert ["a", "a"] == task.ids()
    other.tick()
    task.clock.advance(LEAD_S)

    assert ["b", "b"] == task.ids()


def test_a_file_that_changes_while_it_is_parsed_is_parsed_once_more(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first half of an edit may load, and is not what anybody meant."""
    book = task.book()
    task.run()

    def meanwhile(run: Callable[[], Any]) -> Any:
        found = run()
        monkeypatch.setattr(book, "_offload", lambda run: run())
        task.file.write_text(toml("c", "d"))
        return found

    monkeypatch.setattr(book, "_offload", meanwhile)
    task.file.write_text(toml("b"))
    seen = set()
    for _ in range(40):
        task.tick()
        seen |= set(task.ids())

    assert {"a", "c,d"} == seen


def test_a_book_that_is_closed_while_the_file_is_parsed_publishes_nothing(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker ends; the lock it had is gone, and another may have it."""
    book, other = task.book(), task.book()
    task.run()

    def meanwhile(run: Callable[[], Any]) -> Any:
        found = run()
        task.end(book)
        return found

    monkeypatch.setattr(book, "_offload", meanwhile)
    before = (task.board / "current").read_bytes()
    task.file.write_text(toml("b"))
    while book in task.books:
        task.clock.advance(TICK_S)
        book.tick()
    assert before == (task.board / "current").read_bytes()
    assert [] == task.signals.named("internal_error")
    task.run()

    assert "b" == other.table.tenants[0].id


# -- workers come and go -----------------------------------------------------------------------------------


def test_a_worker_that_starts_while_the_file_is_broken_uses_what_was_published(task: Task) -> None:
    """It was handed the settings of long ago; its siblings have reloaded since."""
    first = task.book(read_s_ago=50.0)
    task.run()
    task.file.write_text(toml("b"))
    task.run()
    task.file.write_text("[")
    task.run()
    task.end(first)

    task.book(tenants("a"), read_s_ago=60.0)

    assert ["b"] == task.ids()

    task.run()

    assert ["b"] == task.ids()
    assert task.books[0].problems


def test_a_worker_that_starts_while_a_change_is_on_its_way_waits_with_the_others(task: Task) -> None:
    """Else it would be the one that is ahead, or the one that missed it."""
    task.book()
    task.run()
    task.file.write_text(toml("b"))
    task.run(REST_S + TICK_S)

    task.book(tenants("a"), read_s_ago=30.0)

    assert ["a", "a"] == task.ids()

    task.clock.advance(LEAD_S)

    assert ["b", "b"] == task.ids()


def test_a_worker_that_is_alone_waits_for_nobody(task: Task) -> None:
    """With one worker a task, its death is a moment without any: what was agreed on needs no second wait."""
    book = task.book()
    task.run()
    task.file.write_text(toml("b"))
    task.run(REST_S + 2 * TICK_S)
    task.end(book)

    task.book(tenants("a"), read_s_ago=30.0)

    assert ["b"] == task.ids()


def test_a_fresh_start_does_not_use_what_an_earlier_run_left(task: Task) -> None:
    """A key that was taken out while Collector was down is out from the first request on."""
    task.end(task.book(tenants("old")))
    task.clock.advance(1.0)

    task.book(tenants("a"))

    assert ["a"] == task.ids()


def test_a_reload_by_signal_changes_all_workers_at_one_instant_too(task: Task) -> None:
    """The old generation still answers on its connections while the new one starts."""
    task.book()
    task.run()
    task.file.write_text(toml("b"))
    task.clock.advance(0.1)

    task.book(tenants("b"))
    task.books[0].tick()

    assert ["a", "a"] == task.ids()

    task.clock.advance(LEAD_S)

    assert ["b", "b"] == task.ids()

    task.run()

    assert 2 == len(task.signals.named("tenants_loaded"))


def test_an_old_generation_keeps_its_tenants_when_it_lacks_a_route_of_new_ones(task: Task) -> None:
    """An event for a route that a worker does not have could go nowhere."""
    task.book()
    task.run()
    task.file.write_text(toml("b") + 'route = "new"\n[routes.new]\nsink = "file:x"\n')
    task.clock.advance(0.1)

    task.book(routes=("default", "new"))
    task.run()

    assert ["a", "b"] == task.ids()
    assert "without: new" in task.books[0].problems[-1]
    assert [] == task.books[1].problems


def test_what_another_boot_left_is_not_believed(task: Task) -> None:
    """The clock starts anew with the machine; an instant of before may be years ahead."""
    task.end(task.book(tenants("old")))
    task.clock = FakeClock(monotonic=5.0)

    task.book(tenants("a"))

    assert ["a"] == task.ids()


def test_an_instant_too_far_ahead_is_brought_near(task: Task) -> None:
    """Whatever was written there, a reload is never lost in the future."""
    book = task.book()
    task.run()
    current = task.board / "current"
    published = json.loads(current.read_text())
    other = json.loads(current.read_text().replace('"a"', '"b"'))["tenants"]
    current.write_text(json.dumps({**published, "tenants": other, "active_from_s": 1e9}))

    book.tick()
    task.clock.advance(LEAD_S)

    assert ["b"] == task.ids()


def test_without_a_file_the_tenants_hold_for_good(task: Task) -> None:
    """The run on a laptop has no file to look after."""
    task.file.write_text(toml("b"))
    task.book((DEV_TENANT,), with_file=False)
    task.run()

    assert ["dev"] == task.ids()
    assert 0 == task.books[0].slot("dev")


# -- slots -------------------------------------------------------------------------------------------------


def test_a_tenant_keeps_its_slot_over_reloads_restarts_and_an_absence(task: Task) -> None:
    """Its meters in the shared quota file are found by it."""
    task.file.write_text(toml("a", "b"))
    book = task.book()
    seen = []
    for text in (toml("a", "b"), toml("c", "b"), toml("d", "c"), toml("b", "a")):
        task.file.write_text(text)
        task.run()
        seen.append({tenant.id: book.slot(tenant.id) for tenant in book.table.tenants})
    task.end(book)
    task.clock.advance(0.1)
    again = task.book(tenants("x", "b", "a"))

    assert [{"a": 0, "b": 1}, {"c": 2, "b": 1}, {"d": 3, "c": 2}, {"b": 1, "a": 0}] == seen
    assert (0, 1, 4) == (again.slot("a"), again.slot("b"), again.slot("x"))


def test_all_workers_number_the_tenants_alike(task: Task) -> None:
    """Two numbers for one tenant would give it twice its rate."""
    task.file.write_text(toml("b", "a"))
    task.book()
    task.file.write_text(toml("a", "b", "c"))
    task.run()
    task.book(tenants("c", "a", "b"), read_s_ago=99.0)

    assert [[1, 0, 2]] * 2 == [[book.slot(name) for name in "abc"] for book in task.books]


def test_a_new_tenant_has_its_slot_before_it_is_in_force(task: Task) -> None:
    """The instant passes between two ticks, and the next upload is metered."""
    book = task.book()
    task.run()
    task.file.write_text(toml("a", "b"))
    task.run(REST_S + 2 * TICK_S)

    assert ["a"] == task.ids()
    assert 1 == book.slot("b")


# -- the board itself --------------------------------------------------------------------------------------


def test_a_board_that_cannot_be_made_leaves_the_tenants_in_force_until_it_can(task: Task) -> None:
    """A full or broken tmpfs is the spool's trouble; the keys still count."""
    task.board.parent.write_text("in the way")
    book = task.book()
    task.run()

    assert ["a"] == task.ids()
    assert 0 == book.slot("a")
    assert "can't be shared" in book.problems[0]

    task.board.parent.unlink()
    task.file.write_text(toml("b"))
    task.run()

    assert ["b"] == task.ids()
    assert [] == book.problems


def test_a_publication_that_fails_is_tried_again(task: Task) -> None:
    """A tmpfs that was full for a second must not cost a reload."""
    book = task.book()
    task.run()
    (task.board / "current.new").mkdir()
    task.file.write_text(toml("b"))
    task.run()

    assert ["a"] == task.ids()
    assert "can't be shared" in book.problems[0]

    (task.board / "current.new").rmdir()
    task.run()

    assert ["b"] == task.ids()
    assert [] == book.problems


@pytest.mark.parametrize("rubbish", [b"", b"{", b"[]", b"\xff" * 99])
def test_rubbish_on_the_board_is_no_tenants(task: Task, rubbish: bytes) -> None:
    """Nothing of ours writes it; something else on the machine may."""
    book = task.book()
    task.run()
    for name in ("current", "problem"):
        (task.board / name).write_bytes(rubbish)
    task.run()

    assert ["a"] == task.ids()

    task.file.write_text(toml("b"))
    task.run()
    task.end(book)
    task.book()

    assert ["b"] == task.ids()


def test_a_board_that_was_swept_away_keeps_the_slots(task: Task) -> None:
    """The workers remember what the tmpfs forgot."""
    task.file.write_text(toml("a", "b"))
    task.book()
    task.run()
    (task.board / "current").unlink()
    task.file.write_text(toml("c", "b"))
    task.run()

    assert ["c,b"] == task.ids()
    assert (1, 2) == (task.books[0].slot("b"), task.books[0].slot("c"))


def test_closing_twice_is_safe(task: Task) -> None:
    """An exit hook may come after another."""
    book = task.book()

    book.close()
    book.close()

    assert ["a"] == task.ids()


# -- processes ---------------------------------------------------------------------------------------------


def test_a_worker_that_died_with_the_lock_holds_nobody_up(task: Task) -> None:
    """The kernel frees it; nothing needs to be cleaned."""
    task.book()
    task.run()
    program = (
        "import fcntl, sys; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); "
        "sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(task.board / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        task.file.write_text(toml("b"))
        task.run(5.0)
        meanwhile = task.ids()
        holder.kill()
    task.run()

    assert (["a"], ["b"]) == (meanwhile, task.ids())


_WORKER = """
import json, sys, time
from pathlib import Path
from collector.admission.tenants import TenantBook
from collector.clock import SystemClock
from collector.settings import parse_tenants
from tests.fakes import RecordingSignals

file, board = Path(sys.argv[1]), Path(sys.argv[2])
clock, signals = SystemClock(), RecordingSignals()
book = TenantBook(file, board, initial=parse_tenants(file.read_text(), ("default",)), routes=("default",),
                  clock=clock, signals=signals)
book.start()
print("ready", flush=True)
seen, after, deadline = [], 0, clock.monotonic() + 30
while after < 20 and clock.monotonic() < deadline:
    book.tick()
    for _ in range(20):
        before = clock.monotonic()
        ids = [tenant.id for tenant in book.table.tenants]
        seen.append((before, clock.monotonic(), ids))
        time.sleep(0.001)
    after += ids == ["b"]
print(json.dumps({"seen": seen, "signals": [name for name, _ in signals.calls]}), flush=True)
"""


def test_processes_change_at_the_very_instant(tmp_path: Path) -> None:
    """What holds between objects must hold between workers: locks, renames and the clock are the kernel's."""
    file, board = tmp_path / "collector.toml", tmp_path / "board"
    file.write_text(toml("a"))
    command = [sys.executable, "-c", _WORKER, str(file), str(board)]
    workers = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for worker in workers:
        assert worker.stdout is not None
        assert "ready\n" == worker.stdout.readline()
    file.write_text(toml("b"))
    reports = [json.loads(worker.communicate(timeout=60)[0]) for worker in workers]
    active_from_s = json.loads((board / "current").read_text())["active_from_s"]

    for report in reports:
        assert {"a"} == {name for _, after, ids in report["seen"] if after < active_from_s for name in ids}
        assert {"b"} == {name for before, _, ids in report["seen"] if before >= active_from_s for name in ids}
    assert ["tenants_loaded"] * 2 == [name for report in reports for name in report["signals"]]


# -- everything at once ------------------------------------------------------------------------------------

VALID = [toml("a"), toml("b"), toml("a", "b"), toml("b", "c")]
BROKEN = ["[", "", toml("a") + "x = 1\n", "[tenants.a]\n"]
WAYS: list[Callable[[Path, str], None]] = [replaced, edited_in_place, swapped_by_links]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(VALID + BROKEN), st.sampled_from(WAYS)),
        st.tuples(st.just("tick"), st.integers(1, 12)),
        st.tuples(st.just("delete")),
        st.tuples(st.just("die"), st.integers(0, 2)),
        st.tuples(st.just("respawn")),
        st.tuples(st.just("hup")),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(steps)
def test_no_course_of_events_leaves_tenants_that_no_valid_file_named(course: list[tuple[object, ...]]) -> None:
    """Files break, workers die and start, signals come: at every tick all workers agree on what some file said."""
    with tempfile.TemporaryDirectory() as folder:
        task = Task(Path(folder), VALID[0])
        read, read_at_s = tenants("a"), task.clock.monotonic()
        allowed = {parse_tenants(VALID[0], ("default",))}
        task.book()
        task.book()

        def spawn() -> None:
            task.book(read, read_s_ago=task.clock.monotonic() - read_at_s)

        def hold() -> None:
            found = {book.table.tenants for book in task.books}

            assert len(found) <= 1
            assert found <= allowed

        for step in course:
            match step:
                case ("write", str(text), way) if callable(way):
                    way(task.file, text) if task.file.exists() else task.file.write_text(text)
                    allowed |= {parse_tenants(text, ("default",))} if text in VALID else set()
                case ("tick", int(count)):
                    for _ in range(count):
                        task.tick()
                        hold()
                case ("delete",):
                    task.file.unlink(missing_ok=True)
                case ("die", int(number)) if number < len(task.books):
                    task.end(task.books[number])
                case ("respawn",):
                    spawn()
                case ("hup",) if task.file.exists() and task.file.read_text() in VALID:
                    task.clock.advance(0.01)
                    read, read_at_s = parse_tenants(task.file.read_text(), ("default",)), task.clock.monotonic()
                    spawn()
            hold()
        if not task.books:
            spawn()
        task.file.unlink(missing_ok=True)
        task.file.write_text(VALID[3])
        allowed.add(parse_tenants(VALID[3], ("default",)))
        task.run(3 * RELOAD_S)
        hold()
        numbers = {tuple(book.slot(name) for name in "bc") for book in task.books}

        assert {"b,c"} == set(task.ids())
        assert 1 == len(numbers)
        assert not any(book.problems for book in task.books)
        for book in task.books:
            book.close()
