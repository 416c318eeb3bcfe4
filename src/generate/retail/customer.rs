//! Who buys, what, and how much.

use crate::generate::random::Random;

pub(super) const HOUR_US: u64 = 3_600_000_000;
pub(super) const DAY_US: u64 = 24 * HOUR_US;
/// When the stream begins, in hours of the day.
const BEGIN_HOUR: u64 = 9;

/// A category, and what a purchase of it usually costs.
pub(super) const CATEGORIES: [(&str, f64); 12] = [
    ("groceries", 32.0),
    ("coffee", 11.0),
    ("pet food", 24.0),
    ("household", 18.0),
    ("books", 16.0),
    ("clothing", 45.0),
    ("toys", 22.0),
    ("garden", 35.0),
    ("sports", 50.0),
    ("electronics", 90.0),
    ("gift cards", 60.0),
    ("games", 40.0),
];
/// What is used up day by day, by number.
const USED_UP: [usize; 3] = [1, 2, 3];
/// What who takes over an account buys, by number.
pub(super) const SOLD_ON: [usize; 3] = [9, 10, 11];

/// How a customer stands to the shop, and after how many days such a one buys, on average.
pub(super) const SEGMENTS: [(&str, f64); 3] = [("new", 6.0), ("regular", 3.0), ("loyal", 1.5)];

/// What is not as usual of a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Takeover,
    Category,
    Amount,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Anomaly {
    pub kind: Kind,
    pub from_us: u64,
    pub until_us: u64,
    /// Other categories, for `Category`.
    pub categories: [usize; 2],
    /// How many times as high amounts are.
    pub times: f64,
}

/// Something that is used up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stock {
    pub category: usize,
    pub a_day: f64,
    pub left: f64,
}

#[derive(Debug)]
pub(super) struct Customer {
    pub name: String,
    pub segment: usize,
    pub categories: Vec<usize>,
    pub level: f64,
    pub devices: Vec<u64>,
    pub stock: Option<Stock>,
    pub first_us: Option<u64>,
    pub anomaly: Option<Anomaly>,
    /// Tells a purchase that was planned before the customer's habits changed from one that holds.
    pub plan: u32,
}

impl Customer {
    pub(super) fn new(number: usize, device: &mut u64, random: &mut Random) -> Customer {
        let mut categories = Vec::new();
        for _ in 0..=random.below(3) {
            // One of the first nine, and seldom of those that are sold on easily.
            let most = if random.below(4) == 0 { 12 } else { 9 };
            let category = random.below(most) as usize;
            if !categories.contains(&category) {
                categories.push(category);
            }
        }
        let stock = (random.below(2) == 0).then(|| Stock {
            category: random.pick(&USED_UP),
            a_day: 0.1 + 0.3 * random.unit(),
            left: 1.0 + 2.0 * random.unit(),
        });
        if let Some(stock) = stock.filter(|stock| !categories.contains(&stock.category)) {
            categories.push(stock.category);
        }
        let devices = (0..=random.below(2)).map(|_| next(device)).collect();
        Customer {
            name: format!("c-{number:05}"),
            segment: random.weighted([3, 4, 3]),
            categories,
            level: 0.6 + 0.9 * random.unit(),
            devices,
            stock,
            first_us: None,
            anomaly: None,
            plan: 0,
        }
    }

    /// How many days there are from one purchase to the next, on average.
    pub(super) fn every_days(&self) -> f64 {
        let times = match self.anomaly.map(|anomaly| anomaly.kind) {
            Some(Kind::Category) => 3.0,
            Some(Kind::Amount) => 2.0,
            _ => 1.0,
        };
        SEGMENTS[self.segment].1 / times
    }
}

/// A device that nobody had before.
pub(super) fn next(device: &mut u64) -> u64 {
    *device += 1;
    *device
}

/// Whether it is a time at which most people buy.
pub(super) fn is_day(now_us: u64) -> bool {
    (8..22).contains(&((now_us / HOUR_US + BEGIN_HOUR) % 24))
}
