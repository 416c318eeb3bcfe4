//! The stream itself: what happens is taken in the order of its time, and tells what happens next.

use std::collections::VecDeque;

use levada_types::ConnectorError;
use serde::Serialize;

use super::Shape;
use super::site::{Decline, HOUR_US, MINUTE_US, Overload, SHIFT_US, Site, TYPES, Task, shift_at};
use crate::generate::arrival::Arrival;
use crate::generate::calendar::Calendar;
use crate::generate::random::Random;
use crate::generate::setting::Setting;
use crate::generate::topics::Record;
use crate::generate::{BEGIN_MS, event};

const TASKS: usize = 0;
const WORKERS: usize = 1;
const SCANS: usize = 2;
const LABELS: usize = 3;

const SECOND_US: f64 = 1e6;
const DAY_US: f64 = 86_400.0 * SECOND_US;
/// 06:00, three hours before other streams begin.
const FIRST_MS: i64 = BEGIN_MS - 3 * 3_600_000;
/// What an episode takes on average, for `overlap`: an overload with what is worked off after it, a decline.
const OVERLOAD_US: f64 = 150.0 * 60.0 * SECOND_US;
const DECLINE_US: f64 = 85.0 * 60.0 * SECOND_US;
const LEAST_DECLINE_US: u64 = 60 * MINUTE_US;
/// How often what is no episode happens at a noise of 1, a day: for a zone, and for a worker.
const BURSTS_A_DAY: f64 = 5.0;
const HEAVY_A_DAY: f64 = 3.0;
const MOVES_A_DAY: f64 = 2.0;
const PAUSES_A_DAY: f64 = 3.0;
/// No zone with fewer people on duty has an overload.
const LEAST_CREW: usize = 4;
/// A zone that had an overload has none for so long.
const QUIET_US: u64 = 2 * HOUR_US;
/// Within how many minutes the breaks of a crew begin, so that not all are away at once.
const BREAK_TIMES: u64 = 120;
/// How often it is looked whether somebody may go on a break, and what waits is worked off.
const ROUND_US: u64 = 10_000_000;

/// The records of one simulation, in the order in which they come.
pub struct Warehouse {
    random: Random,
    shape: Shape,
    site: Site,
    calendar: Calendar<What>,
    arrival: Arrival<Record>,
    /// By zone: until then it has no overload again.
    calm_since_us: Vec<u64>,
    tasks: u64,
    came: u64,
    most_events: u64,
    until_us: u64,
    ready: VecDeque<Record>,
    over: bool,
}

/// What happens at a time.
enum What {
    Shift,
    LogIn(usize),
    Task(usize),
    /// Somebody is done with a task or a break.
    Free(usize),
    Round,
    Overload,
    Decline,
    Burst,
    Heavy,
    Move,
}

impl Warehouse {
    /// The stream of this setting.
    ///
    /// # Errors
    /// When the setting is out of bounds.
    pub fn new(setting: &Setting) -> Result<Warehouse, ConnectorError> {
        let shape = Shape::new(setting)?;
        let mut random = Random::new(setting.seed);
        let site = Site::new(shape.rate, shape.noise, &mut random);
        let (most_events, until_us) = setting.length.bounds();
        let zones = site.zones.len();
        let mut warehouse = Warehouse {
            random,
            shape,
            site,
            calendar: Calendar::new(until_us),
            arrival: Arrival::new(),
            calm_since_us: vec![0; zones],
            tasks: 0,
            came: 0,
            most_events,
            until_us,
            ready: VecDeque::new(),
            over: false,
        };
        warehouse.calendar.add(0, What::Shift);
        warehouse.calendar.add(0, What::Round);
        (0..zones).for_each(|zone| warehouse.calendar.add(10 * MINUTE_US, What::Task(zone)));
        for what in [What::Overload, What::Decline, What::Burst, What::Heavy, What::Move] {
            warehouse.again(0, what);
        }
        Ok(warehouse)
    }

    /// It happens again after some time of waiting; what never happens is not waited for.
    fn again(&mut self, now_us: u64, what: What) {
        let zones = self.site.zones.len() as f64;
        let a_day = match what {
            What::Overload => self.shape.overlap / 2.0 * DAY_US / OVERLOAD_US,
            What::Decline => self.shape.overlap / 2.0 * DAY_US / DECLINE_US,
            What::Burst => BURSTS_A_DAY * self.shape.noise * zones,
            What::Heavy => HEAVY_A_DAY * self.shape.noise * zones,
            What::Move => MOVES_A_DAY * self.shape.noise * zones,
            _ => 0.0,
        };
        if a_day > 0.0 {
            let wait_us = self.random.exponential() * DAY_US / a_day;
            self.calendar.add(now_us + wait_us as u64, what);
        }
    }

