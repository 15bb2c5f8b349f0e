"""Facts about coordinate channels (paper §3.1.2: normalised to [-1, 1], x before y)."""

from __future__ import annotations

import pytest
import torch

from solo_d2.layers import append_coords, coord


def test_corners_are_minus_one_and_one_and_x_comes_before_y():
    out = append_coords(torch.zeros(2, 5, 3, 4))
    assert out.shape == (2, 7, 3, 4)
    x, y = out[1, 5], out[1, 6]
    torch.testing.assert_close(x[0], torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0]))
    torch.testing.assert_close(y[:, 0], torch.tensor([-1.0, 0.0, 1.0]))
    assert (x == x[:1]).all()
    assert (y == y[:, :1]).all()


def test_features_stay_as_they_are():
    features = torch.randn(1, 3, 5, 6)
    assert torch.equal(append_coords(features)[:, :3], features)


@pytest.mark.parametrize(("axes", "channels"), [("x", [3]), ("y", [4]), ("xy", [3, 4])])
def test_axes_choose_channels(axes, channels):
    features = torch.randn(2, 3, 4, 6)
    both = append_coords(features)
    expected = torch.cat([features, both[:, channels]], dim=1)
    assert torch.equal(append_coords(features, axes), expected)


def test_type_follows_the_features():
    assert append_coords(torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("sizes", [(1, 2), (3, 64), (167, 336), (400, 513)])
def test_coordinates_of_an_exported_graph_are_those_of_the_models(monkeypatch, sizes):
    features = torch.zeros(1, 1, *sizes)
    expected = append_coords(features)
    monkeypatch.setattr(coord, "exporting", lambda: True)
    torch.testing.assert_close(append_coords(features), expected, atol=2e-7, rtol=0)


def test_an_exported_graph_takes_other_sizes():
    class Coords(torch.nn.Module):
        def forward(self, x):
            return append_coords(x)

    sides = {0: None, 1: None, 2: torch.export.Dim("h", min=2), 3: torch.export.Dim("w", min=2)}
    graph = torch.export.export(Coords(), (torch.zeros(1, 1, 4, 6),), dynamic_shapes=(sides,))
    found = graph.module()(torch.zeros(1, 1, 9, 5))
    torch.testing.assert_close(found, append_coords(torch.zeros(1, 1, 9, 5)), atol=2e-7, rtol=0)
