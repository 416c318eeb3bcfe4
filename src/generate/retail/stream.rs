//! The stream itself: what happens is taken in the order of its time, and tells what happens next.

use std::collections::VecDeque;

use levada_types::ConnectorError;
use serde::Serialize;

use super::Shape;
use super::customer::{
    Anomaly, CATEGORIES, Customer, DAY_US, HOUR_US, Kind, SEGMENTS, SOLD_ON, is_day, next,
};
use crate::generate::arrival::Arrival;
use crate::generate::calendar::Calendar;
use crate::generate::random::Random;
use crate::generate::setting::Setting;
use crate::generate::topics::Record;
use crate::generate::{BEGIN_MS, event};

const PURCHASES: usize = 0;
const SEGMENT_CHANGES: usize = 1;
const CONSUMPTION: usize = 2;
const LABELS: usize = 3;

const DAY: f64 = DAY_US as f64;
/// What a thousand customers tell, in events a second.
const RATE_OF_THOUSAND: f64 = 0.012;
const LEAST_CUSTOMERS: usize = 100;
/// How often what is no anomaly happens to a customer at a noise of 1, a day; and a sale to all.
const DEVICES_A_DAY: f64 = 0.02;
const SPREES_A_DAY: f64 = 0.03;
const PRESENTS_A_DAY: f64 = 0.05;
const SALES_A_DAY: f64 = 0.3;
const SEGMENTS_A_DAY: f64 = 1.0 / 30.0;
/// What the anomalies that begin take on average, in days: half of them half an hour, the others 5.5 days.
const ANOMALY_DAYS: f64 = 2.76;
const SETTLED_US: u64 = 2 * DAY_US;

/// The records of one simulation, in the order in which they come.
pub struct Retail {
    random: Random,
    shape: Shape,
    customers: Vec<Customer>,
    devices: u64,
    calendar: Calendar<What>,
    arrival: Arrival<Record>,
    sale_until_us: u64,
    purchases: u64,
    came: u64,
    most_events: u64,
    until_us: u64,
    ready: VecDeque<Record>,
    over: bool,
}

/// What happens at a time.
enum What {
    /// A customer buys, if the plan still holds.
    Buys(usize, u32),
    Uses(usize),
    Segment,
    Anomaly,
    Ends(usize),
    Device,
    Spree,
    Present,
    Sale,
}

/// What a purchase is like that is not as usual.
#[derive(Clone, Copy, Debug)]
struct Purchase {
    category: usize,
    times: f64,
    device: u64,
}

impl Retail {
    /// The stream of this setting.
    ///
    /// # Errors
    /// When the setting is out of bounds.
    pub fn new(setting: &Setting) -> Result<Retail, ConnectorError> {
        let shape = Shape::new(setting)?;
        let mut random = Random::new(setting.seed);
        let count = ((shape.rate / RATE_OF_THOUSAND * 1000.0) as usize).max(LEAST_CUSTOMERS);
        let mut devices = 0;
        let customers = (1..=count).map(|number| Customer::new(number, &mut devices, &mut random)).collect();
        let (most_events, until_us) = setting.length.bounds();
        let mut retail = Retail {
            random,
            shape,
            customers,
            devices,
            calendar: Calendar::new(until_us),
            arrival: Arrival::new(),
            sale_until_us: 0,
            purchases: 0,
            came: 0,
            most_events,
            until_us,
            ready: VecDeque::new(),
            over: false,
        };
        for customer in 0..count {
            retail.tell_segment(0, customer);
            retail.plan(0, customer);
            let first_us = retail.random.below(DAY_US);
            if retail.customers[customer].stock.is_some() {
                retail.calendar.add(first_us, What::Uses(customer));
            }
        }
        for what in [What::Segment, What::Anomaly, What::Device, What::Spree, What::Present, What::Sale] {
            retail.again(0, what);
        }
        Ok(retail)
    }

    /// It happens again after some time of waiting; what never happens is not waited for.
    fn again(&mut self, now_us: u64, what: What) {
        let customers = self.customers.len() as f64;
        let noise = self.shape.noise;
        let a_day = match what {
            What::Segment => SEGMENTS_A_DAY * customers,
            What::Anomaly => self.shape.overlap * customers / 1000.0 / ANOMALY_DAYS,
            What::Device => DEVICES_A_DAY * noise * customers,
            What::Spree => SPREES_A_DAY * noise * customers,
            What::Present => PRESENTS_A_DAY * noise * customers,
            What::Sale => SALES_A_DAY * noise,
            _ => 0.0,
        };
        if a_day > 0.0 {
            let wait_us = self.random.exponential() * DAY / a_day;
            self.calendar.add(now_us + wait_us as u64, what);
        }
    }

    /// When a customer buys next, by the habits of now; an earlier plan does not hold any more.
    fn plan(&mut self, now_us: u64, customer: usize) {
        let who = &mut self.customers[customer];
        who.plan += 1;
        let wait_us = self.random.exponential() * who.every_days() * DAY;
        self.calendar.add(now_us + wait_us as u64, What::Buys(customer, who.plan));
    }

