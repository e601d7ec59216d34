import signal
import threading
import time

from splat.live.commands import CommandQueue, Pause, Resume, Save, Stop


def test_first_in_first_out():
    queue = CommandQueue()
    commands = [Pause(), Resume(), Save(), Stop()]
    for command in commands:
        queue.put(command)
    assert [queue.pop() for _ in range(5)] == [*commands, None]


def test_wait_ends_early_when_a_command_comes():
    queue = CommandQueue()
    sender = threading.Timer(0.05, queue.put, [Resume()])
    sender.start()
    queue.wait(None)  # for ever, if it did not
    assert isinstance(queue.pop(), Resume)
    sender.join()


def test_wait_returns_at_once_when_something_is_there_and_after_its_time_when_not():
    queue = CommandQueue()
    queue.put(Pause())
    queue.wait(None)
    assert queue.pop() is not None
    queue.wait(0.01)
    assert queue.pop() is None


def test_no_command_is_lost_between_threads():
    queue, count = CommandQueue(), 500
    senders = [threading.Thread(target=lambda: [queue.put(Save()) for _ in range(count)]) for _ in range(4)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    got = 0
    while queue.pop() is not None:
        got += 1
    assert got == 4 * count


def test_a_signal_handler_may_put_whatever_it_interrupts():
    """Hammered: a lock that the waiting thread holds would hang here."""
    queue, came = CommandQueue(), []
    before = signal.signal(signal.SIGALRM, lambda *_: came.append(queue.put(Pause())))
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    try:
        until = time.monotonic() + 0.3
        while time.monotonic() < until:
            queue.wait(0.00005)
            queue.pop()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert came


def test_waiting_is_not_cut_short_by_commands_that_were_taken_long_ago():
    queue = CommandQueue()
    for _ in range(5):
        queue.put(Save())
        queue.pop()
    began = time.monotonic()
    queue.wait(0.05)
    assert time.monotonic() - began > 0.04


def test_a_ring_ends_one_wait_without_a_command():
    queue = CommandQueue()
    queue.ring()
    queue.wait(None)
    assert queue.pop() is None
    ringer = threading.Timer(0.02, queue.ring)
    ringer.start()
    queue.wait(None)
    ringer.join()
    assert not queue._rung, "rung once, heard once"
