"""How far what the decoder used is from what it saw of the clean picture."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sdcorrect.core.observe import Observation, SelfAttention
from sdcorrect.core.plan import Block, TensorName
from sdcorrect.errors import PictureError

#: The tensors that are compared: each of them can be put back by a recipe.
COMPARED: tuple[TensorName, ...] = ("self-attention", "skip", "resnet")
#: Attention is computed for so many queries at a time that it has about this many values: 64 MiB.
CHUNK = 1 << 24


def discrepancies(ours: Observation, inversion: Observation) -> dict[TensorName, dict[Block, float]]:
    """By tensor and block, how far `ours` is from the `inversion`, both of one picture.

    Raises:
        PictureError: a tensor is not finite.
    """
    compared: dict[TensorName, dict[Block, float]] = {
        "self-attention": {
            block: attention_discrepancy(layers, inversion.self_attention[block])
            for block, layers in ours.self_attention.items()
        },
        "skip": {b: cosine_distance(skip, inversion.skip[b]) for b, skip in ours.skip.items()},
        "resnet": {b: cosine_distance(h, inversion.resnet[b]) for b, h in ours.resnet.items()},
    }
    for tensor, scores in compared.items():
        for block, score in scores.items():
            if math.isnan(score):
                raise PictureError(
                    f"{tensor} of block {block} is not finite at timestep {ours.timestep}; "
                    "compute with --dtype float32"
                )
    return compared


def attention_discrepancy(ours: Sequence[SelfAttention], theirs: Sequence[SelfAttention]) -> float:
    """The Jensen-Shannon divergence of a block's attention, mean over queries, heads and layers."""
    return sum(map(_layer_discrepancy, ours, theirs)) / len(ours)


def _layer_discrepancy(ours: SelfAttention, theirs: SelfAttention) -> float:
    some = queries_at_a_time(ours)
    of_queries = [
        jensen_shannon(p.float(), q.float()).mean(dim=1)  # over heads: (pictures, queries)
        for p, q in zip(ours.by_queries(some), theirs.by_queries(some), strict=True)
    ]
    return float(torch.cat(of_queries, dim=1).mean())


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """The divergence of the distributions in the last dimension, in bits: 0 if equal, 1 if disjoint.

    JSD = H((p + q) / 2) - (H(p) + H(q)) / 2 (Lin, IEEE Trans. Inf. Theory 37, 1991), the square of
    scipy's `jensenshannon(p, q, base=2)`, on the device where the attention is.
    """
    mean = (p + q) / 2
    nats = torch.special.entr(mean) - (torch.special.entr(p) + torch.special.entr(q)) / 2
    return nats.sum(dim=-1).clamp(min=0) / math.log(2)


def cosine_distance(ours: Tensor, theirs: Tensor) -> float:
    """1 - cosine of the channels of (pictures, channels, height, width), mean over positions: 0 to 2.

    As |a - b|^2 / 2 of the unit vectors, which of equal ones is exactly 0.
    """
    a, b = normalize(ours.float(), dim=1), normalize(theirs.float(), dim=1)
    return float((a - b).square().sum(dim=1).mean() / 2)


def queries_at_a_time(attention: SelfAttention) -> int:
    return max(1, CHUNK // (attention.heads * attention.tokens))
