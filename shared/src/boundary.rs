//! Names for the points where the engine touches the world: each commit, each call to Stripe, each message sent, each
//! message, event and schedule that is worked off. Between two of them nothing can go wrong that a restart does not undo.
//!
//! In a release build [`cross`] is the effect itself and the names are gone. Otherwise a test may follow a [`faults::Plan`]
//! that strikes at a crossing; the crash matrix (`tests/matrix`) does so at every one. A boundary that is not in the list
//! below does not compile, one that the matrix never crosses fails it.

#[cfg(debug_assertions)]
pub mod faults;

use std::fmt;

use crate::error::Error;

macro_rules! boundaries {
    ($($(#[doc = $what:literal])* $boundary:ident => $name:literal,)*) => {
        /// Every boundary there is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Boundary {
            $($(#[doc = $what])* $boundary,)*
        }

        impl Boundary {
            pub const ALL: &'static [Self] = &[$(Self::$boundary,)*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$boundary => $name,)*
                }
            }
        }
    };
}

boundaries! {
    // What comes in, around all that it causes: lost before, or done and not acknowledged.
    ScheduleFires => "a schedule fires",
    RunMessage => "a run's message",
    ChunkMessage => "a chunk's message",
    NotificationMessage => "a notification's message",
    Webhook => "a webhook",
    JobStarts => "a job starts",

    // Commits
    /// What somebody asked for by HTTP, in one transaction: no part of what the engine recovers by itself.
    SaveByRequest => "save by request",
    RecordEarnings => "record earnings",
    MatureEarnings => "mature earnings",
    StartRuns => "start runs",
    ReadRun => "read run",
    CreateBatches => "create batches",
    HoldRun => "hold run",
    MarkChunksQueued => "mark chunks queued",
    ClaimChunk => "claim chunk",
    ProlongLease => "prolong lease",
    SaveRepliesAndDispatch => "save replies and dispatch",
    TellOthers => "tell others",
    ReleaseChunk => "release chunk",
    ApplyEvent => "apply event",
    ApplyWaitingEvent => "apply waiting event",
    RememberMode => "remember mode",
    RequestAccount => "request account",
    SyncAccounts => "sync accounts",
    DescribeAccount => "describe account",
    Complete => "complete",
    TakeRuns => "take runs",
    TakeDueChunks => "take due chunks",
    ResumeAfterKeyChange => "resume after key change",
    ReleaseFunded => "release funded",
    RetryItem => "retry item",
    ResumePayee => "resume payee",
    TellOfMissingRun => "tell of a missing run",
    KeepVerdict => "keep verdict",
    BeginReconciliation => "begin reconciliation",
    ApplyMissedNews => "apply missed news",
    SaveReconciled => "save reconciled",
    MirrorSwitches => "mirror switches",
    Forecast => "forecast",
    AnnounceOutbox => "announce outbox",
    ClaimDeliveries => "claim deliveries",
    MarkOutboxSent => "mark outbox sent",
    RequestWithdrawal => "request a withdrawal",
    CancelWithdrawal => "cancel a withdrawal",
    BatchWithdrawal => "batch a withdrawal",
    TakeDueWithdrawals => "take due withdrawals",

    // Messages sent, and a queue asked
    QueueRuns => "queue runs",
    QueueChunks => "queue chunks",
    QueueResume => "queue resume",
    QueueRunsAgain => "queue runs again",
    QueueChunksAgain => "queue chunks again",
    QueueNotifications => "queue notifications",
    QueueWithdrawal => "queue a withdrawal",
    QueueWithdrawalsAgain => "queue withdrawals again",
    ReadQueueDepth => "read queue depth",

    /// One of EventBridge Scheduler's schedules is changed or made.
    ChangeSchedule => "change schedule",

    // Calls to Stripe
    SendTransfer => "send transfer",
    SendPayout => "send payout",
    FindTransfer => "find transfer",
    FindPayout => "find payout",
    ReadBalance => "read balance",
    ReadAccount => "read account",
    FindAccount => "find account",
    ListAccounts => "list accounts",
    CreateAccount => "create account",
    CreateAccountLink => "create account link",
    ListEvents => "list events",
    ListTransfers => "list transfers",
    ListPayouts => "list payouts",

    // Messages to people
    SendSlack => "send slack",
    SendEmail => "send email",

    /// What a tool or a test does by itself: not the engine's, so without a row in the matrix.
    Outside => "outside",
}

impl fmt::Display for Boundary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a caller sees of a fault that did not end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// The effect did not happen.
    Before,
    /// The effect happened and its answer was lost.
    After,
}

impl From<Interruption> for Error {
    fn from(interruption: Interruption) -> Self {
        Self::unavailable("INTERRUPTED", "A test interrupts this; try again.").with_source(format!("{interruption:?}"))
    }
}

/// Has the effect, at this boundary. It may be asked for twice: by a test, to see that twice does no harm.
#[cfg(not(debug_assertions))]
pub fn cross<T, E, F>(_: Boundary, mut effect: impl FnMut() -> F) -> F
where
    F: Future<Output = Result<T, E>>,
    E: From<Interruption>,
{
    effect()
}

#[cfg(debug_assertions)]
pub use faults::cross;