    fn happens(&mut self, now_us: u64, what: What) {
        match what {
            What::Buys(customer, plan) if self.customers[customer].plan != plan => {}
            What::Buys(customer, plan) if !is_day(now_us) && self.random.below(10) != 0 => {
                // Rather in the morning.
                let wait_us = 4 * HOUR_US + self.random.below(10 * HOUR_US);
                self.calendar.add(now_us + wait_us, What::Buys(customer, plan));
            }
            What::Buys(customer, _) => {
                self.buy_as_usual(now_us, customer);
                if now_us < self.sale_until_us {
                    let wait_us = self.random.below(HOUR_US);
                    self.buy_as_usual(now_us + wait_us, customer);
                }
                self.plan(now_us, customer);
            }
            What::Uses(customer) => self.use_up(now_us, customer),
            What::Segment => {
                let customer = self.somebody();
                let who = &mut self.customers[customer];
                let other = (who.segment + 1 + self.random.below(2) as usize) % SEGMENTS.len();
                who.segment = other;
                self.tell_segment(now_us, customer);
                self.plan(now_us, customer);
                self.again(now_us, What::Segment);
            }
            What::Anomaly => {
                self.begin_anomaly(now_us);
                self.again(now_us, What::Anomaly);
            }
            What::Ends(customer) => {
                if let Some(anomaly) = self.customers[customer].anomaly.take() {
                    self.tell_label(customer, anomaly, true);
                    self.plan(now_us, customer);
                }
            }
            What::Device => {
                let customer = self.somebody();
                let device = next(&mut self.devices);
                let who = &mut self.customers[customer];
                who.devices.push(device);
                if who.devices.len() > 2 {
                    who.devices.remove(0);
                }
                self.again(now_us, What::Device);
            }
            What::Spree => {
                let customer = self.somebody();
                for _ in 0..4 + self.random.below(6) {
                    let later_us = self.random.below(HOUR_US);
                    self.buy_as_usual(now_us + later_us, customer);
                }
                self.again(now_us, What::Spree);
            }
            What::Present => {
                let customer = self.somebody();
                let category = self.random.below(CATEGORIES.len() as u64) as usize;
                let times = 1.0 + 3.0 * self.random.unit();
                let device = self.random.pick(&self.customers[customer].devices);
                self.buy(now_us, customer, Purchase { category, times, device });
                self.again(now_us, What::Present);
            }
            What::Sale => {
                self.sale_until_us = now_us + 6 * HOUR_US;
                self.again(now_us, What::Sale);
            }
        }
    }

    fn somebody(&mut self) -> usize {
        self.random.below(self.customers.len() as u64) as usize
    }

    fn buy_as_usual(&mut self, now_us: u64, customer: usize) {
        let who = &self.customers[customer];
        let mut category = self.random.pick(&who.categories);
        let mut times = 1.0;
        match who.anomaly {
            Some(Anomaly { kind: Kind::Category, categories, .. }) if self.random.below(5) != 0 => {
                category = self.random.pick(&categories);
            }
            Some(anomaly) if anomaly.kind == Kind::Amount => times = anomaly.times,
            _ => {}
        }
        let device = self.random.pick(&who.devices);
        self.buy(now_us, customer, Purchase { category, times, device });
    }

    fn use_up(&mut self, now_us: u64, customer: usize) {
        let Some(mut stock) = self.customers[customer].stock else { return };
        let used = stock.a_day * (0.5 + self.random.unit());
        stock.left = (stock.left - used).max(0.0);
        self.tell_consumption(now_us, customer, stock.category, used, stock.left);
        if stock.left < 2.0 * stock.a_day {
            let later_us = self.random.below(8 * HOUR_US);
            let device = self.random.pick(&self.customers[customer].devices);
            self.buy(now_us + later_us, customer, Purchase { category: stock.category, times: 1.0, device });
            stock.left += 2.0;
        }
        self.customers[customer].stock = Some(stock);
        self.calendar.add(now_us + DAY_US, What::Uses(customer));
    }

    fn begin_anomaly(&mut self, now_us: u64) {
        let customer = self.somebody();
        let kind =
            [Kind::Takeover, Kind::Takeover, Kind::Category, Kind::Amount][self.random.below(4) as usize];
        let who = &self.customers[customer];
        let settled = who.first_us.is_some_and(|first_us| first_us + SETTLED_US <= now_us);
        if !settled || who.anomaly.is_some() {
            return;
        }
        let others: Vec<usize> =
            (0..CATEGORIES.len()).filter(|category| !who.categories.contains(category)).collect();
        let categories = [self.random.pick(&others), self.random.pick(&others)];
        let (lasts_us, times) = match kind {
            Kind::Takeover => {
                (HOUR_US / 6 + self.random.below(HOUR_US * 5 / 6), 3.0 + 3.0 * self.random.unit())
            }
            Kind::Category => (3 * DAY_US + self.random.below(5 * DAY_US), 1.0),
            Kind::Amount => (3 * DAY_US + self.random.below(5 * DAY_US), 2.5 + 1.5 * self.random.unit()),
        };
        let anomaly = Anomaly { kind, from_us: now_us, until_us: now_us + lasts_us, categories, times };
        self.customers[customer].anomaly = Some(anomaly);
        self.calendar.add(anomaly.until_us, What::Ends(customer));
        if kind == Kind::Takeover {
            let device = next(&mut self.devices);
            for _ in 0..5 + self.random.below(11) {
                let at_us = now_us + self.random.below(lasts_us);
                let category = self.random.pick(&SOLD_ON);
                self.buy(at_us, customer, Purchase { category, times, device });
            }
        } else {
            self.plan(now_us, customer);
        }
    }

