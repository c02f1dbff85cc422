//! Reads the handler's use of memory and descriptors from `/proc`.

use std::fs;

use anyhow::Context as _;

/// The use at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Resident memory, in MiB.
    pub resident: f64,
    pub descriptors: usize,
}

impl Usage {
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the handler is not there")?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: f64 = resident.and_then(|text| text.split_whitespace().next()).context("no VmRSS")?.parse()?;
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
        Ok(Self { resident: kib / 1024.0, descriptors })
    }
}

/// The medians of the first and the last third, and the maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    pub first: f64,
    pub last: f64,
    pub most: f64,
}

impl Trend {
    pub fn of(samples: impl Iterator<Item = f64>) -> Self {
        let samples: Vec<f64> = samples.collect();
        let third = samples.len().div_ceil(3);
        let most = samples.iter().copied().fold(0.0, f64::max);
        Self { first: median(&samples[..third]), last: median(&samples[samples.len() - third..]), most }
    }

    /// Whether the last third exceeds the first by at most a tenth and `slack`.
    pub fn is_flat(&self, slack: f64) -> bool {
        self.last <= self.first * 1.1 + slack
    }
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident > 1.0 && usage.descriptors > 2, "{usage:?}");
    }

    #[test]
    fn what_grows_is_not_flat() {
        let growing = Trend::of((0..90).map(f64::from));
        assert_eq!((growing.first, growing.last, growing.most), (15.0, 75.0, 89.0));
        assert!(!growing.is_flat(2.0));
        let flat = Trend::of((0..90).map(|number| 20.0 + f64::from(number % 7)));
        assert!(flat.is_flat(0.0), "{flat:?}");
        assert!(!Trend::of([20.0, 20.0, 25.0].into_iter()).is_flat(2.0));
    }
}
