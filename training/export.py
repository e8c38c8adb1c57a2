"""The best generator so far as weights that the node can load, with a complete manifest."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from inference import preprocess, weights
from inference.models.magic import Magic
from training.recipe import Recipe

FOLDER = "weights"


def export(out: Path, generator: Magic, recipe: Recipe, data_digest: str, metrics: Mapping[str, float]) -> Path:
    """Write `weights` in a folder anew; what is half written never carries that name. Returns it.

    metrics: measured on the validation patients.
    """
    partial, final = out / f"{FOLDER}.partial", out / FOLDER
    shutil.rmtree(partial, ignore_errors=True)
    weights.save(partial, manifest(recipe, data_digest, metrics), generator.state_dict(), half=recipe.weights.half)
    shutil.rmtree(final, ignore_errors=True)
    return partial.rename(final)


def manifest(recipe: Recipe, data_digest: str, metrics: Mapping[str, float]) -> weights.Manifest:
    """What design.md contract 10 wants to know of weights made by a recipe."""
    return weights.Manifest(
        name=recipe.weights.name,
        version=recipe.weights.version,
        route="ncct",
        architecture="magic",
        width=recipe.model.width,
        norm=recipe.model.norm,
        kinds=recipe.data.kinds,
        ranges=weights.ranges(recipe.data.kinds),
        units="physical",
        preprocessing=preprocess.VERSION,
        training_domain=recipe.weights.training_domain,
        data_digest=data_digest,
        seeds=(recipe.training.seed,),
        commit=commit(),
        licence=recipe.weights.licence,
        metrics=dict(metrics),
        smoothing=recipe.weights.smoothing,
    )


def commit() -> str:
    """The commit of this software, "+changes" behind it where the checkout differs from it; empty outside git."""
    found = _git("rev-parse", "HEAD")
    return f"{found}+changes" if found and _git("status", "--porcelain", "--untracked-files=no") else found


def _git(*arguments: str) -> str:
    here = Path(__file__).parent
    try:
        answer = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
