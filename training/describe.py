"""What a model is made of: its blocks, their shapes, parameters and arithmetic, read from the modules themselves.

The models are built on torch's meta device, where tensors have shapes and no storage: describing 209 million parameters
takes no memory for them. One multiply-accumulate (MAC) is one product of a weight and an input element, added to a sum;
convolutions and transposed convolutions are counted, padding included, and nothing else: no bias, normalisation or
activation. One MAC is two FLOPs.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from inference.models.magic import SIDE, Branch, Magic
from training.discriminators import PLANES, Discriminator, Discriminators, receptive_field

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """One row: a block that occurs `times` times.

    shape: of its output for one slice, (channels, rows, columns).
    parameters and macs: of one occurrence, for one slice.
    """

    name: str
    times: int
    shape: Shape
    parameters: int
    macs: int


@dataclass(frozen=True, slots=True)
class Network:
    """A network and its blocks; parameters and macs are counted over the whole network, not added up from the rows."""

    title: str
    blocks: tuple[Block, ...]
    inputs: tuple[Shape, ...]
    output: Shape
    parameters: int
    macs: int
    note: str = ""


def magic(maps: int, width: int) -> tuple[Network, ...]:
    """The generator and the discriminators of MAGIC."""
    with torch.device("meta"):
        generator, discriminators = Magic(maps, width), Discriminators(maps, width)
        planes, values = torch.empty(1, PLANES, SIDE, SIDE), torch.empty(1, maps, SIDE, SIDE)
    size = f"{maps} map{'s' if maps > 1 else ''}, width {width}"
    field = receptive_field(discriminators.each[0])
    return (
        _network(f"magic generator, {size}", generator, dict(_generator_blocks(generator)), (planes,)),
        _network(
            f"magic discriminators, {size}",
            discriminators,
            dict(_discriminator_blocks(discriminators)),
            (planes, values),
            note=f"Each element of the output judges a patch of {field} x {field} pixels.",
        ),
    )


MODELS: Mapping[str, Callable[[int, int], tuple[Network, ...]]] = {"magic": magic}


def _generator_blocks(generator: Magic) -> Iterator[tuple[str, tuple[nn.Module, int]]]:
    """Name -> (module, occurrences); the branches are alike, so the first stands for all."""
    maps = len(generator.branches)
    branch = generator.branches[0]
    assert isinstance(branch, Branch)
    for number, encoder in enumerate(generator.encoders, start=1):
        yield f"shared encoder {number}", (encoder, 1)
    for number, encoder in enumerate(branch.encoders, start=len(generator.encoders) + 1):
        yield f"encoder {number}", (encoder, maps)
    for number, decoder in enumerate(branch.decoders, start=1):
        yield f"decoder {number}", (decoder, maps)
    yield "PILO", (branch.pilo, maps)


def _discriminator_blocks(discriminators: Discriminators) -> Iterator[tuple[str, tuple[nn.Module, int]]]:
    first = discriminators.each[0]
    assert isinstance(first, Discriminator)
    convolutions = (module for module in first.layers if isinstance(module, nn.Conv2d))
    for number, convolution in enumerate(convolutions, start=1):
        yield f"convolution {number}", (convolution, len(discriminators.each))


def _network(
    title: str,
    network: nn.Module,
    blocks: Mapping[str, tuple[nn.Module, int]],
    inputs: tuple[Tensor, ...],
    note: str = "",
) -> Network:
    """Run the network once on meta tensors and note what passes through."""
    shapes: dict[nn.Module, Shape] = {}
    macs: Counter[nn.Module] = Counter()

    def look(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        shapes[module] = tuple(output.shape[1:])
        macs[module] += _macs(module, args[0], output)

    for module in network.modules():
        module.register_forward_hook(look)
    output: Tensor = network(*inputs)
    return Network(
        title=title,
        blocks=tuple(
            Block(name, times, shapes[block], _parameters(block), sum(macs[part] for part in block.modules()))
            for name, (block, times) in blocks.items()
        ),
        inputs=tuple(tuple(given.shape[1:]) for given in inputs),
        output=tuple(output.shape[1:]),
        parameters=_parameters(network),
        macs=sum(macs.values()),
        note=note,
    )


def _macs(module: nn.Module, given: Tensor, output: Tensor) -> int:
    """Each weight of a convolution meets every output position once, of a transposed one every input position."""
    if isinstance(module, nn.Conv2d):
        return module.weight.numel() * output[:, 0].numel()
    if isinstance(module, nn.ConvTranspose2d):
        return module.weight.numel() * given[:, 0].numel()
    return 0


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def show(network: Network, console: Console) -> None:
    """Print one network as a table and the sentences below it."""
    table = Table(title=network.title, title_justify="left", show_footer=True)
    table.add_column("block", "total")
    table.add_column("times", justify="right")
    table.add_column("output", _shape(network.output), justify="right")
    table.add_column("parameters each", f"{network.parameters:,}", justify="right")
    table.add_column("GMAC each", _giga(network.macs, 3), justify="right")
    for block in network.blocks:
        table.add_row(block.name, str(block.times), _shape(block.shape), f"{block.parameters:,}", _giga(block.macs, 3))
    console.print(table)
    console.print(f"Input {' and '.join(map(_shape, network.inputs))}, output {_shape(network.output)}.")
    console.print(
        f"{network.parameters:,} parameters, {network.parameters * 4 / 1e6:,.1f} MB as float32. "
        f"{_giga(network.macs)} GMAC = {_giga(2 * network.macs)} GFLOP per slice, counted on the convolutions alone: "
        "products of weights and inputs, without bias, normalisation and activations."
    )
    console.print(f"{network.note}\n" if network.note else "")


def _shape(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _giga(count: int, decimals: int = 2) -> str:
    return f"{count / 1e9:.{decimals}f}"
