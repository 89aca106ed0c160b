//! Rules that a test breaks on purpose, to see that the checks notice. Never broken otherwise.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// Each send has a key of its own.
    FreshKeyPerSend,
    /// What is unknown is replayed for two days, longer than Stripe remembers keys.
    ReplayForTwoDays,
    /// The answer to a send that timed out is taken for a no.
    TimeoutIsRefusal,
}
