//! What is written down of a history as it is lived, if somebody wants to read it: for people, and for a test that does the same
//! to Postgres.

use super::World;
use crate::deeds::{Deed, Done};

/// So often all rows are compared, in deeds.
const COMPARE_EVERY: usize = 50;

impl World {
    /// From here on what happens is written down.
    pub fn write_down(&mut self) {
        self.story = Some(Vec::new());
    }

    pub fn story(&mut self) -> Vec<String> {
        self.story.take().unwrap_or_default()
    }

    /// What was done to the tables, and how they are at the end.
    pub fn deeds(&mut self) -> Vec<Done> {
        self.compare();
        self.deeds.take().unwrap_or_default()
    }

    /// Something was done to the tables.
    pub fn did(&mut self, deed: impl FnOnce() -> Deed) {
        let Some(deeds) = &mut self.deeds else { return };
        let deed = deed();
        // Of pulses that follow each other the last one says it all.
        let beats = |deed: &Deed| if let Deed::Pulse { chunk, lease, .. } = deed { Some((*chunk, *lease)) } else { None };
        if beats(&deed).is_some() && deeds.last().is_some_and(|last| beats(&last.deed) == beats(&deed)) {
            deeds.pop();
        }
        deeds.push(Done { at: self.now, deed });
        if deeds.len().is_multiple_of(COMPARE_EVERY) {
            self.compare();
        }
    }

    fn compare(&mut self) {
        if let Some(deeds) = &mut self.deeds {
            deeds.push(Done { at: self.now, deed: Deed::Compare(self.tables.rows()) });
        }
    }

    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            let since = (self.now - self.begins_at).num_milliseconds();
            let (days, rest) = (since / 86_400_000, since % 86_400_000);
            let (hours, minutes, seconds) = (rest / 3_600_000, rest / 60_000 % 60, rest / 1_000 % 60);
            story.push(format!("day {days:>3} {hours:02}:{minutes:02}:{seconds:02}.{:03}  {}", rest % 1_000, what()));
        }
    }
}
