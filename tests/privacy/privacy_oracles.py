"""What the accounting is compared with: the tables of the existing task builder, and closed forms."""

import math

import numpy as np
from dp_accounting.pld import privacy_loss_distribution
from scipy import fft, optimize, stats

POPULATION = 3_000_000
DELTA = 1 / 3_000_000

# (rounds, report goal, delta) -> epsilon at noise 0.3, 0.5, 1.0 and 2.0: dp_accounting's PLDAccountant, grid 1e-4.
GAUSSIAN_NOISES = (0.3, 0.5, 1.0, 2.0)
GAUSSIAN_EPSILONS = {
    (10, 2, 1e-9): (2.7763101037634046, 0.0038519083238074733, 0.00019715919452563218, 0.00018729678317490564),
    (10, 2, DELTA): (0.01839874634846657, 9.88813790555675e-05, 8.7645031063686e-05, 7.481501306931673e-05),
    (10, 200, 1e-9): (10.888620886227471, 1.472848571972178, 0.008041642222435013, 0.0008059780401636954),
    (10, 200, DELTA): (6.219159240359382, 0.18033762978997875, 0.001955854466010567, 0.00046326060948229954),
    (10, 2000, 1e-9): (15.07284572564035, 4.452073724310599, 0.12156654794725599, 0.008387103778113917),
    (10, 2000, DELTA): (10.593088508355121, 2.0537951231314975, 0.03522356598922639, 0.0048152556972721),
    (1000, 2, 1e-9): (6.283169580430665, 0.033067424009721506, 0.0010193750614392997, 0.000771280810559086),
    (1000, 2, DELTA): (1.7935881934648072, 0.0020452444763493192, 0.000608667227850937, 0.00043995944384985126),
    (1000, 200, 1e-9): (14.673089230005534, 3.039230191524445, 0.021491446432828507, 0.007629418146977528),
    (1000, 200, DELTA): (10.18918896043758, 1.0993736773487859, 0.011560853215982004, 0.0053390738385996695),
    (1000, 2000, 1e-9): (27.46628238375303, 6.194808840901878, 0.27327934264502896, 0.05819818142675044),
    (1000, 2000, DELTA): (19.85116650173387, 4.042644210171192, 0.13242623236419093, 0.04306167918202962),
}
# (rounds, report goal) -> noise for epsilon 2, 6 and 10 at delta 1/3,000,000: the plain search on that grid.
GAUSSIAN_NOISES_FOR_EPSILON = {
    (100, 2000): (0.5507230533183575, 0.40759643900625864, 0.3351682997340799),
    (100, 2): (0.2650842741611097, 0.22736795229613038, 0.20191180653382626),
    (1000, 2000): (0.59609732670333, 0.4416241430185525, 0.3736765779287938),
    (1000, 2): (0.2967163115484343, 0.25189912692727306, 0.22200350565514426),
}
# (rounds, delta) -> epsilon at the noises above, one contribution per client.
TREE_EPSILONS = {
    (10, 1e-9): (63.78141592027096, 32.66933867916766, 14.150182513018304, 6.4741236679351335),
    (10, DELTA): (57.0969900109465, 28.66115800591491, 12.118111830784725, 5.440723155894763),
    (1000, 1e-9): (121.66349664871163, 59.336971475826516, 24.406861666030988, 10.802903048488208),
    (1000, DELTA): (111.25203652171368, 53.0969900109465, 21.226124168417826, 9.187734059085908),
}
# (rounds, delta) -> noise for epsilon 2, 6 and 10.
TREE_NOISES_FOR_EPSILON = {
    (100, DELTA): (6.579846015653747, 2.425893542007523, 1.5564248489173809),
    (100, 1e-9): (7.896961056209363, 2.835477671893915, 1.7912967847213124),
    (1000, DELTA): (7.864420045808268, 2.8994973632106014, 1.8602835037747605),
    (1000, 1e-9): (9.438674766167285, 3.3890440446152126, 2.141009192147028),
}
TARGETS = (2.0, 6.0, 10.0)


def analytic_gaussian_epsilon(noise_multiplier: float, delta: float) -> float:
    """Exact epsilon of one Gaussian release without sampling (Balle and Wang, https://arxiv.org/abs/1805.06530, theorem 8)."""

    def excess(epsilon: float) -> float:
        near = stats.norm.cdf(0.5 / noise_multiplier - epsilon * noise_multiplier)
        far = stats.norm.logcdf(-0.5 / noise_multiplier - epsilon * noise_multiplier)
        return near - math.exp(epsilon + far) - delta

    return optimize.brentq(excess, 0, 1000, xtol=1e-12)


def delta_in_extended_precision(
    noise_multiplier: float, sampling_rate: float, rounds: int, epsilon: float, grid: float
) -> float:
    """Delta after rounds of sampled Gaussian noise, where the library's distribution of one round is composed in extended precision."""
    one_round = privacy_loss_distribution.from_gaussian_mechanism(
        noise_multiplier, value_discretization_interval=grid, sampling_prob=sampling_rate
    )
    return max(
        _composed_delta(pmf.to_dense_pmf(), rounds, epsilon, grid) for pmf in (one_round._pmf_remove, one_round._pmf_add)
    )


def _composed_delta(pmf, rounds: int, epsilon: float, grid: float) -> float:
    # Nothing is cut off: the transform is as long as the sum's whole support.
    size = fft.next_fast_len((len(pmf._probs) - 1) * rounds + 1, real=True)
    masses = fft.irfft(_power(fft.rfft(pmf._probs.astype(np.longdouble), size), rounds), size)
    losses = (pmf._lower_loss * rounds + np.arange(size)) * grid
    above = losses > epsilon
    finite = np.sum(masses[above] * -np.expm1((epsilon - losses[above]).astype(np.longdouble)))
    return float(finite - np.expm1(rounds * np.log1p(np.longdouble(-pmf._infinity_mass))))


def _power(base: np.ndarray, exponent: int) -> np.ndarray:
    """base ** exponent by squaring: NumPy's own goes through a logarithm of double precision."""
    result = np.ones_like(base)
    while exponent:
        if exponent & 1:
            result *= base
        base = base * base
        exponent >>= 1
    return result
