"""Orders in which groups lie at equal distances."""

import pytest
import torch

from geneae.training.mixing import mixed_evenly


@pytest.mark.parametrize("sizes", [(50, 50), (90, 10), (64, 32, 3), (7,) * 12, (100, 1)])
def test_groups_are_mixed_evenly(sizes: tuple[int, ...]) -> None:
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(0))
    found = mixed_evenly(order, groups[order])
    assert sorted(found.tolist()) == list(range(len(groups)))
    for group in range(len(sizes)):
        assert torch.equal(found[groups[found] == group], order[groups[order] == group])  # at random within a group
    for batch in found.split(20):
        counted = torch.bincount(groups[batch], minlength=len(sizes))
        shares = torch.tensor(sizes) / len(groups)
        assert float((counted - len(batch) * shares).abs().max()) < 2


def test_two_groups_of_one_size_take_turns() -> None:
    groups = torch.tensor([1, 1, 1, 0, 0, 0])
    found = groups[mixed_evenly(torch.tensor([4, 0, 1, 3, 2, 5]), groups[[4, 0, 1, 3, 2, 5]])]
    assert found.reshape(3, 2).sum(1).tolist() == [1, 1, 1]
