from splat.train.order import ViewOrder


def test_every_view_once_per_epoch_and_another_order_each_time():
    order = ViewOrder(7, seed=5)
    epochs = [[order.view(7 * epoch + k) for k in range(7)] for epoch in range(6)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_order_depends_on_seed_and_place_only():
    forward = [ViewOrder(5, seed=1).view(k) for k in range(20)]
    backward = ViewOrder(5, seed=1)
    assert [backward.view(k) for k in reversed(range(20))][::-1] == forward
    assert [ViewOrder(5, seed=2).view(k) for k in range(20)] != forward


def test_upcoming_is_what_comes_and_ends_with_the_epoch():
    order = ViewOrder(5, seed=1)
    coming = order.upcoming(6, 10)
    assert coming == [order.view(k) for k in range(6, 10)]
