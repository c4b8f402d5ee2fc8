"""Adaptive instance normalisation (Huang and Belongie, ICCV 2017)."""

from torch import Tensor, var_mean

#: Added to both variances, as the paper's code adds it: a flat channel has none to divide by.
EPSILON = 1e-5


def with_statistics_of(own: Tensor, source: Tensor) -> Tensor:
    """`source` with the mean and standard deviation of `own`, both (pictures, channels, height, width).

    S' = (S - mean(S)) / std(S) * std(own) + mean(own), by picture and channel, over height and width;
    in float32 whatever the precision. A source that equals `own` comes back to the bit.
    """
    variance, mean = var_mean(source.float(), dim=(-2, -1), keepdim=True, correction=0)
    own_variance, own_mean = var_mean(own.float(), dim=(-2, -1), keepdim=True, correction=0)
    ratio = ((own_variance + EPSILON) / (variance + EPSILON)).sqrt()
    return (source.float() * ratio + (own_mean - mean * ratio)).to(source.dtype)
