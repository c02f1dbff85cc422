//! Several instances share the backend: each keeps to the parts of the rate that were handed out with what it works on.

use super::Gate;

/// The least part: one request in a quarter of an hour.
const LEAST: f64 = 1.0 / 900.0;

/// The parts of the rate that this process may use at the moment. None: it does not share the backend.
#[derive(Debug, Default)]
pub struct Shares {
    count: usize,
    per_second: f64,
}

/// A part of the rate, as long as it lives.
pub struct Share<'a> {
    gate: &'a Gate,
    per_second: f64,
}

impl Shares {
    /// The requests in a second that may be made of these in all.
    pub fn of(&self, all: f64) -> f64 {
        if self.count == 0 { all } else { self.per_second.clamp(LEAST, all) }
    }
}

impl Gate {
    /// As long as there are shares, requests keep to the sum of them, not to the whole rate.
    #[must_use]
    pub fn share(&self, per_second: f64) -> Share<'_> {
        let shares = &mut self.state().shares;
        shares.count += 1;
        shares.per_second += per_second;
        Share { gate: self, per_second }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let shares = &mut self.gate.state().shares;
        shares.count -= 1;
        // Sums of fractions are not exact.
        shares.per_second = if shares.count == 0 { 0.0 } else { (shares.per_second - self.per_second).max(0.0) };
    }
}
