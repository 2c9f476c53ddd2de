"""The gated core: its start, and what opens its gates."""

import torch

from geneae.models.cores import GatedCore, SkipCore


def scores(n_profiles: int = 20) -> torch.Tensor:
    return torch.randn(n_profiles, 3, generator=torch.Generator().manual_seed(0))


def test_a_gated_core_starts_exactly_at_its_linear_path_and_so_does_a_silent_one() -> None:
    torch.manual_seed(0)
    core = GatedCore(torch.ones(3), 4, 8, 0.5)
    expected = torch.cat([scores(), torch.zeros(20, 1)], 1)
    assert torch.equal(core.encode(scores()), expected)
    with torch.no_grad():
        core.gate.fill_(1.0)
    assert not torch.allclose(core.encode(scores()), expected)
    core.drop_decoder()
    core.silence_mlps()
    assert torch.equal(core.encode(scores()), expected)


def test_each_gate_opens_its_own_latent() -> None:
    torch.manual_seed(0)
    core = GatedCore(torch.ones(3), 4, 8, 0.0)
    with torch.no_grad():
        core.gate[2] = 2.0
    found = core.encode(scores()) - core.encoder_linear(scores())
    torch.testing.assert_close(found[:, 2], 2 * core.encoder_mlp(scores())[:, 2])
    assert torch.equal(found[:, [0, 1, 3]], torch.zeros(20, 3))


def test_the_first_step_moves_gates_alone_and_the_mlp_is_not_small() -> None:
    torch.manual_seed(0)
    gated = GatedCore(torch.ones(3), 4, 8, 0.0)
    torch.manual_seed(0)
    plain = SkipCore(torch.ones(3), 4, 8, 0.0)
    torch.testing.assert_close(gated.encoder_mlp[3].weight, 100 * plain.encoder_mlp[3].weight)
    gated.encode(scores()).square().sum().backward()
    assert gated.gate.grad is not None
    assert gated.gate.grad[:3].abs().min() > 0
    for parameter in gated.encoder_mlp.parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().max()) == 0
