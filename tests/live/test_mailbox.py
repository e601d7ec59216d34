import threading

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
    assert box.take(timeout_secs=5) == "model"
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
