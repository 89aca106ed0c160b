//! What people write to be read by other people: reasons, references, evidence.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::error::{Error, Result};

/// A text of 1 to `most` characters, without what a line of a log or a page could not show; else 422 naming the field.
pub fn words<'t>(field: &str, text: &'t str, most: usize) -> Result<&'t str> {
    let text = text.trim();
    let shows = text.chars().all(|letter| !letter.is_control() || letter == '\n');
    if shows && (1..=most).contains(&text.chars().count()) {
        return Ok(text);
    }
    Err(Error::field(field, format!("must be 1 to {most} characters without control characters")))
}

/// Why somebody does something.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// For those who read the audit log.
    #[schema(min_length = 1, max_length = 500)]
    reason: String,
}

impl Reason {
    pub fn text(&self) -> Result<&str> {
        words("reason", &self.reason, 500)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_there_and_can_be_shown() {
        assert_eq!(words("reason", "  seen in the\ndashboard ", 30).ok(), Some("seen in the\ndashboard"));
        for wrong in ["", " \n ", "a\tb", "a\u{1b}[31m", "much too long for it"] {
            assert!(words("reason", wrong, 10).is_err(), "{wrong:?}");
        }
    }
}
