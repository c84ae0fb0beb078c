"""The average of a generator against the recurrence, number by number."""

import pytest
import torch
from gan_files import normal
from torch import nn

from nsync.errors import InputError
from nsync.supcon.gan.averaging import Average
from nsync.supcon.gan.ssa_gan import SsaGan


def network(width=3):
    return nn.Sequential(nn.Conv2d(2, width, 1), nn.BatchNorm2d(width)).double()


def trained(net, step):
    """Other weights and other statistics."""
    with torch.no_grad():
        for name, value in net.named_parameters():
            value.copy_(normal(f"{name} {step}", *value.shape))
        net(normal(f"x {step}", 4, 2, 3, 3))


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.999])
def test_average_is_the_recurrence_with_buffers(decay):
    net = network()
    average = Average(net, decay)
    expected = {key: value.clone() for key, value in net.state_dict().items()}
    for step in range(6):
        trained(net, step)
        average.update(net)
        kept = min(decay, (1 + step) / (10 + step))
        for key, value in net.state_dict().items():
            if value.is_floating_point():
                expected[key] = kept * expected[key] + (1 - kept) * value
            else:
                expected[key] = value.clone()
    for key, value in average.network.state_dict().items():
        assert torch.allclose(value, expected[key], rtol=1e-12), key
    assert average.network[1].num_batches_tracked == 6
    assert not average.network.training
    assert net.training
    assert not any(p.requires_grad for p in average.network.parameters())
    assert all(p.requires_grad for p in net.parameters())


def test_it_goes_on_to_the_bit():
    net = network()
    alone, stopped = Average(net, 0.9), Average(net, 0.9)
    for step in range(3):
        trained(net, step)
        alone.update(net), stopped.update(net)
    saved = stopped.state_tensors()
    again = Average(network(), 0.9)
    again.load_state(saved)
    for step in range(3, 6):
        trained(net, step)
        alone.update(net), again.update(net)
    assert again.updates == 6
    for one, other in zip(*(a.network.state_dict().values() for a in (alone, again)), strict=True):
        assert torch.equal(one, other)
    # What was saved has not moved since, though what it was saved from has.
    kept = {key: value.clone() for key, value in saved.items()}
    stopped.update(net)
    assert all(torch.equal(kept[key], saved[key]) for key in kept)
    assert not torch.equal(saved["network.0.weight"], stopped.network[0].weight)


def test_a_generator_of_the_average_paints():
    generator, _ = SsaGan(16, width=2, noise=4, text_width=3, mask_width=2).build()
    average = Average(generator)
    noise, text = normal("z", 5, 4).float(), normal("t", 5, 3).float()
    generator(noise, text)
    average.update(generator)
    one, all_of_them = average.network(noise[:1], text[:1]), average.network(noise, text)
    assert torch.allclose(one[-1], all_of_them[-1][:1], atol=1e-6)


def test_bad_input_is_one_error_and_changes_nothing():
    for decay in (1.0, -0.1):
        with pytest.raises(InputError, match="below 1"):
            Average(network(), decay)
    average = Average(network(), 0.9)
    before = average.state_tensors()
    with pytest.raises(InputError, match=r"`0\.bias` of shape \(3,\)"):
        average.update(network(4))
    with pytest.raises(InputError, match=r"network\.0\.bias"):
        average.load_state(Average(network(4)).state_tensors())
    with pytest.raises(InputError, match="updates"):
        average.load_state({k: v for k, v in before.items() if k != "updates"})
    after = average.state_tensors()
    assert all(torch.equal(before[key], after[key]) for key in before)
