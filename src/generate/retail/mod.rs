//! A shop's customers, made up: what they buy and use up, and when one of them is not oneself.
//!
//! ```text
//!  retail.purchases     {"purchase":"p-00000017","at":ms,"customer":"c-00012","category":"coffee","amount":12.40,
//!                        "device":"d-0031","channel":"app"}                                       by customer
//!  retail.segments      {"customer":"c-00012","at":ms,"segment":"regular"}                        by customer
//!  retail.consumption   {"customer":"c-00012","at":ms,"item":"coffee","used":0.31,"left":1.87}    by customer
//!  retail.labels        {"kind":"takeover","customer":"c-00012","from":ms,"until":ms}, once it is over, or with no
//!                        `until` when the stream ends: no job reads it
//! ```
//!
//! # How events come to be
//!
//! It begins on a Monday at 09:00 UTC. An event is at most [`OUT_OF_ORDER_MS`] behind the greatest time before it.
//!
//! **Customers**: 83 for each thousandth of an event a second of `rate`, at least 100. Each is of a segment (new, regular, loyal),
//! has one to three of twelve categories, a level of amounts, one or two devices, and buys at random times, mostly from
//! 8 to 22 o'clock: new ones every 6 days, regular ones every 3, loyal ones every 1.5, on average. An amount is the
//! category's, times the customer's level, times chance (a standard deviation of 0.25 + 0.25 × `noise`, at least a fifth).
//!
//! **Segments** change now and then, about once in 30 days, and the customer then buys more or less often; the
//! record comes with the change, and one of each customer stands at the beginning.
//!
//! **Consumption**: every second customer uses up one item (coffee, pet food, …) a little each day, tells how much is
//! left every 24 hours, and buys it anew (a purchase of its category) when less than two days' worth is left.
//!
//! **Anomalies**, of a customer who has bought for two days at least and has none:
//!
//! | kind | what happens |
//! | --- | --- |
//! | takeover | within 10 to 60 minutes 5 to 15 purchases, from a device that the customer never had, of electronics, gift cards and games, three to six times the customer's level |
//! | category | for 3 to 8 days three times as many purchases, four of five in two categories that were not the customer's |
//! | amount | for 3 to 8 days twice as many purchases, amounts 2.5 to 4 times as high |
//!
//! `overlap` is how many there are at once, on average, for each thousand customers; half of those that begin are takeovers.
//!
//! **What looks like it and is not**, the more the more `noise`: new devices, sprees (4 to 9 purchases within an hour, on
//! the customer's own device, of the customer's categories), presents (one purchase, of any category, up to four times
//! as high), sales (all customers buy twice as often for six hours).
//!
//! | | easy | normal | hard |
//! | --- | --- | --- | --- |
//! | rate, events a second | 0.1 | 0.1 | 0.1 |
//! | noise | 0.1 | 0.4 | 0.8 |
//! | overlap | 2 | 4 | 8 |

mod customer;
mod stream;
#[cfg(test)]
mod tests;

use levada_types::ConnectorError;

pub use self::stream::Retail;
pub use super::arrival::OUT_OF_ORDER_MS;
use super::setting::{Difficulty, Setting, within};
use super::topics::Topic;

/// The topics, in the order of [`super::topics::Record`]'s numbers.
pub const TOPICS: [Topic; 4] = [
    Topic { name: "retail.purchases", spread: true },
    Topic { name: "retail.segments", spread: true },
    Topic { name: "retail.consumption", spread: true },
    Topic { name: "retail.labels", spread: false },
];

/// The table above, with what was set.
#[derive(Clone, Copy, Debug)]
struct Shape {
    rate: f64,
    noise: f64,
    overlap: f64,
}

impl Shape {
    fn new(setting: &Setting) -> Result<Shape, ConnectorError> {
        let (noise, overlap) = match setting.difficulty {
            Difficulty::Easy => (0.1, 2.0),
            Difficulty::Normal => (0.4, 4.0),
            Difficulty::Hard => (0.8, 8.0),
        };
        Ok(Shape {
            rate: within("a rate of", setting.rate.unwrap_or(0.1), 0.001, 100.0)?,
            noise: within("noise of", setting.noise.unwrap_or(noise), 0.0, 1.0)?,
            overlap: within("an overlap of", setting.overlap.unwrap_or(overlap), 0.01, 100.0)?,
        })
    }
}
