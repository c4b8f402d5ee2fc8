"""How far the decoder's tensors are from those it computes on the clean picture."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from sdcorrect.core.observe import Observation, SelfAttention
from sdcorrect.core.plan import Block, TensorName
from sdcorrect.errors import PictureError

#: The tensors that are compared; recipes can put back each of them, and others.
COMPARED: tuple[TensorName, ...] = ("self-attention", "skip", "resnet")
#: Attention is computed for chunks of queries with about this many values (64 MiB).
CHUNK = 1 << 24


def discrepancies(ours: Observation, inversion: Observation) -> dict[TensorName, dict[Block, float]]:
    """The discrepancies of `ours` from the `inversion` by tensor and block, for one picture.

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
                    "try --dtype float32"
                )
    return compared


def attention_discrepancy(ours: Sequence[SelfAttention], theirs: Sequence[SelfAttention]) -> float:
    """The Jensen-Shannon divergence of a block's attention, averaged over queries, heads and layers."""
    return sum(map(_layer_discrepancy, ours, theirs)) / len(ours)


def _layer_discrepancy(ours: SelfAttention, theirs: SelfAttention) -> float:
    some = queries_at_a_time(ours)
    of_queries = [
        jensen_shannon(p.float(), q.float()).mean(dim=1)  # over heads: (pictures, queries)
        for p, q in zip(ours.by_queries(some), theirs.by_queries(some), strict=True)
    ]
    return float(torch.cat(of_queries, dim=1).mean())


def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """The divergence of distributions along the last dimension, in bits: 0 if equal, 1 if disjoint.

    JSD = H((p + q) / 2) - (H(p) + H(q)) / 2 (Lin, IEEE Trans. Inf. Theory 37, 1991): the square of
    scipy's `jensenshannon(p, q, base=2)`, but computed on the tensors' device.
    """
    mean = (p + q) / 2
    nats = torch.special.entr(mean) - (torch.special.entr(p) + torch.special.entr(q)) / 2
    return nats.sum(dim=-1).clamp(min=0) / math.log(2)


def cosine_distance(ours: Tensor, theirs: Tensor) -> float:
    """1 - cosine over channels of (pictures, channels, height, width), averaged over positions: 0 to 2.

    Computed as |a - b|^2 / 2 of unit vectors, which is exactly 0 for equal ones.
    """
    a, b = normalize(ours.float(), dim=1), normalize(theirs.float(), dim=1)
    return float((a - b).square().sum(dim=1).mean() / 2)


def queries_at_a_time(attention: SelfAttention) -> int:
    return max(1, CHUNK // (attention.heads * attention.tokens))