    fn happens(&mut self, now_us: u64, what: What) {
        match what {
            What::Shift => self.begin_shift(now_us),
            What::LogIn(worker) => self.log_in(now_us, worker),
            What::Task(zone) => self.create(now_us, zone),
            What::Free(worker) => self.free(now_us, worker),
            What::Round => {
                for zone in 0..self.site.zones.len() {
                    let free: Vec<usize> = self.site.zones[zone].free.iter().copied().collect();
                    free.into_iter().for_each(|worker| self.free(now_us, worker));
                    self.end_overload(now_us, zone);
                }
                for worker in 0..self.site.workers.len() {
                    self.end_decline(now_us, worker);
                }
                self.calendar.add(now_us + ROUND_US, What::Round);
            }
            What::Overload => {
                self.begin_overload(now_us);
                self.again(now_us, What::Overload);
            }
            What::Decline => {
                self.begin_decline(now_us);
                self.again(now_us, What::Decline);
            }
            What::Burst => {
                let zone = self.random.below(self.site.zones.len() as u64) as usize;
                let lasts_us = (5 + self.random.below(6)) * MINUTE_US;
                self.site.zones[zone].burst = (now_us + lasts_us, 1.6 + 0.8 * self.random.unit());
                self.again(now_us, What::Burst);
            }
            What::Heavy => {
                let zone = self.random.below(self.site.zones.len() as u64) as usize;
                self.site.zones[zone].heavy_until_us = now_us + (60 + self.random.below(61)) * MINUTE_US;
                self.again(now_us, What::Heavy);
            }
            What::Move => {
                self.move_somebody(now_us);
                self.again(now_us, What::Move);
            }
        }
    }

    fn begin_shift(&mut self, now_us: u64) {
        let (shift, ends_us) = shift_at(now_us);
        for worker in 0..self.site.workers.len() {
            if self.site.workers[worker].shift == shift {
                let late_us = self.random.below(10 * MINUTE_US);
                self.site.workers[worker].leaves_us = ends_us;
                self.site.workers[worker].breaks = [(345, 15), (195, 30), (60, 15)]
                    .map(|(begin, minutes)| {
                        let due = begin + self.random.below(BREAK_TIMES);
                        (now_us + due * MINUTE_US, minutes * MINUTE_US)
                    })
                    .into();
                self.calendar.add(now_us + late_us, What::LogIn(worker));
            }
        }
        self.calendar.add(now_us + SHIFT_US, What::Shift);
    }

    fn log_in(&mut self, now_us: u64, worker: usize) {
        let to = self.site.workers[worker].home;
        self.enter(now_us, worker, to);
    }

    /// Somebody begins to work in a zone.
    fn enter(&mut self, now_us: u64, worker: usize, zone: usize) {
        let person = &mut self.site.workers[worker];
        (person.zone, person.logged_in_us) = (Some(zone), now_us);
        self.site.zones[zone].on_duty += 1;
        self.tell_worker(now_us, worker, zone, "log_in");
        self.site.zones[zone].free.insert(worker);
        self.free(now_us, worker);
    }

    /// Somebody is not on duty any more.
    fn leave(&mut self, now_us: u64, worker: usize) {
        if let Some(zone) = self.site.workers[worker].zone.take() {
            self.site.zones[zone].free.remove(&worker);
            self.site.zones[zone].on_duty -= 1;
            self.tell_worker(now_us, worker, zone, "log_out");
        }
    }

    /// Somebody has nothing at hand, and leaves, has a break, takes the next task, or waits.
    fn free(&mut self, now_us: u64, worker: usize) {
        let person = &mut self.site.workers[worker];
        let Some(zone) = person.zone else { return };
        if now_us >= person.leaves_us {
            self.leave(now_us, worker);
        } else if now_us < person.away_until_us {
            let back_us = person.away_until_us;
            let comes_back = back_us + HOUR_US < person.leaves_us;
            self.leave(now_us, worker);
            if comes_back {
                self.calendar.add(back_us, What::LogIn(worker));
            }
        } else if let Some((_, lasts_us)) = person.breaks.pop_if(|(due_us, _)| *due_us <= now_us) {
            self.site.zones[zone].free.remove(&worker);
            self.tell_worker(now_us, worker, zone, "break_begin");
            self.tell_worker(now_us + lasts_us, worker, zone, "break_end");
            self.calendar.add(now_us + lasts_us, What::Free(worker));
        } else if let Some(task) = self.site.zones[zone].waiting.pop_front() {
            self.site.zones[zone].free.remove(&worker);
            self.work(now_us, worker, zone, task);
        } else {
            self.site.zones[zone].free.insert(worker);
        }
    }

