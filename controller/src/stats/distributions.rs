//! Quantiles, by bisection on the regularised incomplete beta and gamma functions of `statrs`.
//!
//! Design notes. `statrs` has inverses too; bisection is a hundred evaluations slower and cannot fail to converge or
//! return the wrong root in a far tail, and tails as far as 0.05/(2·4·10) are what the ledger asks for. Arguments
//! outside a function's domain give NaN, which the callers' gates turn into `NotFinite`.

use statrs::function::{beta::checked_beta_reg, erf::erfc, gamma::checked_gamma_lr};

/// Halvings of a bracket: more than the 53 bits of a double, less than a thousandth of a second.
const HALVINGS: u32 = 200;

/// P(|T| > t) for Student's t with `degrees_of_freedom` (real, > 0).
///
/// I_x(ν/2, 1/2) at x = ν/(ν + t²) (Abramowitz & Stegun 26.7.1); exact in the far tail, where 1 − cdf is not.
pub(super) fn t_two_sided_tail(t: f64, degrees_of_freedom: f64) -> f64 {
    let x = degrees_of_freedom / t.mul_add(t, degrees_of_freedom);
    regularised_beta(degrees_of_freedom / 2.0, 0.5, x)
}

/// The t with P(|T| > t) = `error`: t(1 − error/2, ν).
pub(super) fn t_critical(error: f64, degrees_of_freedom: f64) -> f64 {
    if !(error > 0.0 && error < 1.0 && degrees_of_freedom > 0.0 && degrees_of_freedom.is_finite()) {
        return f64::NAN;
    }
    let mut high = 1.0;
    while t_two_sided_tail(high, degrees_of_freedom) > error {
        high *= 2.0;
        if !(high < 1e150) {
            return f64::NAN; // t² would overflow: no ledger asks for this
        }
    }
    bisect(0.0, high, |t| t_two_sided_tail(t, degrees_of_freedom) > error)
}

/// The z with P(|Z| > z) = `error` for the standard normal.
pub(super) fn normal_critical(error: f64) -> f64 {
    if !(error > 0.0 && error < 1.0) {
        return f64::NAN;
    }
    bisect(0.0, 40.0, |z| erfc(z / std::f64::consts::SQRT_2) > error)
}

/// Φ(z).
pub(super) fn normal_cdf(z: f64) -> f64 {
    0.5 * erfc(-z / std::f64::consts::SQRT_2)
}

/// The x with P(X ≤ x) = `probability` for Beta(a, b).
pub(super) fn beta_quantile(probability: f64, a: f64, b: f64) -> f64 {
    if !(probability > 0.0 && probability < 1.0 && a > 0.0 && b > 0.0) {
        return f64::NAN;
    }
    bisect(0.0, 1.0, |x| regularised_beta(a, b, x) < probability)
}

/// The x with P(X ≤ x) = `probability` for chi-square.
pub(super) fn chi_square_quantile(probability: f64, degrees_of_freedom: f64) -> f64 {
    if !(probability > 0.0 && probability < 1.0 && degrees_of_freedom > 0.0 && degrees_of_freedom.is_finite())
    {
        return f64::NAN;
    }
    let below =
        |x: f64| checked_gamma_lr(degrees_of_freedom / 2.0, x / 2.0).unwrap_or(f64::NAN) < probability;
    let mut high = 1.0;
    while below(high) {
        high *= 2.0;
    }
    bisect(0.0, high, below)
}

fn regularised_beta(a: f64, b: f64, x: f64) -> f64 {
    checked_beta_reg(a, b, x).unwrap_or(f64::NAN)
}

/// The point of [low, high] at which `go_right` turns from true to false.
fn bisect(mut low: f64, mut high: f64, go_right: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if go_right(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}
