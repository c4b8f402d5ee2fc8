"""Attention and features as maps, with colours and clusters that are comparable across conditions."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import Tensor

from sdcorrect.core.observe import Observation
from sdcorrect.core.plan import Block
from sdcorrect.dissect.measure import queries_at_a_time

Values = NDArray[np.float32]

COMPONENTS = 16  #: of the PCA: the first three give colours, all are clustered
CLUSTERS = 6
OUTLIERS = 1  #: per cent at either end of a component that are clipped


class Map(NamedTuple):
    """The tokens of a block, as colours and as clusters."""

    colours: Values  #: (height, width, 3), 0 to 1
    clusters: NDArray[np.int32]  #: (height, width)


class Basis:
    """PCA and k-means of the inversion's tokens, which colour those of every condition."""

    def __init__(self, tokens: Values) -> None:
        components = min(COMPONENTS, *tokens.shape)
        self._pca = PCA(components, random_state=0).fit(tokens)
        reduced = self._pca.transform(tokens)
        clusters = min(CLUSTERS, len(np.unique(reduced, axis=0)))
        self._kmeans = KMeans(clusters, n_init=4, random_state=0).fit(reduced)
        self._low, self._high = np.percentile(reduced, (OUTLIERS, 100 - OUTLIERS), axis=0)

    def reduce(self, tokens: Values) -> Values:
        """(tokens, channels) -> (tokens, components)."""
        return self._pca.transform(tokens).astype(np.float32)

    def map(self, reduced: Values, height: int, width: int) -> Map:
        """Map height * width tokens, as returned by `reduce`."""
        spread = np.maximum(self._high - self._low, np.finfo(np.float32).tiny)
        scaled = np.clip((reduced - self._low) / spread, 0, 1)[:, :3]
        colours = np.zeros((len(scaled), 3), np.float32)
        colours[:, : scaled.shape[1]] = scaled
        clusters = self._kmeans.predict(reduced)
        return Map(colours.reshape(height, width, 3), clusters.reshape(height, width))


@dataclass
class Maps:
    """The maps of one block in one condition at one timestep."""

    attention: Map  #: of the rows of its attention, averaged over heads and layers
    features: Map  #: of the skip that it concatenates
    from_point: Values  #: (height, width): what the query point attends to


@dataclass
class Atlas:
    """Draws maps in the colours of the first observation, which is the inversion's."""

    point: tuple[float, float]  #: x and y as fractions of the picture
    _bases: dict[Block, tuple[Basis, Basis]] = field(default_factory=dict)

    def draw(self, observation: Observation) -> dict[Block, Maps]:
        """Map each block of an observation of one picture."""
        return {block: self._draw_block(observation, block) for block in observation.skip}

    def _draw_block(self, observation: Observation, block: Block) -> Maps:
        features = _numbers(observation.skip[block][0])
        _, height, width = features.shape
        channels = features.reshape(len(features), -1).T
        if block not in self._bases:
            attention = np.concatenate([*_rows(observation, block)])
            self._bases[block] = Basis(attention), Basis(channels)
        of_attention, of_features = self._bases[block]
        # all of the attention would not fit in memory, so its rows are reduced as they come
        x, y = (
            min(int(f * side), side - 1) for f, side in zip(self.point, (width, height), strict=True)
        )
        reduced, from_point, begin = [], None, 0
        for rows in _rows(observation, block):
            reduced.append(of_attention.reduce(rows))
            if begin <= y * width + x < begin + len(rows):
                from_point = rows[y * width + x - begin].reshape(height, width)
            begin += len(rows)
        assert from_point is not None, "the point lies in the picture"
        return Maps(
            of_attention.map(np.concatenate(reduced), height, width),
            of_features.map(of_features.reduce(channels), height, width),
            from_point,
        )


def _rows(observation: Observation, block: Block) -> Iterator[Values]:
    """Yield a block's attention, averaged over heads and layers, in chunks (queries, tokens)."""
    layers = observation.self_attention[block]
    some = queries_at_a_time(layers[0])
    for of_layers in zip(*(layer.by_queries(some) for layer in layers), strict=True):
        yield _numbers(sum(p[0].float().mean(dim=0) for p in of_layers) / len(layers))


def _numbers(tensor: Tensor) -> Values:
    return tensor.float().cpu().numpy()
