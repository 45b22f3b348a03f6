"""
How gunicorn runs Collector: `gunicorn -c gunicorn.conf.py wsgi:app`, which `collector serve` does too.

gunicorn's master reads this file, at the start and at each reload. It must not import Collector: what the master has
imported, the workers of the next generation inherit, and a reload would bring no new code. So the settings are read
by a child process, and handed to the workers in one environment variable: all workers of a generation read the same.
Under the launcher they were read before, and lie in an open file that the master inherits.
"""

# mypy: ignore-errors
# gunicorn reads it as a script, and its hooks have gunicorn's shapes, for which there are no types.

import contextlib
import gc
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import time

_SNAPSHOT = "COLLECTOR_SETTINGS_SNAPSHOT"
_GUNICORN = "_COLLECTOR_GUNICORN_SETTINGS"
#: Set by the launcher: in JSON, the numbers of the open files that it shares.
_LAUNCHED = json.loads(os.environ.get("_COLLECTOR_LAUNCHER", "null"))

#: Between two tries to start a worker whose code does not load.
_BROKEN_REST_S = 1.0


def _settings():
    """Return gunicorn's part of the settings; without sound ones, the last sound ones, or the end."""
    if _LAUNCHED:
        fd = _LAUNCHED["settings"]
        os.environ[_SNAPSHOT] = f"fd://{fd}"
        _, gunicorn, _ = os.pread(fd, os.fstat(fd).st_size, 0).splitlines()
        return {**json.loads(gunicorn), "bind": _LAUNCHED["binds"]}
    environ = {name: value for name, value in os.environ.items() if name != _SNAPSHOT}
    asked = subprocess.run(
        [sys.executable, "-m", "collector", "settings", "--gunicorn"],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
    )
    if asked.returncode == 0:
        os.environ[_SNAPSHOT], os.environ[_GUNICORN] = asked.stdout.splitlines()
    elif _GUNICORN in os.environ:
        logging.getLogger("gunicorn.error").error("the settings do not load, the old ones go on: %s", asked.stderr)
    else:
        sys.exit(asked.stderr or asked.stdout)
    return json.loads(os.environ[_GUNICORN])


class JsonLines(logging.Formatter):
    """gunicorn's own words as lines like Collector's."""

    def format(self, record):
        line = {
            "ts": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs * 1000:06.0f}Z",
            "level": record.levelname.lower(),
            "event": "gunicorn",
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, separators=(",", ":"))


class StdoutLines(logging.Handler):
    """
    Lines to the standard output that do not wait for its reader; in a worker, Collector's own log takes its place.

    A line that does not get through is lost, and the next one that does tells how many were.
    """

    _lost = 0

    def emit(self, record):
        line = self.format(record)
        if self._lost:
            line = f'{line[:-1]},"lines_lost":{self._lost}}}'
        try:
            os.write(1, f"{line}\n".encode())
        except OSError:
            self._lost += 1
        else:
            self._lost = 0


def _unblock(fd):
    """Let the master and its workers write without blocking; the launcher has seen to it for its own."""
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode) or not os.get_blocking(fd):
            return
        opened = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        os.dup2(opened, fd)
        os.close(opened)
    except OSError:
        with contextlib.suppress(OSError):
            os.set_blocking(fd, False)


globals().update(_settings())
_unblock(1)
_unblock(2)

logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": JsonLines}},
    "handlers": {"stdout": {"()": StdoutLines, "formatter": "json"}},
    "root": {"level": "WARNING", "handlers": ["stdout"]},
    "loggers": {"gunicorn.error": {"level": "INFO", "handlers": ["stdout"], "propagate": False}},
}


#: Let a worker that is told to stop while it starts stop at once: its master's handlers, which it has from the fork on,
#: would swallow the signal. It is held back until they are gone.
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def _hold_stops():
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)


def _let_stops_go():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)


def _obey_stops():
    for number in _STOPS:
        signal.signal(number, signal.SIG_DFL)
    _let_stops_go()


# This file is run again at each reload, and what is registered stays.
if not hasattr(signal, "_collector_holds_stops"):
    signal._collector_holds_stops = True  # noqa: SLF001 -- a mark that outlives this namespace, and nothing else
    os.register_at_fork(before=_hold_stops, after_in_parent=_let_stops_go, after_in_child=_obey_stops)


def post_fork(server, worker):
    """Let a worker start quickly, and end harmlessly if its code has been broken since."""
    # What a worker loads stays: to look through it for what may go takes a tenth of the start.
    gc.disable()
    if _LAUNCHED and worker.age > server.cfg.workers:
        # It replaces one that died. Code that has been broken since must not end the master, and its siblings with it,
        # as gunicorn has it: the worker ends with a status that means nothing to the master, and is replaced in turn.
        server.WORKER_BOOT_ERROR = server.APP_LOAD_ERROR = 1


def post_worker_init(worker):
    """Start what lives in a worker: it is forked, patched and has its application, and accepts nothing yet."""
    worker.wsgi.runtime.start()
    # Nor is it looked through later: that would hold up every request of the moment for 30 ms.
    gc.freeze()
    gc.enable()


def worker_exit(server, worker):
    """Let go of the spool, however the worker came to its end; the drain is over by then, or never was."""
    runtime = getattr(getattr(worker, "wsgi", None), "runtime", None)
    if runtime is not None:
        runtime.close()
    if _LAUNCHED and not worker.booted and worker.age > server.cfg.workers:
        # The next one is forked at once.
        time.sleep(_BROKEN_REST_S)


def on_exit(server):
    """Say what became of everything; the master is at its end, so what it imports now nobody inherits."""
    if _LAUNCHED:
        return  # there may be other generations; the launcher says it
    from collector.receiver.farewell import tell_drain_done

    tell_drain_done()
