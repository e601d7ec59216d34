import torch

from splat.geometry.rng import keyed_generator, keyed_seed


def test_equal_keys_give_equal_numbers():
    first = torch.rand(5, generator=keyed_generator(3, "noise", 70))
    second = torch.rand(5, generator=keyed_generator(3, "noise", 70))
    assert torch.equal(first, second)


def test_each_part_of_the_key_counts():
    keys = [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2), (0, "a1", 1), (11, "a", 1), (1, "1a", 1)]
    assert len({keyed_seed(*key) for key in keys}) == len(keys)
    draws = [tuple(torch.rand(4, generator=keyed_generator(*key)).tolist()) for key in keys]
    assert len(set(draws)) == len(keys)


def test_seed_is_the_same_in_every_process():
    assert keyed_seed(0, "mcmc.noise", 1) == GOLDEN_SEED


def test_ambient_generator_is_left_alone():
    before = torch.get_rng_state()
    torch.rand(3, generator=keyed_generator(0, "x", 0))
    assert torch.equal(before, torch.get_rng_state())


GOLDEN_SEED = 8519324716634438064
