"""Adaptive instance normalisation (Huang and Belongie, ICCV 2017)."""

from torch import Tensor, var_mean

#: Added to both variances, for a flat channel has none to divide by; the paper's code adds 1e-5, which
#: is a part of small ones.
EPSILON = 1e-8


def with_statistics_of(own: Tensor, source: Tensor) -> Tensor:
    """`source` with the mean and standard deviation of `own`, both (pictures, channels, height, width).

    S' = (S - mean(S)) / std(S) * std(own) + mean(own), by picture and channel, over height and width;
    in float32 whatever the precision. A source that equals `own` comes back to the bit.
    """
    variance, mean = var_mean(source.float(), dim=(-2, -1), keepdim=True, correction=0)
    own_variance, own_mean = var_mean(own.float(), dim=(-2, -1), keepdim=True, correction=0)
    ratio = ((own_variance + EPSILON) / (variance + EPSILON)).sqrt()
    return (source.float() * ratio + (own_mean - mean * ratio)).to(source.dtype)