    fn buy(&mut self, at_us: u64, customer: usize, purchase: Purchase) {
        #[derive(Serialize)]
        struct Told<'a> {
            purchase: String,
            at: i64,
            customer: &'a str,
            category: &'a str,
            amount: f64,
            device: String,
            channel: &'a str,
        }
        let Purchase { category, times, device } = purchase;
        let (category, usual) = CATEGORIES[category];
        let deviation = (0.25 + 0.25 * self.shape.noise) * self.random.deviation();
        self.purchases += 1;
        let number = self.purchases;
        let channel = self.random.pick(&["app", "web", "web", "store"]);
        let who = &mut self.customers[customer];
        who.first_us.get_or_insert(at_us);
        let amount = usual * who.level * times * (1.0 + deviation).max(0.2);
        let key = who.name.clone();
        let told = Told {
            purchase: format!("p-{number:08}"),
            at: instant_ms(at_us),
            customer: &key,
            category,
            amount: (amount * 100.0).round() / 100.0,
            device: format!("d-{device:05}"),
            channel,
        };
        self.send(at_us, PURCHASES, &key, &told);
    }

    fn send(&mut self, at_us: u64, topic: usize, key: &str, record: &impl Serialize) {
        if at_us <= self.until_us {
            let event = event(instant_ms(at_us), key, record);
            self.arrival.send(at_us, Record { topic, event }, &mut self.random);
        }
    }

    fn tell_segment(&mut self, at_us: u64, customer: usize) {
        #[derive(Serialize)]
        struct Told<'a> {
            customer: &'a str,
            at: i64,
            segment: &'a str,
        }
        let who = &self.customers[customer];
        let (key, segment) = (who.name.clone(), SEGMENTS[who.segment].0);
        self.send(at_us, SEGMENT_CHANGES, &key, &Told { customer: &key, at: instant_ms(at_us), segment });
    }

    fn tell_consumption(&mut self, at_us: u64, customer: usize, category: usize, used: f64, left: f64) {
        #[derive(Serialize)]
        struct Told<'a> {
            customer: &'a str,
            at: i64,
            item: &'a str,
            used: f64,
            left: f64,
        }
        let key = self.customers[customer].name.clone();
        let hundredths = |amount: f64| (amount * 100.0).round() / 100.0;
        let item = CATEGORIES[category].0;
        let at = instant_ms(at_us);
        let told = Told { customer: &key, at, item, used: hundredths(used), left: hundredths(left) };
        self.send(at_us, CONSUMPTION, &key, &told);
    }

    fn tell_label(&mut self, customer: usize, anomaly: Anomaly, over: bool) {
        #[derive(Serialize)]
        struct Label<'a> {
            kind: &'a str,
            customer: &'a str,
            from: i64,
            until: Option<i64>,
        }
        let kind = match anomaly.kind {
            Kind::Takeover => "takeover",
            Kind::Category => "category",
            Kind::Amount => "amount",
        };
        let customer = self.customers[customer].name.as_str();
        let from = instant_ms(anomaly.from_us);
        let until = over.then(|| instant_ms(anomaly.until_us));
        let event = event(until.unwrap_or(from), customer, &Label { kind, customer, from, until });
        self.ready.push_back(Record { topic: LABELS, event });
    }

    /// What had not ended when the stream did.
    fn tell_open_labels(&mut self) {
        for customer in 0..self.customers.len() {
            if let Some(anomaly) = self.customers[customer].anomaly.take() {
                self.tell_label(customer, anomaly, false);
            }
        }
    }
}

impl Iterator for Retail {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Some(record);
            }
            if self.over {
                return None;
            }
            if self.came == self.most_events {
                self.over = true;
            } else if let Some(record) = self.arrival.next_before(self.calendar.next_us()) {
                self.came += 1;
                self.ready.push_back(record);
            } else if let Some((now_us, what)) = self.calendar.take() {
                self.happens(now_us, what);
            } else {
                self.over = true;
            }
            if self.over {
                self.tell_open_labels();
            }
        }
    }
}

fn instant_ms(at_us: u64) -> i64 {
    BEGIN_MS + (at_us / 1000) as i64
}
