"""Routing on Benes networks of any size, and the splitting of messages into slots."""

import numpy as np
import pytest

from theory.operators.benes import address_bits, partners, permuted, reachable, route, slots, stages


@pytest.fixture
def draw():
    return np.random.default_rng(3)


def test_sizes_have_their_address_bits():
    assert [address_bits(n) for n in (1, 2, 3, 4, 5, 8, 9)] == [0, 1, 2, 2, 3, 3, 4]
    with pytest.raises(ValueError, match="at least one node, got 0"):
        address_bits(0)


def test_stages_go_up_and_down_once():
    assert stages(1) == []
    assert stages(2) == [0]
    assert stages(6) == [0, 1, 2, 1, 0]


def test_a_node_without_a_partner_is_its_own():
    assert partners(5, 0).tolist() == [1, 0, 3, 2, 4]
    assert partners(5, 2).tolist() == [4, 1, 2, 3, 0]


@pytest.mark.parametrize("nodes", [1, 2, 3, 7, 12, 16, 33, 100])
def test_every_node_receives_what_it_asked_for(draw, nodes):
    sources = draw.permuted(np.tile(np.arange(nodes), (4, 1)), axis=1)
    words = draw.standard_normal(nodes)
    switches = route(sources)
    assert switches.shape == (4, len(stages(nodes)), nodes)
    assert (permuted(np.broadcast_to(words, sources.shape), switches) == words[sources]).all()


@pytest.mark.parametrize("nodes", [3, 6, 8])
def test_both_ends_of_a_switch_agree_and_lonely_nodes_never_exchange(draw, nodes):
    switches = route(draw.permutation(nodes))
    for stage, bit in enumerate(stages(nodes)):
        across = partners(nodes, bit)
        assert (switches[stage] == switches[stage][across]).all()
        assert not switches[stage][across == np.arange(nodes)].any()


def test_a_butterfly_reaches_each_setting_once():
    assert reachable(4, [0, 1]) == 2**4
    assert reachable(4, [0, 1, 0]) == 24
    assert reachable(4, []) == 1


def test_more_messages_than_slots_are_refused():
    with pytest.raises(ValueError, match="more than 1 messages"):
        slots([(0, 1), (0, 2)], 3, 1)


def test_slots_need_no_more_than_the_largest_load():
    messages = [(0, 0), (1, 1), (0, 1), (1, 0)]
    placed = slots(messages, 2, 2)
    assert placed[0] == placed[1] != placed[2] == placed[3]
