//! The name that somebody probably meant.

/// The known name that `wrong` was most probably meant to be, if any is near.
pub fn nearest<'a>(wrong: &str, known: &[&'a str]) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for &name in known {
        let lower = name.to_lowercase();
        let edits = strsim::damerau_levenshtein(&wrong, &lower);
        let alike = strsim::jaro_winkler(&wrong, &lower);
        let near = alike >= 0.85 || (edits <= 2 && edits * 2 < lower.chars().count());
        if near && best.is_none_or(|(score, _)| alike > score) {
            best = Some((alike, name));
        }
    }
    best.map(|(_, name)| name)
}

/// Whether `known` is `wrong` but for a slip of the fingers: two letters, a quarter of the name at most.
pub fn is_slip(wrong: &str, known: &str) -> bool {
    let (wrong, known) = (wrong.to_lowercase(), known.to_lowercase());
    let length = known.chars().count();
    wrong.chars().count().abs_diff(length) <= 2 && {
        let edits = strsim::damerau_levenshtein(&wrong, &known);
        edits <= 2 && edits * 4 <= length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_another_word_is_not() {
        let known = ["orders", "orders.late", "payments"];
        assert_eq!(nearest("order", &known), Some("orders"));
        assert_eq!(nearest("ORDERS.LATR", &known), Some("orders.late"));
        assert_eq!(nearest("paymnets", &known), Some("payments"));
        assert_eq!(nearest("flights", &known), None);
    }

    #[test]
    fn names_that_only_begin_alike_are_no_slip() {
        assert!(is_slip("shop.order", "shop.orders") && is_slip("Shop.odrers", "shop.orders"));
        assert!(!is_slip("shop.payments", "shop.pages") && !is_slip("flights.weather", "flights.departures"));
        assert!(!is_slip("b", "a") && !is_slip("in", "out"));
    }
}
