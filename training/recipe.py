"""A recipe: everything that decides how weights are trained, read from one TOML file; unknown keys are refused by name.

Defaults are those of paper 001 (models.md T1) and, where the paper is silent, of its public code (A16).
"""

import json
import tomllib
from dataclasses import asdict, field, fields
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from inference.maps import KINDS
from inference.models.magic import Norm
from inference.smoothing import Smoothing
from training.losses import Variant

FORBID = ConfigDict(extra="forbid")


class RecipeError(Exception):
    """The recipe cannot be used; the message names the key and what to do."""


def _kinds(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or len(set(names)) != len(names) or not set(names) <= KINDS.keys():
        raise ValueError(f"kinds names each map once, of {', '.join(KINDS)}; found {', '.join(names) or 'none'}")
    return names


Kinds = Annotated[tuple[str, ...], AfterValidator(_kinds)]
Share = Annotated[float, Field(gt=0, lt=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=FORBID)
class Data:
    """Which maps are learnt, and how slices are drawn."""

    kinds: Kinds = tuple(KINDS)
    validation_share: Share = 0.1
    balanced: bool = False
    augment: bool = True
    shuffled: bool = False
    cache: Count = 16
    workers: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, config=FORBID)
class Model:
    """The size of the generator and of each discriminator.

    copied: map -> the map whose branch its own begins as, where a training starts from weights. A branch that has
    settled without the lesions begins again from one that has found them.
    """

    width: Count = 64
    discriminator_width: Count = 64
    norm: Norm = "instance"
    copied: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, config=FORBID)
class Loss:
    """The lambdas of equation 8; 0 removes a term."""

    variant: Variant = "mended"
    adversarial: Weight = 1.0
    l1: Weight = 100.0
    extrema: Weight = 100.0
    multimodal: Weight = 100.0
    synthetic_cbv: Weight = 0.0
    lesion_weight: Rate = 1.0

    @property
    def lambdas(self) -> dict[str, float]:
        """Name of the term -> its lambda, those that are not 0."""
        names = ("adversarial", "l1", "extrema", "multimodal", "synthetic_cbv")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


@dataclass(frozen=True, config=FORBID)
class Training:
    """The optimisation."""

    epochs: Count = 50
    batch: Count = 8
    accumulate: Count = 1
    learning_rate: Rate = 1e-4
    beta1: Fraction = 0.5
    beta2: Fraction = 0.999
    ema: Fraction = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, config=FORBID)
class Weights:
    """What the manifest of the exported weights says, and how they are stored.

    smoothing: map -> how it is smoothed across slices when the weights are used.
    """

    name: str = "ncct-magic"
    version: str = "1"
    licence: str = "Apache-2.0"
    training_domain: Literal["virtual", "clinical"] = "virtual"
    half: bool = False
    smoothing: dict[str, Smoothing] = field(default_factory=dict)


@dataclass(frozen=True, config=FORBID)
class Recipe:
    """One training from beginning to end."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    loss: Loss = field(default_factory=Loss)
    training: Training = field(default_factory=Training)
    weights: Weights = field(default_factory=Weights)

    def digest(self) -> str:
        """sha256 of everything but what may change when a training goes on: how long, on what, and read by how many."""
        values = asdict(self)
        for section, key in (("training", "epochs"), ("training", "device"), ("data", "workers")):
            del values[section][key]
        return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


NEEDS: dict[str, tuple[str, ...]] = {  # a key of [loss] -> the maps it cannot do without
    "multimodal": ("CBF", "CBV", "MTT"),
    "synthetic_cbv": ("CBF", "CBV", "MTT"),
    "lesion_weight": ("Tmax",),
}


def load(path: Path) -> Recipe:
    """The recipe of a TOML file; raises RecipeError naming the key that is unknown or wrong."""
    try:
        return parse(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, RecipeError) as problem:
        raise RecipeError(f"{path}: {problem}") from None


def parse(raw: dict[str, Any]) -> Recipe:
    """The recipe of a table of tables."""
    try:
        recipe = TypeAdapter(Recipe).validate_python(raw)
    except ValidationError as problem:
        raise RecipeError("; ".join(_sentence(error) for error in problem.errors())) from None
    _refuse_missing_maps(recipe)
    _refuse_unknown_maps(recipe)
    return recipe


def _sentence(error: Any) -> str:
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "unexpected_keyword_argument":
        return f"there is no key {key}; the keys are {', '.join(_keys_beside(error['loc']))}"
    return f"{key}: {error['msg']}, found {error['input']!r}"


def _keys_beside(loc: tuple[str, ...]) -> list[str]:
    sections = {section.name: section.default_factory for section in fields(Recipe)}
    owner = sections[loc[0]] if len(loc) > 1 else Recipe
    return [f.name for f in fields(owner)]  # type: ignore[arg-type]  # every section is a dataclass


def _refuse_missing_maps(recipe: Recipe) -> None:
    used = [*recipe.loss.lambdas, *(["lesion_weight"] if recipe.loss.lesion_weight != 1.0 else [])]
    for key in used:
        if missing := [name for name in NEEDS.get(key, ()) if name not in recipe.data.kinds]:
            raise RecipeError(f"loss.{key} needs {', '.join(missing)} in data.kinds; add it, or take the key out")


def _refuse_unknown_maps(recipe: Recipe) -> None:
    kinds = recipe.data.kinds
    named = {
        "model.copied": {name for pair in recipe.model.copied.items() for name in pair},
        "weights.smoothing": set(recipe.weights.smoothing),
    }
    for key, names in named.items():
        if unknown := sorted(names - set(kinds)):
            raise RecipeError(f"{key} names {', '.join(unknown)}; the maps are {', '.join(kinds)}")
