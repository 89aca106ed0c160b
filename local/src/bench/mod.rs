//! `cargo payday bench`: measures the functions that deploy, on this machine, and says what each figure compares to.
//!
//! Every figure that is to hold anywhere is a ratio of two things measured in one run: a machine twice as fast gives the same.
//! Where an aim is known the section says `holds`. docs/benchmarks.md says how to read it. Numbers are whole or thousandths, made
//! without floats; times are taken around the work itself, never around the building of what it works on.

mod batch;
mod cold;
mod cpu;
mod cycle;
mod figures;
mod reconciliation;
mod rig;
mod web;

use clap::ValueEnum;
use serde_json::{Map, Value as Json, json};

use crate::console::note;
use crate::job::Failure;

pub use rig::Rig;

/// A part that can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Section {
    /// 10,000 creators through the real functions, at 0 and at 120 ms
    Engine,
    /// Share of a rate budget of 20/s, and of 429
    Rate,
    /// A batch of 100,000 payees against a bare insert of its rows
    Batch,
    /// Reads of Stripe and time for the reconciliation of 100,000 payees
    Reconciliation,
    /// Cold init, memory and size of each function beside Node
    Cold,
    /// Webhooks a second, and the cost of GET /api/tokens/earnings
    Webhooks,
}

const ALL: [Section; 6] =
    [Section::Cold, Section::Engine, Section::Rate, Section::Batch, Section::Webhooks, Section::Reconciliation];

/// Measures and returns the one JSON. An empty `only` is all of it.
pub async fn measure(rig: &Rig, only: &[Section], large: bool) -> Result<Json, Failure> {
    let mut sections = Map::new();
    sections.insert("machine".to_owned(), rig.machine().await?);
    for section in ALL.into_iter().filter(|section| only.is_empty() || only.contains(section)) {
        let (name, figures) = match section {
            Section::Engine => ("engine", cycle::engine(rig).await?),
            Section::Rate => ("rate", cycle::rate(rig).await?),
            Section::Batch => ("batch", batch::measure(rig, large).await?),
            Section::Reconciliation => ("reconciliation", reconciliation::measure(rig).await?),
            Section::Cold => ("cold", cold::measure(rig).await?),
            Section::Webhooks => ("webhooks", web::measure(rig).await?),
        };
        note(&format!("{name}: {figures}"));
        sections.insert(name.to_owned(), figures);
    }
    Ok(json!(sections))
}