    /// Somebody does a task: all of it is told now, each at its time.
    fn work(&mut self, now_us: u64, worker: usize, zone: usize, task: Task) {
        let person = &self.site.workers[worker];
        let times = person.decline.map_or(1.0, |decline| decline.times(now_us));
        let chance = (1.0 + self.shape.noise * 0.5 * self.random.deviation()).clamp(0.4, 3.0);
        let lasts_s = task.usual_s() * person.pace * times * chance;
        // Of those who work some 150 tasks a shift, as often a day as told.
        let pauses = self.random.chance(self.shape.noise * PAUSES_A_DAY / 150.0);
        let pause_us = if pauses { 4 * MINUTE_US + self.random.below(6 * MINUTE_US) } else { 0 };
        let at_work_us = lasts_s * SECOND_US;
        let done_us = now_us + at_work_us as u64 + pause_us;
        self.tell_task(now_us, zone, task, "assigned", Some(worker));
        let paused_from = self.random.below(task.units);
        for unit in 0..task.units {
            let part = (unit as f64 + 0.3 + 0.6 * self.random.unit()) / task.units as f64;
            let later_us = if unit > paused_from { pause_us } else { 0 };
            let at_us = now_us + (at_work_us * part.min(1.0)) as u64 + later_us;
            self.tell_scan(at_us, worker, zone, task, unit + 1);
        }
        self.tell_task(done_us, zone, task, "completed", Some(worker));
        self.calendar.add(done_us, What::Free(worker));
    }

    fn create(&mut self, now_us: u64, zone: usize) {
        let rate = self.site.tasks_per_second(zone, now_us);
        if rate > 0.0 {
            self.tasks += 1;
            let task = self.site.task(self.tasks, zone, now_us, &mut self.random);
            self.tell_task(now_us, zone, task, "created", None);
            self.site.zones[zone].waiting.push_back(task);
            if let Some(worker) = self.site.zones[zone].free.first().copied() {
                self.free(now_us, worker);
            }
        }
        // With nobody there it is looked again in a minute.
        let wait_s = if rate > 0.0 { self.random.exponential() / rate } else { 60.0 };
        self.calendar.add(now_us + (wait_s.min(600.0) * SECOND_US) as u64, What::Task(zone));
    }

    fn begin_overload(&mut self, now_us: u64) {
        let may = |zone: &usize| {
            let here = &self.site.zones[*zone];
            here.overload.is_none()
                && now_us >= self.calm_since_us[*zone]
                && here.on_duty >= LEAST_CREW
                && here.waiting.len() <= here.on_duty
        };
        let zones: Vec<usize> = (0..self.site.zones.len()).filter(may).collect();
        if zones.is_empty() {
            return;
        }
        let zone = self.random.pick(&zones);
        let surge_until_us = now_us + (40 + self.random.below(61)) * MINUTE_US;
        let times = 1.3 + 0.4 * self.random.unit();
        self.site.zones[zone].overload = Some(Overload { from_us: now_us, surge_until_us, times });
        if self.random.below(3) == 0 {
            let most = self.site.zones[zone].on_duty / 2;
            let workers = &self.site.workers;
            let here =
                |worker: &usize| workers[*worker].zone == Some(zone) && workers[*worker].decline.is_none();
            let called: Vec<usize> = (0..self.site.workers.len()).filter(here).take(most).collect();
            called.into_iter().for_each(|worker| self.site.workers[worker].away_until_us = surge_until_us);
        }
    }

    fn end_overload(&mut self, now_us: u64, zone: usize) {
        let here = &mut self.site.zones[zone];
        let over = |overload: &mut Overload| {
            now_us >= overload.surge_until_us && here.waiting.len() <= here.on_duty.max(1)
        };
        if let Some(overload) = here.overload.take_if(over) {
            self.calm_since_us[zone] = now_us + QUIET_US;
            self.tell_label("overload", zone, None, overload.from_us, Some(now_us));
        }
    }

    fn begin_decline(&mut self, now_us: u64) {
        let may = |worker: &usize| {
            let person = &self.site.workers[*worker];
            person.zone.is_some()
                && now_us >= person.logged_in_us + HOUR_US
                && now_us >= person.away_until_us
                && now_us + LEAST_DECLINE_US <= person.leaves_us
                && person.decline.is_none()
        };
        let workers: Vec<usize> = (0..self.site.workers.len()).filter(may).collect();
        if workers.is_empty() {
            return;
        }
        let worker = self.random.pick(&workers);
        let person = &mut self.site.workers[worker];
        let lasts_us = LEAST_DECLINE_US + self.random.below(2 * HOUR_US);
        person.decline = Some(Decline {
            from_us: now_us,
            ramp_us: (30 + self.random.below(31)) * MINUTE_US,
            until_us: person.leaves_us.min(now_us + lasts_us),
            by: 0.25 + 0.35 * self.random.unit(),
        });
    }

