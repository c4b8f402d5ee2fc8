"""Adaptive instance normalisation (Huang and Belongie, ICCV 2017)."""

from torch import Tensor, var_mean

#: Added to both variances, because that of a flat channel is 0; the paper's code adds 1e-5, which is
#: not negligible beside small variances.
EPSILON = 1e-8


def with_statistics_of(own: Tensor, source: Tensor) -> Tensor:
    """`source` with the mean and standard deviation of `own`, both (pictures, channels, height, width).

    S' = (S - mean(S)) / std(S) * std(own) + mean(own) for each picture and channel, over height and
    width, always in float32. A source that equals `own` is returned bit for bit.
    """
    variance, mean = var_mean(source.float(), dim=(-2, -1), keepdim=True, correction=0)
    own_variance, own_mean = var_mean(own.float(), dim=(-2, -1), keepdim=True, correction=0)
    ratio = ((own_variance + EPSILON) / (variance + EPSILON)).sqrt()
    return (source.float() * ratio + (own_mean - mean * ratio)).to(source.dtype)
