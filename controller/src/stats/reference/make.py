"""Writes reference.json: values of SciPy and statsmodels that the tests of `stats` must meet.

    python -m venv venv && venv/bin/pip install scipy statsmodels && venv/bin/python make.py > reference.json

Nothing here repeats our formulas where a library has its own: Welch comes from `ttest_ind`, its interval from
`CompareMeans`, pairs from `ttest_rel`, shares from `proportion_confint` and `confint_proportions_2indep`, slopes from
`linregress`, areas from `trapezoid`. Contrasts of several arms and the correction for overlapping splits are in no
library; they are written out below from the papers, in NumPy.
"""

import json

import numpy as np
import scipy
import statsmodels
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

rng = np.random.default_rng(20260101)


def arm(n, mean, sd):
    return [float(round(v, 6)) for v in rng.normal(mean, sd, n)]


def welch():
    cases = []
    for n1, n2, m1, m2, s1, s2 in [
        (3, 3, 0.95, 0.97, 0.004, 0.004),
        (5, 5, 0.95, 0.97, 0.004, 0.012),
        (10, 10, 0.95, 0.951, 0.02, 0.002),
        (5, 10, 2.3, 1.9, 0.1, 0.3),
        (3, 20, -1.0e4, -1.1e4, 300.0, 30.0),
        (10, 10, 1.0e-7, 1.2e-7, 3.0e-8, 3.0e-8),
    ]:
        control, treatment = arm(n1, m1, s1), arm(n2, m2, s2)
        if abs(m1) < 1e-3:
            control, treatment = [float(v) for v in rng.normal(m1, s1, n1)], [float(v) for v in rng.normal(m2, s2, n2)]
        for error in (0.05, 0.01):
            result = stats.ttest_ind(treatment, control, equal_var=False)
            ci = CompareMeans(DescrStatsW(treatment), DescrStatsW(control)).tconfint_diff(error, usevar="unequal")
            own = result.confidence_interval(1 - error)
            assert np.allclose(ci, own), (ci, own)
            cases.append(
                dict(
                    control=control, treatment=treatment, error=error, theta=float(np.mean(treatment) - np.mean(control)),
                    standard_error=float((np.mean(treatment) - np.mean(control)) / result.statistic),
                    df=float(result.df), low=float(ci[0]), high=float(ci[1]),
                )
            )
    return cases


def contrasts():
    """Interactions and uneven weights: Satterthwaite (1946) written out."""
    cases = []
    for coefficients, sizes in [((1, -1, -1, 1), (5, 5, 5, 5)), ((-1, 0.5, 0.5), (4, 6, 9)), ((1,), (7,))]:
        cells = [arm(n, 0.9 + 0.01 * i, 0.01 * (i + 1)) for i, n in enumerate(sizes)]
        c = np.array(coefficients, float)
        a = np.array([ci**2 * np.var(x, ddof=1) / len(x) for ci, x in zip(c, cells)])
        df = a.sum() ** 2 / sum(ai**2 / (len(x) - 1) for ai, x in zip(a, cells))
        theta = float(sum(ci * np.mean(x) for ci, x in zip(c, cells)))
        half = float(stats.t.ppf(1 - 0.02 / 2, df) * np.sqrt(a.sum()))
        cases.append(dict(coefficients=list(coefficients), cells=cells, error=0.02, theta=theta, df=float(df),
                          low=theta - half, high=theta + half))
    # One arm alone is the one-sample t that SciPy has.
    own = stats.ttest_1samp(cases[-1]["cells"][0], 0).confidence_interval(0.98)
    assert np.allclose([cases[-1]["low"], cases[-1]["high"]], own)
    return cases


def paired():
    cases = []
    for n, sd_seed in [(3, 0.01), (5, 0.01), (10, 0.03), (20, 0.001)]:
        seed = rng.normal(0, sd_seed, n)
        control = [float(round(v, 6)) for v in 0.95 + seed + rng.normal(0, 0.004, n)]
        treatment = [float(round(v, 6)) for v in 0.957 + seed + rng.normal(0, 0.004, n)]
        for error in (0.05, 0.0125):
            result = stats.ttest_rel(treatment, control)
            ci = result.confidence_interval(1 - error)
            d = np.array(treatment) - np.array(control)
            train, test = 1437, 360
            factor = np.sqrt((1 / n + test / train) / (1 / n))  # Nadeau & Bengio (2003), equation for the corrected t
            centre, half = d.mean(), (ci.high - ci.low) / 2 * factor
            cases.append(dict(control=control, treatment=treatment, error=error, df=float(result.df),
                              low=float(ci.low), high=float(ci.high), train=train, test=test,
                              corrected_low=float(centre - half), corrected_high=float(centre + half)))
    return cases


def t_quantiles():
    return [dict(error=e, df=df, t=float(stats.t.ppf(1 - e / 2, df)))
            for e in (0.05, 0.02, 0.005, 0.0003125) for df in (2.0, 3.7, 4.0, 9.0, 18.5, 400.0)]


