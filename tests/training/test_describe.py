"""`python -m training describe`: what it prints is what the modules are."""

import re

import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

from inference.models.magic import Magic
from training import describe
from training.__main__ import app


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_the_paper_s_network_is_described_with_the_paper_s_numbers():
    result = run("describe", "magic", "--maps", "4", "--width", "64")
    assert result.exit_code == 0
    words = " ".join(result.output.split())
    assert "209,352,408 parameters" in words
    assert "11,063,044 parameters" in words
    assert "18.94 GMAC" in words
    assert "Input 3 x 256 x 256, output 4 x 256 x 256." in words
    assert "output 4 x 30 x 30." in words
    assert "70 x 70 pixels" in words
    assert re.search(r"encoder 8 │\s+4 │ 512 x 1 x 1 ", words)


def test_five_maps_of_width_64_are_described_unless_told_otherwise():
    words = " ".join(run("describe", "magic").output.split())
    assert "261,001,374 parameters" in words
    assert "Input 3 x 256 x 256 and 5 x 256 x 256, output 5 x 30 x 30." in words


@pytest.mark.parametrize(("maps", "width"), [(1, 4), (6, 64), (3, 10)])
def test_the_rows_add_up_to_the_whole_network(maps, width):
    for network in describe.magic(maps, width):
        assert sum(block.times * block.parameters for block in network.blocks) == network.parameters
        assert sum(block.times * block.macs for block in network.blocks) == network.macs
        assert network.output[0] == maps


def test_the_described_generator_is_the_generator_that_runs():
    network, _ = describe.magic(2, 4)
    generator = Magic(maps=2, width=4)
    assert network.parameters == sum(parameter.numel() for parameter in generator.parameters())
    assert network.output == generator(torch.zeros(1, 3, 256, 256)).shape[1:]


def test_multiplications_are_counted_as_by_hand():
    """5 channels to 7, kernel 3, on 8x8 with padding: 8x8 outputs; transposed with stride 2: 4x4 inputs."""
    given = torch.zeros(1, 5, 8, 8)
    convolution = nn.Conv2d(5, 7, 3, padding=1)
    assert describe._macs(convolution, given, convolution(given)) == 5 * 7 * 3 * 3 * 8 * 8
    given = torch.zeros(1, 5, 4, 4)
    transposed = nn.ConvTranspose2d(5, 7, 4, stride=2, padding=1)
    assert describe._macs(transposed, given, transposed(given)) == 5 * 7 * 4 * 4 * 4 * 4


def test_an_unknown_model_is_a_usage_error_that_names_the_known_ones():
    result = run("describe", "magick")
    assert result.exit_code == 2
    assert "no model is called 'magick'" in result.output
    assert "choose one of: magic" in result.output


@pytest.mark.parametrize("option", ["--maps", "--width"])
def test_less_than_one_map_or_channel_is_a_usage_error(option):
    result = run("describe", "magic", option, "0")
    assert result.exit_code == 2
    assert option in result.output


def test_every_command_explains_itself():
    assert "describe" in run("--help").output
    for command in ("describe", "untrained"):
        assert run(command, "--help").exit_code == 0


def test_untrained_writes_a_folder_of_weights(tmp_path):
    result = run("untrained", str(tmp_path / "weights"), "--width", "1", "--seed", "3")
    assert result.exit_code == 0
    assert {path.name for path in (tmp_path / "weights").iterdir()} == {"model.safetensors", "manifest.json"}
