"""Shows a node until Ctrl-C: a picture that lives in a terminal, one line a second elsewhere."""

import signal
import threading
import time

from rich.console import Console
from rich.live import Live

from dysl_vla_ros import stop_signals
from dysl_vla_ros.monitor.listener import Listener
from dysl_vla_ros.monitor.state import WINDOW, MonitorState
from dysl_vla_ros.monitor.view import picture, plain_line, symbols_for

REFRESH = 0.25  # s between two pictures: drawing costs the nodes' cores time
LINE_PERIOD = 1.0  # s between two plain lines
ONCE_LIMIT = 5.0  # s that --once waits for a first message
ONCE_LISTENING = WINDOW  # s it then listens, so that rates are those of a full window


def run_monitor(node: str, once: bool, plain: bool, console: Console | None = None) -> int:
    """Show the node of that full name; return 0, or 1 where ``once`` heard nothing.

    Args:
        node: full name, ``/dysl_vla``.
        once: one picture (or line), then the end.
        plain: a line in place of a picture; so it is without a terminal too, unless ``once``.
        console: where to; standard output by default.
    """
    console = console or Console(highlight=False, markup=False)
    state = MonitorState(node)
    if threading.current_thread() is threading.main_thread():
        for number in stop_signals.heeded():
            signal.signal(number, signal.default_int_handler)  # the cursor comes back however it ends
    try:
        with Listener(state) as listener:
            if once:
                return _once(state, listener, plain, console)
            show = _lines if plain or not console.is_terminal else _live
            show(state, listener, console)
    except KeyboardInterrupt:  # the ordinary end
        pass
    return 0


def _once(state: MonitorState, listener: Listener, plain: bool, console: Console) -> int:
    started = time.monotonic()
    while not state.heard and time.monotonic() - started < ONCE_LIMIT:
        listener.spin_until(time.monotonic() + REFRESH)
    if state.heard:
        listener.spin_until(state.first_heard + ONCE_LISTENING)
    now = time.monotonic()
    if plain:
        print(plain_line(state, now, symbols_for(console)), flush=True)
    else:
        console.print(picture(state, now, console))
    return 0 if state.heard else 1


def _lines(state: MonitorState, listener: Listener, console: Console) -> None:
    due = time.monotonic()
    while True:
        due += LINE_PERIOD
        listener.spin_until(due)
        print(plain_line(state, time.monotonic(), symbols_for(console)), flush=True)


def _live(state: MonitorState, listener: Listener, console: Console) -> None:
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            live.update(picture(state, time.monotonic(), console), refresh=True)
            listener.spin_until(time.monotonic() + REFRESH)
