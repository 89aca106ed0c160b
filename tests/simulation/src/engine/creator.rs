//! The batch creator: what `cycle::create_batches` does, a commit at a time.

use payday::id::{ChunkId, RunId};

use super::{Led, Luck, chunk_message};
use crate::deeds::Deed;
use crate::tables::{Breach, Time, place};
use crate::world::World;

pub struct Creator {
    run: RunId,
    phase: Phase,
    chunks: Vec<ChunkId>,
}

#[derive(Clone, Copy)]
enum Phase {
    Read,
    Mature,
    Create,
    Mark,
    Send,
}

impl Creator {
    pub fn new(run: RunId) -> Self {
        Self { run, phase: Phase::Read, chunks: Vec::new() }
    }

    pub fn boundary(&self) -> &'static str {
        match self.phase {
            Phase::Read => "read run",
            Phase::Mature => "mature earnings",
            Phase::Create => "create batches",
            Phase::Mark => "mark chunks queued",
            Phase::Send => "queue chunks",
        }
    }

    pub fn step(&mut self, world: &mut World, luck: Luck, now: Time) -> Result<Led, Breach> {
        if luck == Luck::Away {
            return Ok(Led::Failed);
        }
        let cutoff_at = world.tables.runs[place(self.run.0)].cutoff_at;
        self.phase = match self.phase {
            Phase::Read if world.tables.is_stopped() => return Ok(Led::Done),
            Phase::Read => Phase::Mature,
            Phase::Mature => {
                world.tables.mature(cutoff_at.min(now))?;
                world.did(|| Deed::Mature(cutoff_at.min(now)));
                Phase::Create
            }
            Phase::Create => {
                if !world.tables.runs[place(self.run.0)].batches_created {
                    let (policy, chunk_size) = (world.settings.policy.clone(), world.settings.chunk_size);
                    world.tables.create_batches(self.run, &policy, chunk_size, now)?;
                    world.did(|| Deed::CreateBatches { run: self.run, chunk_size, now });
                    world.note_exclusions(self.run);
                }
                Phase::Mark
            }
            Phase::Mark => {
                self.chunks = world.tables.chunks_to_queue(self.run, world.now);
                world.tables.complete_run(self.run);
                world.did(|| Deed::ChunksToQueue { run: self.run, came: self.chunks.clone() });
                Phase::Send
            }
            Phase::Send => {
                for chunk in &self.chunks {
                    world.send(chunk_message(*chunk));
                }
                return Ok(if luck == Luck::Fine { Led::Done } else { Led::Failed });
            }
        };
        Ok(if luck == Luck::Fine { Led::On } else { Led::Failed })
    }
}
