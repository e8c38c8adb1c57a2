"""How unlike the heads that the weights were trained on a head is, seen with the eyes of the generator: one number.

The four encoders that all maps share turn each slice into features. Their means and standard deviations over the brain,
averaged over slices, describe a head; the score is their distance from the mean of training heads, each in standard
deviations of these heads, root mean square: about 1 for a head like them. It is a Mahalanobis distance with a diagonal
covariance, because few heads do not tell how hundreds of features go together.

Beside the weights lies `familiar.json`, made by `python -m training familiar`; the manifest carries its sha256.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from inference.engine import Engine
from inference.preprocess import Prepared
from inference.weights import Manifest, WeightsError

FILE = "familiar.json"
SLICES, ENOUGH = 10, 0.3  # evenly over those with so much of the largest slice of brain
LEAST_SPREAD = 1e-6  # of a feature that is the same in all heads


@dataclass(frozen=True, slots=True)
class Familiar:
    """What training heads look like.

    mean, spread: of each feature over the training heads; heads: how many. limit: the highest score of `held_out` heads
    that were not trained on, so that one in held_out + 1 heads like them is warned of wrongly.
    """

    mean: tuple[float, ...]
    spread: tuple[float, ...]
    heads: int
    limit: float
    held_out: int

    def score(self, features: np.ndarray) -> float:
        """The distance of a head described by `describe`."""
        each = (features - np.array(self.mean)) / np.array(self.spread)
        return float(np.sqrt(np.mean(each**2)))

    def judge(self, features: np.ndarray) -> tuple[str, ...]:
        """A warning as a sentence, or nothing."""
        score = self.score(features)
        if score <= self.limit:
            return ()
        return (f"Unlike the heads that the weights were trained on: {score:.1f}, at most {self.limit:.1f} is usual.",)


def describe(prepared: Prepared, engine: Engine) -> np.ndarray:
    """(features,) of a head; raises ValueError where there is no brain."""
    area = prepared.mask.sum(axis=(1, 2))
    full = np.flatnonzero(area >= max(ENOUGH * area.max(), 1))
    if not full.size:
        raise ValueError("a head without a brain has no features")
    places = np.unique(np.linspace(0, len(full) - 1, SLICES).round().astype(int))
    chosen = full[places]
    features: np.ndarray = engine.features(prepared.planes[chosen], prepared.mask[chosen]).mean(axis=0)
    return features


def fit(trained: np.ndarray, held_out: np.ndarray) -> Familiar:
    """From the features of training heads and of heads never trained on, (heads, features) each."""
    spread = np.maximum(trained.std(axis=0, ddof=1), LEAST_SPREAD)
    mean, rounded = (tuple(float(f"{value:.6g}") for value in values) for values in (trained.mean(axis=0), spread))
    found = Familiar(mean, rounded, len(trained), 0.0, len(held_out))
    limit = max(found.score(features) for features in held_out)
    return Familiar(mean, rounded, len(trained), limit, len(held_out))


def save(folder: Path, familiar: Familiar) -> str:
    """Write it beside the weights; the sha256 that belongs into the manifest."""
    content = (json.dumps(asdict(familiar)) + "\n").encode()
    (folder / FILE).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def read(folder: Path, manifest: Manifest) -> Familiar:
    """What lies beside the weights, where the manifest names it; raises WeightsError."""
    path = folder / FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise WeightsError(
            f"{path} is missing, the manifest names it; copy the folder again from where it came"
        ) from None
    if (found := hashlib.sha256(content).hexdigest()) != manifest.familiar:
        raise WeightsError(
            f"{path} is not the file its manifest names: sha256 expected {manifest.familiar}, found {found}; "
            "copy the folder again from where it came"
        )
    values = json.loads(content)
    return Familiar(**{**values, "mean": tuple(values["mean"]), "spread": tuple(values["spread"])})