def clopper_pearson():
    cases = []
    for k, n in [(0, 3), (0, 5), (0, 10), (3, 3), (1, 10), (7, 10), (2, 5), (19, 20)]:
        for error in (0.05, 0.01):
            low, high = proportion_confint(k, n, error, method="beta")
            own = stats.binomtest(k, n).proportion_ci(1 - error, method="exact")
            assert np.allclose([own.low, own.high], [np.nan_to_num(low), 1.0 if k == n else high])
            cases.append(dict(k=k, n=n, error=error, low=float(own.low), high=float(own.high)))
    return cases


def wilson():
    return [dict(k=k, n=n, error=e, low=max(0.0, float(r.low)), high=min(1.0, float(r.high)))
            for k, n in [(0, 5), (3, 10), (10, 10), (1, 3)] for e in (0.05, 0.02)
            for r in [stats.binomtest(k, n).proportion_ci(1 - e, method="wilson")]]


def newcombe():
    cases = []
    for k1, n1, k2, n2 in [(0, 5, 4, 5), (1, 10, 6, 10), (56, 70, 48, 80), (0, 10, 0, 10), (10, 10, 0, 20), (3, 3, 0, 3)]:
        for error in (0.05, 0.02):
            low, high = confint_proportions_2indep(k1, n1, k2, n2, method="newcomb", compare="diff", alpha=error)
            cases.append(dict(k1=k1, n1=n1, k2=k2, n2=n2, error=error, low=float(low), high=float(high)))
    return cases


def boschloo():
    cases = []
    for k1, n1, k2, n2 in [(0, 3, 3, 3), (0, 5, 4, 5), (0, 5, 3, 5), (1, 10, 6, 10), (2, 7, 9, 12), (0, 10, 0, 10), (5, 5, 2, 8)]:
        table = [[k1, k2], [n1 - k1, n2 - k2]]
        cases.append(dict(k1=k1, n1=n1, k2=k2, n2=n2, p=float(stats.boschloo_exact(table, n=256).pvalue)))
    return cases


def ranks():
    """All ways to deal the ranks, by SciPy's permutation test; failed runs (null) tie below all others."""
    cases = []
    for n1, n2, f1, f2, shift in [(5, 5, 0, 0, 0.02), (5, 5, 2, 0, 0.0), (6, 5, 1, 1, 0.01), (7, 8, 0, 3, -0.01), (5, 5, 0, 5, 0.0)]:
        first = [None] * f1 + [float(round(v, 2)) for v in rng.normal(0.9, 0.02, n1 - f1)]
        second = [None] * f2 + [float(round(v, 2)) for v in rng.normal(0.9 + shift, 0.02, n2 - f2)]
        r = stats.rankdata([-1.0 if v is None else v for v in first + second])
        centre = r.mean() * n1
        result = stats.permutation_test((r[:n1], r[n1:]), lambda a, b: abs(np.sum(a) - centre), alternative="greater",
                                        n_resamples=np.inf, vectorized=False)
        cases.append(dict(first=first, second=second, p=float(result.pvalue)))
    return cases


def spread_limits():
    return [dict(n=n, factor=float(np.sqrt((n - 1) / stats.chi2.ppf(0.2, n - 1)))) for n in (2, 3, 5, 10, 30)]


def paired_effects():
    """Noncentral t: what a one-sample t finds with chance 0.8, one tail counted (the other is below 1e-4)."""
    return [dict(n=n, error=e,
                 size=float(TTestPower().solve_power(effect_size=None, nobs=n, alpha=e / 2, power=0.8, alternative="larger")))
            for n in (3, 5, 10, 20) for e in (0.05, 0.0125)]


def slopes():
    cases = []
    for n in (2, 4, 7):
        sizes = [float(2 ** (i + 4)) for i in range(n)]
        values = [float(round(v, 6)) for v in 3 - 0.2 * np.log(sizes) + rng.normal(0, 0.05, n)]
        cases.append(dict(sizes=sizes, values=values, slope=float(stats.linregress(np.log(sizes), values).slope)))
    return cases


def areas():
    cases = []
    for steps in ([0, 1, 2, 3], [10, 20, 50, 200], [5, 6]):
        values = [float(round(v, 6)) for v in rng.uniform(0, 3, len(steps))]
        cases.append(dict(steps=steps, values=values, area=float(np.trapezoid(values, steps) / (steps[-1] - steps[0]))))
    return cases


if __name__ == "__main__":
    versions = dict(numpy=np.__version__, scipy=scipy.__version__, statsmodels=statsmodels.__version__)
    tables = [welch, contrasts, paired, t_quantiles, clopper_pearson, wilson, newcombe, boschloo, ranks, spread_limits,
              paired_effects, slopes, areas]
    print(json.dumps(dict(versions=versions, **{table.__name__: table() for table in tables}), indent=1))
