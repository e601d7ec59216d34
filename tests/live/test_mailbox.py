import threading
import time

from splat.live.mailbox import Mailbox


def test_newest_value_wins_and_is_taken_once():
    box = Mailbox[int]()
    assert not box.wanted and box.take() is None
    box.request()
    assert box.wanted
    box.put(1)
    box.put(2)
    assert not box.wanted
    assert box.take() == 2
    assert box.take() is None


def test_waiting_reader_gets_what_another_thread_puts():
    box = Mailbox[str]()
    box.request()
    sender = threading.Timer(0.05, box.put, ["model"])
    sender.start()
    assert box.take(timeout_secs=120) == "model"
    sender.join()


def test_many_readers_never_see_a_value_twice():
    box, seen, lock = Mailbox[int](), [], threading.Lock()

    def read() -> None:
        for _ in range(200):
            value = box.take(timeout_secs=0.001)
            if value is not None:
                with lock:
                    seen.append(value)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for value in range(1, 300):
        box.put(value)
    for reader in readers:
        reader.join()
    assert seen and len(seen) == len(set(seen))


def test_a_reader_that_waits_without_end_can_be_sent_home():
    box, gone, taken = Mailbox[int](), threading.Event(), []
    reader = threading.Thread(target=lambda: taken.append(box.take(None, unless=gone.is_set)))
    reader.start()
    box.wake()
    assert not taken, "nobody said that it is over"
    gone.set()
    box.wake()
    reader.join(120)
    assert taken == [None]


def test_a_value_is_taken_whenever_it_comes():
    """Without a pause between looking for a value and looking for a request, in which one could be missed."""
    box, taken = Mailbox[int](), []

    def read() -> None:
        while (value := box.take(None)) != 0:
            taken.append(value)

    reader = threading.Thread(target=read)
    reader.start()
    for value in range(1, 500):
        box.request()
        box.put(value)
    box.put(500)
    while 500 not in taken and reader.is_alive():
        time.sleep(0.001)
    box.put(0)
    reader.join(120)
    assert taken == sorted(taken) and taken[-1] == 500


def test_a_request_tells_who_wants_to_hear_of_it():
    box, heard = Mailbox[int](), []
    box.request()
    box.on_request = lambda: heard.append(box.wanted)
    box.request()
    assert heard == [True]
