//! What every route stands on, and nothing of any domain: who is calling, what was sent, and how an answer looks.
//!
//! A handler takes what it needs as arguments and returns `Result<_, Error>`: first who calls ([`Caller`], [`Operator`],
//! [`CronCaller`], [`CronOrOperator`]), then what was sent ([`Json`], [`LenientJson`], [`Query`], [`Path`]). Axum asks in that
//! order, so nobody unknown has a body read. [`finish`] goes around a whole router and makes every answer one of ours.

mod auth;
mod body;
mod cors;
mod csv;
mod finish;
mod idempotency;
mod jwt;
mod limits;
mod page;
mod response;
mod state;
#[cfg(test)]
pub(crate) mod testing;
mod words;

pub use auth::{Auth, Caller, CronCaller, CronOrOperator, CronSecrets, Operator};
pub use body::{Json, LenientJson, MIB, read as read_body};
pub use cors::Cors;
pub use csv::Csv;
pub use finish::{RequestId, finish};
pub use idempotency::IdempotencyKey;
pub use jwt::{Role, Verifier};
pub use limits::Limits;
pub use page::{Cursor, Page, PageQuery, Path, Query};
pub use response::Problem;
pub use state::{AppState, Connect, Queues};
pub use words::{Reason, words};
