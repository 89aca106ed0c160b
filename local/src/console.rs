//! The one place that writes to the terminal.

use std::io::Write;

/// A line of result, on standard output.
#[expect(clippy::print_stdout, reason = "the one place that may: what a command says to its caller")]
pub fn say(line: &str) {
    println!("{line}");
}

/// A line about what happens, on standard error. A closed terminal is no reason to stop.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