    fn end_decline(&mut self, now_us: u64, worker: usize) {
        let person = &mut self.site.workers[worker];
        let zone = person.zone.unwrap_or(person.home);
        let gone = person.zone.is_none();
        if let Some(decline) = person.decline.take_if(|decline| now_us >= decline.until_us || gone) {
            let until_us = decline.until_us.min(now_us);
            self.tell_label("decline", zone, Some(worker), decline.from_us, Some(until_us));
        }
    }

    /// Somebody who has nothing at hand works in another zone from now on, until the shift ends.
    fn move_somebody(&mut self, now_us: u64) {
        let zones = self.site.zones.len() as u64;
        let (from, to) = (self.random.below(zones) as usize, self.random.below(zones) as usize);
        let free = self.site.zones[from].free.first().copied();
        if let Some(worker) = free.filter(|worker| from != to && self.site.workers[*worker].decline.is_none())
        {
            self.leave(now_us, worker);
            self.enter(now_us, worker, to);
        }
    }

    fn send(&mut self, at_us: u64, topic: usize, key: &str, record: &impl Serialize) {
        if at_us <= self.until_us {
            let event = event(instant_ms(at_us), key, record);
            self.arrival.send(at_us, Record { topic, event }, &mut self.random);
        }
    }

    fn tell_task(&mut self, at_us: u64, zone: usize, task: Task, kind: &str, worker: Option<usize>) {
        #[derive(Serialize)]
        struct Told<'a> {
            task: String,
            at: i64,
            kind: &'a str,
            zone: &'a str,
            r#type: &'a str,
            units: u64,
            worker: Option<&'a str>,
        }
        let zone = self.site.zones[zone].name.clone();
        let worker = worker.map(|worker| self.site.workers[worker].name.clone());
        let told = Told {
            task: task_name(task),
            at: instant_ms(at_us),
            kind,
            zone: &zone,
            r#type: TYPES[task.kind].name,
            units: task.units,
            worker: worker.as_deref(),
        };
        self.send(at_us, TASKS, &zone, &told);
    }

    fn tell_scan(&mut self, at_us: u64, worker: usize, zone: usize, task: Task, unit: u64) {
        #[derive(Serialize)]
        struct Told<'a> {
            worker: &'a str,
            at: i64,
            zone: &'a str,
            task: String,
            unit: u64,
        }
        let (worker, zone) = (self.site.workers[worker].name.clone(), self.site.zones[zone].name.clone());
        let told = Told { worker: &worker, at: instant_ms(at_us), zone: &zone, task: task_name(task), unit };
        self.send(at_us, SCANS, &worker, &told);
    }

    fn tell_worker(&mut self, at_us: u64, worker: usize, zone: usize, kind: &str) {
        #[derive(Serialize)]
        struct Told<'a> {
            worker: &'a str,
            at: i64,
            kind: &'a str,
            zone: &'a str,
        }
        let (worker, zone) = (self.site.workers[worker].name.clone(), self.site.zones[zone].name.clone());
        let told = Told { worker: &worker, at: instant_ms(at_us), kind, zone: &zone };
        self.send(at_us, WORKERS, &worker, &told);
    }

    fn tell_label(
        &mut self,
        kind: &str,
        zone: usize,
        worker: Option<usize>,
        from_us: u64,
        until_us: Option<u64>,
    ) {
        #[derive(Serialize)]
        struct Label<'a> {
            kind: &'a str,
            zone: &'a str,
            worker: Option<&'a str>,
            from: i64,
            until: Option<i64>,
        }
        let zone = self.site.zones[zone].name.as_str();
        let worker = worker.map(|worker| self.site.workers[worker].name.as_str());
        let (from, until) = (instant_ms(from_us), until_us.map(instant_ms));
        let event = event(until.unwrap_or(from), zone, &Label { kind, zone, worker, from, until });
        self.ready.push_back(Record { topic: LABELS, event });
    }

    /// What had not ended when the stream did.
    fn tell_open_labels(&mut self) {
        for zone in 0..self.site.zones.len() {
            if let Some(overload) = self.site.zones[zone].overload.take() {
                self.tell_label("overload", zone, None, overload.from_us, None);
            }
        }
        for worker in 0..self.site.workers.len() {
            let person = &mut self.site.workers[worker];
            let zone = person.zone.unwrap_or(person.home);
            if let Some(decline) = person.decline.take() {
                self.tell_label("decline", zone, Some(worker), decline.from_us, None);
            }
        }
    }
}

impl Iterator for Warehouse {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Some(record);
            }
            if self.over {
                return None;
            }
            let next_us = self.calendar.next_us();
            if self.came == self.most_events {
                self.over = true;
            } else if let Some(record) = self.arrival.next_before(next_us) {
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

fn task_name(task: Task) -> String {
    format!("t-{:07}", task.number)
}

fn instant_ms(at_us: u64) -> i64 {
    FIRST_MS + (at_us / 1000) as i64
}
