//! How far a point is from the nearest that was seen before.
//!
//! A value may be usual, and so may a rise by so much, and the two together never have been. Points of a few
//! coordinates are remembered; the distance to the nearest says how new one is. A coordinate is measured from its median
//! by the span in which nine of ten of its last values lie, and large distances count by their logarithm (`asinh`), so
//! that of two spikes the height matters little.
//!
//! Bounded: 512 points, and 128 of the last 512 values of each coordinate: 2.5 KB a coordinate in a checkpoint, 4.5 KB in
//! memory. Points are held as what they are away from an origin, in 32 bits; it is the first point, and moves after values
//! that are far from it. What is close to a point that is there is not kept; the oldest goes first. Cost: a look at all
//! points, about 1 µs for three coordinates.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// How many points are remembered.
const POINTS: usize = 512;
/// By how many values of each coordinate it is measured; once there are so many, by each fourth.
const VALUES: usize = 128;
const EACH: u64 = 4;
/// The spans are measured anew when an eighth of the points is new, and with each 64th.
const RENEWED: u64 = 8;
const LATEST: u64 = 64;
/// The origin moves when the median is so many spans away from it.
const FAR: f32 = 1_000.0;
/// What is as close to a point is not remembered as another.
const RADIUS: f32 = 0.05;

/// Squares of what is larger would be infinite.
const LARGEST: f64 = 1e15;

/// The points that were seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Nearest {
    coordinates: usize,
    /// The first point: others are held as what they are away from it.
    origin: Vec<f64>,
    /// Some of the last values, point by point; the oldest first.
    values: VecDeque<f32>,
    /// Points, one after the other, the oldest first.
    points: VecDeque<f32>,
    /// The same, as they are measured: of `points` and `measures`.
    #[serde(skip)]
    measured: Vec<f32>,
    measures: Vec<Measure>,
    /// How many points have come.
    count: u64,
    /// With which the spans are measured anew.
    renew_at: u64,
}

/// How a coordinate is measured.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Measure {
    median: f32,
    /// 0 if there is none.
    per_span: f32,
}

impl Measure {
    fn of(mut values: Vec<f32>) -> Measure {
        let last = values.len() - 1;
        let mut at = |share: f64| {
            let place = (last as f64 * share) as usize;
            *values.select_nth_unstable_by(place, f32::total_cmp).1
        };
        let (low, median, high) = (at(0.05), at(0.5), at(0.95));
        Measure { median, per_span: if high > low { 1.0 / (high - low) } else { 0.0 } }
    }

    fn measure(&self, value: f32) -> f32 {
        libm::asinhf((value - self.median) * self.per_span)
    }
}

impl Nearest {
    /// Of points of so many coordinates.
    pub(super) fn new(coordinates: usize) -> Nearest {
        Nearest {
            coordinates,
            origin: Vec::new(),
            values: VecDeque::new(),
            points: VecDeque::new(),
            measured: Vec::new(),
            measures: vec![Measure::default(); coordinates],
            count: 0,
            renew_at: 0,
        }
    }

    /// How far `point` is from the nearest before it, which it joins; 0 for the first.
    pub(super) fn distance(&mut self, point: &[f64]) -> f64 {
        if self.origin.is_empty() {
            self.origin.extend_from_slice(point);
        }
        let away = |(&value, &origin): (&f64, &f64)| (value - origin).clamp(-LARGEST, LARGEST) as f32;
        let point: Vec<f32> = point.iter().zip(&self.origin).map(away).collect();
        self.count += 1;
        self.remember_values(&point);
        let seen: Vec<f32> = self.measures.iter().zip(&point).map(|(measure, &value)| measure.measure(value)).collect();
        let squares = |other: &[f32]| other.iter().zip(&seen).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        let nearest = self.measured.chunks_exact(self.coordinates).map(squares).fold(f32::INFINITY, f32::min).sqrt();
        if nearest > RADIUS {
            if self.points.len() == POINTS * self.coordinates {
                self.points.drain(..self.coordinates);
                self.measured.drain(..self.coordinates);
            }
            self.points.extend(&point);
            self.measured.extend(&seen);
        }
        if nearest.is_finite() { f64::from(nearest) } else { 0.0 }
    }

