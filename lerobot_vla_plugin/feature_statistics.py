"""Statistics of a data set's features, as LeRobot's normalisers take them: checked, and picked out of several."""

from typing import Any

import torch
from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature

Statistics = dict[str, dict[str, Any]]

_STATISTICS_READ = {
    NormalizationMode.MEAN_STD: ("mean", "std"),
    NormalizationMode.MIN_MAX: ("min", "max"),
    NormalizationMode.QUANTILES: ("q01", "q99"),
    NormalizationMode.QUANTILE10: ("q10", "q90"),
}


def check_statistics(
    features: dict[str, PolicyFeature], norm_map: dict[FeatureType, NormalizationMode], stats: Statistics
) -> None:
    """Refuse statistics that would leave a feature unnormalised or turn it into NaN.

    LeRobot's normaliser passes a feature without statistics through unchanged, so that normalised values reach the
    motors as joint positions.

    Raises:
        ValueError: Naming the feature, what was expected and what is there.
    """
    for key, feature in features.items():
        needed = _STATISTICS_READ.get(norm_map.get(feature.type, NormalizationMode.IDENTITY), ())
        if not needed:
            continue
        if key not in stats:
            keyed = sorted(name for name in stats if name.endswith(key))
            hint = (
                f"they are keyed by data set ({', '.join(keyed)}): select one explicitly"
                if keyed
                else "compute them from the data set, or load a checkpoint that carries them"
            )
            raise ValueError(
                f"no statistics for {key}; there are some for: {', '.join(stats) or 'nothing'}. Remedy: {hint}"
            )
        for name in needed:
            check_vector(stats[key], name, key, feature)


def check_vector(stats: dict[str, Any], name: str, key: str, feature: PolicyFeature) -> None:
    """Refuse a statistic that is absent, not finite or of another width than its feature.

    Args:
        stats: Statistics of one feature.
        name: Which one, e.g. "min".
        key: The feature's key, for messages.
        feature: The feature.

    Raises:
        ValueError: Naming the feature, what was expected and what is there.
    """
    if name not in stats:
        raise ValueError(f"statistics of {key}: expected {name}, there are: {', '.join(stats)}")
    value = torch.as_tensor(stats[name], dtype=torch.float64)
    if not torch.isfinite(value).all():
        raise ValueError(f"statistics of {key}: {name} is not finite ({value.tolist()}); recompute them")
    if value.numel() not in (1, feature.shape[0]):
        raise ValueError(f"statistics of {key}: expected {feature.shape[0]} values of {name}, got {value.numel()}")


def select_statistics(stats: Statistics, dataset: str) -> Statistics:
    """Pick one data set's statistics out of those keyed like `so100.buffer.action`.

    Args:
        stats: Statistics of several data sets.
        dataset: What precedes the feature's name, for example `so100` or `so100.buffer`.

    Raises:
        ValueError: If none belong to `dataset`.
    """
    selected: Statistics = {}
    for key, value in stats.items():
        for feature in ("observation.state", "action"):
            prefix = key.removesuffix(feature).rstrip(".")
            if key.endswith(feature) and prefix in (dataset, f"{dataset}.buffer"):
                selected[feature] = value
    if not selected:
        raise ValueError(f"no statistics of data set {dataset!r}; there are: {', '.join(stats) or 'none'}")
    return selected
