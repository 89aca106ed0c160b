//! `cargo payday sim`: lives histories on all cores, tells how far it is, and explains the first that breaks a rule.
//! Takes the number of histories and the first seed. Exit codes: 0 no rule broke, 1 one did, 2 wrong use.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use payday_simulation::{explain, many};

fn main() -> ExitCode {
    let numbers: Vec<Option<u64>> = std::env::args().skip(1).map(|text| text.parse().ok()).collect();
    let [Some(seeds), Some(from)] = numbers[..] else {
        let _ = writeln!(stderr(), "usage: payday-simulation SEEDS FROM");
        return ExitCode::from(2);
    };
    // What panics is a rule that breaks like any other, told once and with its seed.
    std::panic::set_hook(Box::new(|_| {}));
    let started = Instant::now();
    let progress = Progress { seeds, started, told: Mutex::new(started) };
    let lived = many::live(from, seeds, &|done| progress.tell(done));
    let took = started.elapsed();
    progress.end();
    let mut out = stdout().lock();
    let told = match &lived.failed {
        Some((history, breach)) => writeln!(out, "{}", explain(history, breach)),
        None => writeln!(out, "{}\nno rule broke, seeds {from} to {}", lived.counts, from + seeds.saturating_sub(1)),
    };
    let rate = u128::from(lived.histories) * 1_000 / took.as_millis().max(1);
    let summed = writeln!(out, "{} histories in {:.1?}, {rate} a second", lived.histories, took);
    match (told.and(summed), lived.failed) {
        (Ok(()), None) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// A line on the screen that says how far it is: rewritten in place, or a new one now and then where lines stay.
struct Progress {
    seeds: u64,
    started: Instant,
    told: Mutex<Instant>,
}

impl Progress {
    fn tell(&self, done: u64) {
        let Ok(mut told) = self.told.try_lock() else { return };
        let (every, end) =
            if stderr().is_terminal() { (Duration::from_millis(200), '\r') } else { (Duration::from_secs(10), '\n') };
        if told.elapsed() < every {
            return;
        }
        *told = Instant::now();
        let _ = write!(stderr(), "{done} of {} histories, {} s{end}", self.seeds, self.started.elapsed().as_secs());
    }

    fn end(&self) {
        if stderr().is_terminal() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
