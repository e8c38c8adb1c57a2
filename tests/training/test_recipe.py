"""Recipes: the defaults of the paper, unknown keys refused by name, the committed recipe the same as the defaults."""

from pathlib import Path

import pytest

from inference import weights
from inference.maps import KINDS
from training import recipe
from training.recipe import RecipeError

RECIPES = Path(__file__).parents[2] / "config" / "training"
COMMITTED = RECIPES / "magic.toml"


def test_the_defaults_are_those_of_the_paper():
    training, loss = recipe.Recipe().training, recipe.Recipe().loss
    assert (training.beta1, training.beta2, training.learning_rate) == (0.5, 0.999, 1e-4)
    assert (training.batch, training.epochs) == (8, 50)
    assert loss.lambdas == {"adversarial": 1.0, "l1": 100.0, "extrema": 100.0, "multimodal": 100.0}


def test_the_committed_recipe_states_the_defaults():
    assert recipe.load(COMMITTED) == recipe.Recipe()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"training": {"epoch": 3}}, "there is no key training.epoch; the keys are epochs, batch, accumulate"),
        ({"optimiser": {}}, "there is no key optimiser; the keys are data, model, loss, training, weights"),
        ({"training": {"batch": 0}}, "training.batch: .*greater than or equal to 1, found 0"),
        (
            {"data": {"kinds": ["CBF", "rCBV"]}},
            "kinds names each map once, of CBF, CBV, MTT, TTP, Tmax; found CBF, rCBV",
        ),
        ({"data": {"kinds": ["CBF", "Tmax"]}}, "loss.multimodal needs CBV, MTT in data.kinds"),
        ({"data": {"kinds": ["CBF", "CBV", "MTT"]}, "loss": {"lesion_weight": 2}}, "loss.lesion_weight needs Tmax"),
        ({"model": {"copied": {"MTT": "rCBF"}}}, "model.copied names rCBF; the maps are CBF, CBV, MTT, TTP, Tmax"),
        (
            {"weights": {"smoothing": {"rCBF": {"above": 4, "sigma_mm": 9}}}},
            "weights.smoothing names rCBF; the maps are CBF, CBV",
        ),
    ],
)
def test_a_wrong_recipe_is_refused_in_words(raw, words):
    with pytest.raises(RecipeError, match=words):
        recipe.parse(raw)


def test_the_message_names_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[training]\nepoch = 3\n")
    with pytest.raises(RecipeError, match=r"mine\.toml: there is no key training\.epoch"):
        recipe.load(path)


def test_a_term_with_lambda_0_is_gone():
    assert recipe.parse({"loss": {"adversarial": 0, "extrema": 0}}).loss.lambdas == {"l1": 100.0, "multimodal": 100.0}


def test_more_epochs_are_the_same_recipe_and_another_batch_is_not():
    plain = recipe.Recipe().digest()
    assert recipe.parse({"training": {"epochs": 7, "device": "cpu"}, "data": {"workers": 3}}).digest() == plain
    assert recipe.parse({"training": {"batch": 4}}).digest() != plain


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_that_ships_can_be_used(path: Path):
    assert recipe.load(path).data.kinds == tuple(KINDS)


def test_the_default_weights_were_made_by_the_recipe_that_ships():
    made, manifest = recipe.load(RECIPES / "ncct-virtual-finish.toml"), weights.read(weights.shipped())
    assert (manifest.name, manifest.version) == (made.weights.name, made.weights.version)
    assert (manifest.width, manifest.norm, manifest.kinds) == (made.model.width, made.model.norm, made.data.kinds)
    assert manifest.seeds == (made.training.seed,)
