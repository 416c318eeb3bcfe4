//! How sure a share is: the interval of Clopper and Pearson ("The use of confidence or fiducial limits illustrated in the
//! case of the binomial", Biometrika 26, 1934), which is never narrower than it says, also of few.

/// How often intervals are halved: after that neither end moves.
const HALVINGS: usize = 80;
/// The most terms of the continued fraction; far fewer are needed.
const TERMS: usize = 10_000;

/// The least share that still gives `found` or more of `all` with probability `alpha`. Neither need be whole.
pub(super) fn least(found: f64, all: f64, alpha: f64) -> f64 {
    if found <= 0.0 {
        return 0.0;
    }
    solve(|share| incomplete_beta(found, all - found + 1.0, share) < alpha)
}

/// The greatest share that still gives `found` or fewer of `all` with probability `alpha`.
pub(super) fn most(found: f64, all: f64, alpha: f64) -> f64 {
    if found >= all {
        return 1.0;
    }
    solve(|share| incomplete_beta(found + 1.0, all - found, share) < 1.0 - alpha)
}

/// The greatest number from 0 to 1 that is `below`.
fn solve(below: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        if below(middle) { low = middle } else { high = middle }
    }
    low
}

/// The regularized incomplete beta function: the probability that of `a + b - 1` trials, each of which succeeds with `x`, `a` or
/// more do. By its continued fraction (Abramowitz and Stegun 26.5.8), from whichever side it converges fast.
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return f64::from(u8::from(x >= 1.0));
    }
    let front = libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b);
    let front = libm::exp(front + a * libm::log(x) + b * libm::log(1.0 - x));
    match x < (a + 1.0) / (a + b + 2.0) {
        true => front * fraction(a, b, x) / a,
        false => 1.0 - front * fraction(b, a, 1.0 - x) / b,
    }
}

/// The continued fraction, by the method of Lentz.
fn fraction(a: f64, b: f64, x: f64) -> f64 {
    let kept = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let mut c = 1.0;
    let mut d = 1.0 / kept(1.0 - (a + b) * x / (a + 1.0));
    let mut value = d;
    for term in 1..TERMS {
        let m = term as f64;
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / kept(1.0 + even * d);
        c = kept(1.0 + even / c);
        value *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / kept(1.0 + odd * d);
        c = kept(1.0 + odd / c);
        value *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_the_tables() {
        // Of 10, at 95 %.
        for (found, low, high) in [(0.0, 0.0, 0.3085), (1.0, 0.0025, 0.4450), (8.0, 0.4439, 0.9748), (10.0, 0.6915, 1.0)] {
            assert!((least(found, 10.0, 0.025) - low).abs() < 5e-5, "{found}");
            assert!((most(found, 10.0, 0.025) - high).abs() < 5e-5, "{found}");
        }
        // All of n have the least share alpha^(1/n).
        assert!((least(20.0, 20.0, 0.001) - libm::pow(0.001, 0.05)).abs() < 1e-12);
        assert!((most(0.0, 1e6, 0.025) - (1.0 - libm::pow(0.025, 1e-6))).abs() < 1e-12);
    }
}
