//! Shows the results to the user: a line for each run, a table of kills, the total.

use std::{collections::BTreeMap, io::Write as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::Run;
use crate::victim::Kills;

/// Number of findings of a run that are printed in full.
const SHOWN: usize = 20;

pub struct Reporter {
    json: bool,
    /// The unit of the counts: rows or uplinks.
    unit: &'static str,
    bar: ProgressBar,
    runs: usize,
    kills: Kills,
    totals: Totals,
    seeds_at_fault: Vec<u64>,
}

#[derive(Default)]
struct Totals {
    sent: usize,
    messages: usize,
    repeats: usize,
    lost: usize,
    out_of_order: usize,
    seconds: f64,
}

impl Reporter {
    /// The bar goes to standard error, and only if that is a terminal.
    pub fn new(json: bool, runs: u64, unit: &'static str) -> Self {
        let bar = ProgressBar::new(runs);
        let style = ProgressStyle::with_template("{bar:40} run {pos} of {len}, {msg}, {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message("0 kills");
        bar.enable_steady_tick(Duration::from_millis(200));
        let reporter = Self {
            json,
            unit,
            bar,
            runs: 0,
            kills: Kills::default(),
            totals: Totals::default(),
            seeds_at_fault: Vec::new(),
        };
        if !json {
            reporter.print(&format!(" seed  kills {unit:>7}  messages  repeats  lost  out of order   time"));
        }
        reporter
    }

    pub fn add(&mut self, run: Run) -> anyhow::Result<()> {
        let Run { seed, kills, verdict, log, seconds } = run;
        self.runs += 1;
        self.kills.add(&kills);
        let totals = &mut self.totals;
        totals.sent += verdict.sent;
        totals.messages += verdict.messages;
        totals.repeats += verdict.repeats;
        totals.lost += verdict.lost;
        totals.out_of_order += verdict.out_of_order;
        totals.seconds += seconds;
        if self.json {
            self.print(
                &json!({
                    "seed": seed, "kills": kills.total(), self.unit: verdict.sent, "messages": verdict.messages,
                    "repeats": verdict.repeats, "lost": verdict.lost, "outOfOrder": verdict.out_of_order,
                    "findings": verdict.findings, "seconds": seconds,
                })
                .to_string(),
            );
        } else {
            self.print(&format!(
                "{seed:5} {:6} {:7} {:9} {:8} {:5} {:13} {seconds:5.1}s{}",
                kills.total(),
                verdict.sent,
                verdict.messages,
                verdict.repeats,
                verdict.lost,
                verdict.out_of_order,
                if verdict.is_clean() { "" } else { "  NOT IN ORDER" },
            ));
        }
        if !verdict.is_clean() {
            self.seeds_at_fault.push(seed);
            self.explain(seed, &verdict.findings, &log);
        }
        self.bar.set_message(format!("{} kills", self.kills.total()));
        self.bar.inc(1);
        Ok(())
    }

    /// Prints the findings and the handler's log to standard error.
    fn explain(&self, seed: u64, findings: &[String], log: &[String]) {
        self.bar.suspend(|| {
            let mut out = std::io::stderr().lock();
            // An error means that the reader of standard error is gone.
            let _ = writeln!(out, "seed {seed}: {} findings", findings.len());
            for finding in findings.iter().take(SHOWN) {
                let _ = writeln!(out, "  - {finding}");
            }
            if findings.len() > SHOWN {
                let _ = writeln!(out, "  - and {} more", findings.len() - SHOWN);
            }
            for line in log {
                let _ = writeln!(out, "    {line}");
            }
        });
    }

    /// Prints the table of kills and the total. `false` if there were findings.
    pub fn finish(self) -> anyhow::Result<bool> {
        self.bar.finish_and_clear();
        let Totals { sent, messages, repeats, lost, out_of_order, seconds } = self.totals;
        let (runs, kills, is_clean) = (self.runs, self.kills.total(), self.seeds_at_fault.is_empty());
        let unit = self.unit;
        if self.json {
            let by_name = |counts: &BTreeMap<_, usize>| -> Value {
                counts.iter().map(|(step, count)| (ToString::to_string(step), json!(count))).collect()
            };
            self.print(
                &json!({
                    "total": true, "runs": runs, "kills": kills, self.unit: sent, "messages": messages, "repeats": repeats,
                    "lost": lost, "outOfOrder": out_of_order, "seedsAtFault": self.seeds_at_fault, "seconds": seconds,
                    "killsAt": by_name(&self.kills.at), "killsMissed": by_name(&self.kills.missed),
                    "killsAtRandomMoments": self.kills.at_moments,
                })
                .to_string(),
            );
            return Ok(is_clean);
        }
        self.print("\nkilled at            times");
        for (step, count) in &self.kills.at {
            self.print(&format!("{step:20} {count:5}"));
        }
        self.print(&format!("{:20} {:5}", "a random moment", self.kills.at_moments));
        for (step, count) in &self.kills.missed {
            self.print(&format!("{:20} {count:5}", format!("(not {step})")));
        }
        self.print(&format!(
            "\n{runs} runs, {kills} kills, {sent} {unit}, {messages} messages: {repeats} came again under the same id, \
             {lost} {unit} lost, {out_of_order} out of order, in {seconds:.0} s"
        ));
        if is_clean {
            self.print("Nothing was found.");
        } else {
            let seeds: Vec<String> = self.seeds_at_fault.iter().map(u64::to_string).collect();
            self.print(&format!("FOUND SOMETHING with seed {}", seeds.join(", ")));
        }
        Ok(is_clean)
    }

    fn print(&self, line: &str) {
        self.bar.suspend(|| println!("{line}"));
    }
}
