"""The report's figures."""

import re
from pathlib import Path

import numpy as np
import pytest

from pbe.errors import UserError
from pbe.evaluation.report.figures import Losses, guidance_figure, read_losses, smooth, training_figure


def test_smoothing_is_a_mean_over_neighbours() -> None:
    np.testing.assert_allclose(smooth(np.array([0.0, 3.0, 6.0, 0.0]), 3), [1.5, 3.0, 3.0, 3.0])
    np.testing.assert_allclose(smooth(np.array([1.0, 2.0]), 1), [1.0, 2.0])


def test_losses_without_a_column_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    path.write_text("step,loss,lr,grad_norm\n1,0.5,0.001,1\n2,0.4,0.001,1\n")
    assert read_losses(path).loss.tolist() == [0.5, 0.4]
    path.write_text("step,loss\n1,2\n")
    with pytest.raises(UserError, match=r"losses\.csv: column lr is missing"):
        read_losses(path)


def test_figures_use_the_colours_of_the_page() -> None:
    figure = training_figure(Losses(np.arange(5.0), np.ones(5), np.ones(5)))
    assert figure.startswith("<svg")
    assert "var(--series-1)" in figure
    assert not re.search(r"\d{4}-\d{2}-\d{2}", figure)


def test_a_long_training_makes_no_larger_figure() -> None:
    noise = np.random.default_rng(0).uniform(0.1, 1.0, 40_000)
    figure = training_figure(Losses(np.arange(40_000.0), noise, noise))
    assert len(figure) < 250_000
    assert "loss of one step in 27, and its mean over 1333 steps" in figure


def test_the_guidance_figure_shows_the_accuracies_that_every_scale_has() -> None:
    figure = guidance_figure({"1": {"clip_score": 50.0}, "5": {"clip_score": 60.0}})
    assert "guidance scale" in figure
    assert "shape" not in figure
    rows = {scale: {"clip_score": 50.0, "shape_accuracy": 9.0, "colour_accuracy": None} for scale in ("1", "5")}
    figure = guidance_figure(rows)
    assert ">shape<" in figure
    assert ">colour<" not in figure


def test_the_guidance_figure_draws_intervals_where_every_scale_has_one() -> None:
    row = {"identity": 50.0, "identity_low": 48.0, "identity_high": 52.0}
    with_intervals = guidance_figure({"1": row, "5": row})
    without = guidance_figure({"1": row, "5": {"identity": 50.0}})
    assert "fill-opacity: 0.18" in with_intervals or "opacity: 0.18" in with_intervals
    assert "0.18" not in without
