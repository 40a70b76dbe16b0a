"""Signals that end the work: Ctrl-C (SIGINT), SIGTERM and SIGHUP. No other module sets handlers.

A signal that was ignored when a block began, as SIGHUP is under nohup, stays ignored. The second
Ctrl-C ends the process at once; further signals of other kinds, which terminals and schedulers send
in pairs, change nothing.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from ldl_jax.errors import complain

WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
if hasattr(signal, "SIGHUP"):  # not on Windows
    WORDS[signal.SIGHUP] = "hung up"
SIGNALS = tuple(WORDS)
ENDED = 128  # a shell's status of a process that signal N ended is 128 + N


class Interrupted(KeyboardInterrupt):
    """A signal ended the work; the text says which, and how to go on.

    number: of the signal. saved: whether the same command continues where this one ended. told:
    whether the text has been printed.
    """

    def __init__(
        self,
        number: int,
        advice: str = "run the same command again",
        *,
        saved: bool = False,
        told: bool = False,
    ):
        super().__init__(f"{WORDS[number]}: {advice}")
        self.number = number
        self.saved = saved
        self.told = told

    @property
    def status(self) -> int:
        """Exit status: 130 after Ctrl-C; after other signals 0 if the work was saved, else 128 + N."""
        # Schedulers that send SIGTERM or SIGHUP expect 0 of a job that may be restarted.
        return 0 if self.saved and self.number != signal.SIGINT else ENDED + self.number


class Held:
    """The signal that arrived in a `deferred` block; its number, or None."""

    def __init__(self):
        self.number: int | None = None

    def clear(self) -> None:
        """Forget the signal, because nothing is left that it could end."""
        if self.number is not None:
            self.number = None
            _HANDLERS.first = None


@contextmanager
def raised(numbers: tuple[int, ...] = SIGNALS) -> Iterator[None]:
    """Raise Interrupted where a signal arrives in the block; in other threads, do nothing."""

    def react(number):
        raise Interrupted(number)

    with _handled(react, numbers):
        yield


@contextmanager
def deferred(
    react: Callable[[int], object] | None = None, numbers: tuple[int, ...] = SIGNALS
) -> Iterator[Held]:
    """Note a signal that arrives in the block, and raise Interrupted at the end of the block.

    react: called with its number when it arrives. In other threads than the main one, no signal is
    noted.
    """
    held = Held()

    def note(number):
        held.number = number
        if number == signal.SIGINT:
            _say("stopping, and saving first; press Ctrl-C again to end at once")
        if react is not None:
            react(number)

    with _handled(note, numbers):
        yield held
    if held.number is not None:
        raise Interrupted(held.number)


def ignore_interrupts() -> None:
    """Ignore Ctrl-C in this process from now on, because its parent decides what to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def end_quietly() -> None:
    """Let Ctrl-C end this process with a sentence instead of a traceback outside of all blocks."""
    before = sys.excepthook

    def hook(kind, error, traceback):
        if issubclass(kind, KeyboardInterrupt):
            complain(Interrupted(signal.SIGINT))
        else:
            before(kind, error, traceback)

    sys.excepthook = hook


class _Handlers:
    """The handlers of this process. Blocks may be nested: the innermost one reacts."""

    def __init__(self):
        self.reset()

    def reset(self) -> None:
        """Forget all signals and blocks."""
        self.reactions: list[Callable[[int], object]] = []
        self.before: dict[int, object] = {}  # handlers from outside of all blocks
        self.first: int | None = None  # the first signal, the only one that is reacted to
        self.interrupted = False

    def __call__(self, number, frame):
        if number == signal.SIGINT:
            self.interrupted = True
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if self.first is None and self.reactions:
            self.first = number
            self.reactions[-1](number)

    def install(self, numbers: tuple[int, ...]) -> None:
        """Set the handlers of these signals. Also in inner blocks: libraries replace them."""
        for number in numbers:
            handler = signal.getsignal(number)
            if handler is signal.SIG_IGN or (number == signal.SIGINT and self.interrupted):
                continue
            self.before.setdefault(number, handler)
            signal.signal(number, self)

    def restore(self) -> None:
        """Set the handlers from outside of all blocks again."""
        for number, handler in self.before.items():
            # None stands for a handler that was not set from Python, and cannot be set again.
            if handler is not None:
                signal.signal(number, handler)
        self.reset()


_HANDLERS = _Handlers()
if hasattr(os, "register_at_fork"):
    # A forked process, such as a data loader's, ends as if there were no handlers here.
    os.register_at_fork(after_in_child=lambda: _HANDLERS.before and _forget())


def _forget() -> None:
    """Undo in a forked process what the blocks of its parent have set."""
    _HANDLERS.restore()
    signal.set_wakeup_fd(-1)


@contextmanager
def _handled(react: Callable[[int], object], numbers: tuple[int, ...]) -> Iterator[None]:
    """Let `react` handle the signals of a block."""
    # Python allows only the main thread to set handlers; in others, the caller handles signals.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if _HANDLERS.reactions:
        with _pushed(react, numbers):
            yield
        return
    with ExitStack() as stack:
        stack.enter_context(_second_interrupt_ends())
        stack.callback(_end)
        stack.enter_context(_pushed(react, numbers))
        yield


@contextmanager
def _pushed(react: Callable[[int], object], numbers: tuple[int, ...]) -> Iterator[None]:
    _HANDLERS.reactions.append(react)
    try:
        _HANDLERS.install(numbers)
        yield
    finally:
        _HANDLERS.reactions.remove(react)


def _end() -> None:
    """Restore the handlers from before, and hand on a signal that one of them has missed."""
    first = _HANDLERS.first
    missed = _HANDLERS.before.get(first)
    _HANDLERS.restore()
    # Of Ctrl-C, the caller is told by the exception.
    if callable(missed) and missed is not signal.default_int_handler:
        missed(first, None)


@contextmanager
def _second_interrupt_ends() -> Iterator[None]:
    """Let the second Ctrl-C end the process even if the first has not been handled yet.

    Handlers run between two instructions of Python, and compiling a program may take minutes. So a
    thread reads the signals from a pipe, to which they are written as soon as they arrive.
    """
    if os.name != "posix":
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    if before != -1:  # an event loop waits for the signals
        signal.set_wakeup_fd(before)
    watch = threading.Thread(target=_watch, args=(reading,), daemon=True)
    watch.start()
    try:
        yield
    finally:
        if before == -1:
            signal.set_wakeup_fd(-1)
        os.write(writing, b"\0")
        watch.join()
        os.close(reading)
        os.close(writing)


def _watch(reading: int) -> None:
    """End the process at the second Ctrl-C that a pipe brings; return at a zero."""
    interrupts = 0
    while True:
        arrived = os.read(reading, 64)
        interrupts += arrived.count(signal.SIGINT)
        if interrupts > 1:
            os._exit(ENDED + signal.SIGINT)
        if 0 in arrived:
            return


def _say(text: str) -> None:
    """Print a line on the terminal. Safe in a handler, which may interrupt another print."""
    with suppress(OSError, ValueError, AttributeError):
        os.write(sys.__stderr__.fileno(), f"\n{text}\n".encode())