    /// Of the values some are enough to measure by.
    fn remember_values(&mut self, point: &[f32]) {
        let is_full = self.values.len() == VALUES * self.coordinates;
        if is_full && !self.count.is_multiple_of(EACH) {
            return;
        }
        if is_full {
            self.values.drain(..self.coordinates);
        }
        self.values.extend(point);
        if self.count >= self.renew_at {
            self.renew_at = self.count + (self.count / RENEWED).clamp(1, LATEST);
            self.measure_anew();
        }
    }

    fn measure_anew(&mut self) {
        self.center();
        let of = |coordinate| self.values.iter().skip(coordinate).step_by(self.coordinates).copied().collect();
        self.measures = (0..self.coordinates).map(|coordinate| Measure::of(of(coordinate))).collect();
        self.restored();
    }

    /// Moves the origin to where values are, if they are so far from it that 32 bits tell them badly apart.
    fn center(&mut self) {
        for coordinate in 0..self.coordinates {
            let of = |values: &VecDeque<f32>| -> Vec<f32> {
                values.iter().skip(coordinate).step_by(self.coordinates).copied().collect()
            };
            let Measure { median, per_span } = Measure::of(of(&self.values));
            let span = if per_span > 0.0 { 1.0 / per_span } else { 0.0 };
            if median.abs() <= FAR * span {
                continue;
            }
            self.origin[coordinate] += f64::from(median);
            for held in [&mut self.values, &mut self.points] {
                held.iter_mut().skip(coordinate).step_by(self.coordinates).for_each(|value| *value -= median);
            }
        }
    }

    /// Measures the points as they were when it was saved.
    pub(super) fn restored(&mut self) {
        let measures = self.measures.iter().cycle();
        self.measured = self.points.iter().zip(measures).map(|(&value, measure)| measure.measure(value)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_together_for_the_first_time_is_new() {
        let mut nearest = Nearest::new(2);
        // On a circle, whose middle neither coordinate alone tells from the rest.
        let at = |i: usize| [(i as f64 * 0.1).cos() * 50.0, (i as f64 * 0.1).sin() * 50.0];
        for i in 0..1_000 {
            nearest.distance(&at(i));
        }
        assert!(nearest.distance(&at(1_003)) < 0.1);
        assert!(nearest.distance(&[0.0, 0.0]) > 0.4);
        assert!(nearest.distance(&[0.0, 1.0]) < 0.1, "it has joined them");
    }

    #[test]
    fn of_spikes_the_height_matters_little() {
        let mut nearest = Nearest::new(1);
        let series = |i: usize| if i % 100 == 99 { 150.0 + (i / 100) as f64 } else { (i % 7) as f64 };
        for i in 0..900 {
            nearest.distance(&[series(i)]);
        }
        assert!(nearest.distance(&[170.0]) < 0.1);
        assert!(nearest.distance(&[50.0]) > 0.5);
    }

    #[test]
    fn a_first_value_far_from_all_others_does_not_blind_it() {
        let of = |first: f64, level: f64| {
            let mut nearest = Nearest::new(1);
            nearest.distance(&[first]);
            for i in 0..1_000 {
                nearest.distance(&[level + (i * i % 7) as f64]);
            }
            nearest.distance(&[level + 30.0])
        };
        // Between two numbers of 32 bits near 10^9 lie 64.
        let (near, far) = (of(0.0, 0.0), of(0.0, 1e9));
        assert!(near > 1.0 && (near - far).abs() < 0.05, "{near} {far}");
    }

    #[test]
    fn it_is_bounded_and_goes_on_as_it_was_saved() {
        let mut nearest = Nearest::new(4);
        let at = |i: usize| [101, 2_003, 7_919, 31].map(|factor| (i * i * factor % 10_007) as f64);
        for i in 0..3_000 {
            nearest.distance(&at(i));
        }
        assert_eq!((nearest.points.len(), nearest.values.len()), (4 * POINTS, 4 * VALUES));
        let mut other: Nearest = postcard::from_bytes(&postcard::to_stdvec(&nearest).unwrap()).unwrap();
        other.restored();
        for i in 3_000..3_500 {
            assert_eq!(nearest.distance(&at(i)), other.distance(&at(i)));
        }
    }
}
