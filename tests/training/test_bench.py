"""The benchmark of the trainer: real updates, timed in turns."""

from rich.console import Console

from training import bench
from training.bench import Case


def test_every_case_is_timed_in_every_round_and_the_first_is_the_measure(capsys):
    timings = bench.bench((Case(1), Case(1, adversarial=True)), rounds=2, batch=1)
    assert [len(timing.seconds) for timing in timings] == [2, 2]
    assert all(second > 0 for timing in timings for second in timing.seconds)
    bench.show(timings, Console(width=160))
    printed = capsys.readouterr().out
    assert "1.00 (1.00 to 1.00)" in printed and "width 1, float32, adversarial" in printed


def test_a_case_trains_what_it_says():
    recipe = Case(12, "bfloat16").recipe(4)
    assert (recipe.model.width, recipe.training.precision, recipe.training.batch) == (12, "bfloat16", 4)
    assert "adversarial" not in recipe.loss.lambdas
    assert "adversarial" in Case(12, adversarial=True).recipe(4).loss.lambdas
