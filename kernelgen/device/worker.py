"""A worker process with a time limit for each job: whatever a kernel does, the tuner lives on.

A job is any picklable object; the worker hands it to a runner, named "module:function", and sends back what that
returns. Start-up (Python, CUDA) is dear, so one process serves many jobs for as long as it is healthy. It is a
plain subprocess rather than multiprocessing's spawn, which would run the caller's own script a second time.

Messages are pickles with their length before them, over the child's stdin and what was its stdout; anything the
child prints goes to its stderr, which is kept, so that a crash can be told in words.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from kernelgen.errors import LaunchError, TilesmithError
from kernelgen.records.trial import TIMED_OUT

START_SECONDS = 120.0
"""How long a worker may take to start and import its runner (a cold file system, a busy machine)."""

ORPHAN_SECONDS = 1.0
"""How often a worker looks whether its parent still lives."""

_HEADER = struct.Struct("<Q")


class JobFailed(TilesmithError):
    """A job ended without a result; the message says what happened.

    reason: "error", "timeout", "crash", or "killed" where the process was killed (SIGKILL), which a job does not do.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Worker:
    """A process that runs jobs one after another; a new one takes its place after a hang, a crash or a fault.

    runner: "module:function", called with each job in the child. first: a job that gets things ready as the process
    starts, before any other; what it returns or raises is nobody's. An exception in any other becomes JobFailed; one
    with a true attribute ``fatal`` says that the process is of no more use (a lost CUDA context).
    Use as a context manager, or call close().
    """

    def __init__(self, runner: str, first: object = None) -> None:
        self.runner, self.first = runner, first
        self.started = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[Any] = queue.Queue()
        self._errors: BinaryIO | None = None
        self._ready = False

    def start(self) -> None:
        """Start the process now rather than at the first job; it gets ready in the background."""
        if self._process is None or self._process.poll() is not None:
            self._launch()

    def run(self, job: object, seconds: float | None) -> Any:
        """Run one job and return its result. Raises JobFailed when it fails, crashes or outlasts ``seconds``, if any.

        Raises LaunchError if the worker cannot be started at all.
        """
        self.start()
        self._await_ready()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            _send(process.stdin, job)
            answer = self._answers.get(timeout=seconds)
        except queue.Empty:
            self._kill()
            raise JobFailed(f"{TIMED_OUT} of {seconds:.3g} s and was stopped", "timeout") from None
        except OSError:
            answer = None  # it died before it read the job
        except BaseException:  # Ctrl-C: the answer in flight belongs to no later job
            self._kill()
            raise
        if answer is None:
            raise JobFailed(self._obituary(), "killed" if process.returncode == -signal.SIGKILL else "crash")
        done, value, fatal = answer
        if fatal:
            self._kill()
        if not done:
            raise JobFailed(value, "error")
        return value

    def stop(self) -> None:
        """End the process from another thread than the one that runs jobs: a job under way fails, as in a crash."""
        process = self._process
        if process is not None:
            process.kill()

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal, from any thread."""
        process = self._process
        if process is not None:
            process.send_signal(number)

    def close(self) -> None:
        """End the process; jobs can still be run later, in a new one."""
        self._kill()

    def __enter__(self) -> Self:
        """Return the worker itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the process."""
        self.close()

    def _launch(self) -> None:
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._close_log()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        try:
            process = subprocess.Popen(
                # -P: no module of the current folder, such as a queue.py, takes the place of the library's
                [sys.executable, "-P", "-m", "kernelgen.device.worker", self.runner],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
        except OSError as error:
            raise LaunchError(f"cannot start a worker process: {error}") from error
        self._process, self._answers, self._ready = process, queue.Queue(), False
        self.started += 1
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # one that has died already says so when it is waited for
            _send(process.stdin, self.first)
        threading.Thread(target=_receive_all, args=(process.stdout, self._answers), daemon=True).start()

    def _await_ready(self) -> None:
        if self._ready:
            return
        try:
            answer = self._answers.get(timeout=START_SECONDS)
        except queue.Empty:
            answer = (False, f"it was not ready within {START_SECONDS:.0f} s", True)
        except BaseException:
            self._kill()
            raise
        if answer is None or not answer[0]:
            reason = self._obituary() if answer is None else answer[1]
            self._kill()
            raise LaunchError(f"the worker process for {self.runner} did not start: {reason}")
        self._ready = True

    def _obituary(self) -> str:
        """Say how the process ended, with the last line it printed; forget the process."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        last = self._last_words()
        self._kill()
        if code is None:
            how = "closed its connection"
        elif code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        else:
            how = f"ended with status {code}"
        return f"the worker process {how}" + (f": {last}" if last else "")

    def _last_words(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, self._errors.tell() - 4096))
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def _kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # the driver may take a while over a hung kernel
                process.wait(timeout=30)
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
        self._close_log()

    def _close_log(self) -> None:
        if self._errors is not None:
            self._errors.close()
            self._errors = None


def _send(stream: BinaryIO | Any, message: object) -> None:
    """Write one pickle with its length before it."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_HEADER.pack(len(data)) + data)
    stream.flush()


def _receive(stream: BinaryIO | Any) -> Any:
    """Read one message. Raises EOFError at the end of the stream."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise EOFError
    (length,) = _HEADER.unpack(header)
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return pickle.loads(data)


def _receive_all(stream: BinaryIO, answers: queue.Queue[Any]) -> None:
    """Put every message of a worker into the queue, and None when the stream ends."""
    try:
        with stream:
            while True:
                answers.put(_receive(stream))
    except (EOFError, OSError, ValueError, pickle.UnpicklingError, AttributeError, ImportError):
        answers.put(None)


def _load(runner: str) -> Any:
    """Import "module:function"."""
    import importlib

    module, _, name = runner.partition(":")
    return getattr(importlib.import_module(module), name)


def _words(error: BaseException) -> str:
    """An exception in words: tilesmith's own speak for themselves, others need their type's name."""
    return str(error) if isinstance(error, TilesmithError) else f"{type(error).__name__}: {error}"


def _leave_with(parent: int) -> None:
    """End this process when its parent is gone (a kill -9), even in the middle of a job that hangs."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_SECONDS)
    os._exit(1)


def serve(runner: str) -> None:
    """Run the child's side: read jobs from stdin until it ends, and answer each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    jobs = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a job prints must not disturb the messages
    try:
        function = _load(runner)
    except BaseException as error:
        _send(answers, (False, _words(error), True))
        return
    try:
        first = _receive(jobs)
    except EOFError:
        return
    if first is not None:
        with contextlib.suppress(Exception):  # what does not work now, the jobs will say
            function(first)
    _send(answers, (True, None, False))
    while True:
        try:
            job = _receive(jobs)
        except EOFError:
            return
        try:
            answer = (True, function(job), False)
        except Exception as error:
            answer = (False, _words(error), bool(getattr(error, "fatal", False)))
        _send(answers, answer)


if __name__ == "__main__":
    serve(sys.argv[1])
