//! Lists as files for spreadsheets, which take a cell that begins like a formula for one.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderValue};

use crate::error::{Error, Result};

/// A CSV file being written: RFC 4180, UTF-8, one header line.
pub struct Csv {
    writer: csv::Writer<Vec<u8>>,
}

impl Csv {
    pub fn new(columns: &[&str]) -> Result<Self> {
        let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
        writer.write_record(columns).map_err(unwritten)?;
        Ok(Self { writer })
    }

    pub fn line<'a>(&mut self, cells: impl IntoIterator<Item = &'a str>) -> Result<()> {
        self.writer.write_record(cells.into_iter().map(harmless)).map_err(unwritten)
    }

    pub fn text(self) -> Result<String> {
        let bytes = self.writer.into_inner().map_err(|error| unwritten(error.into_error()))?;
        String::from_utf8(bytes).map_err(unwritten)
    }

    /// The file as an answer that browsers save under the name.
    pub fn answer(self, name: &str) -> Result<Response> {
        let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")).map_err(unwritten)?;
        let kind = HeaderValue::from_static("text/csv; charset=utf-8");
        Ok(([(CONTENT_TYPE, kind), (CONTENT_DISPOSITION, disposition)], self.text()?).into_response())
    }
}

/// The text with an apostrophe in front where a spreadsheet would calculate, and without control characters.
fn harmless(text: &str) -> String {
    let text: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    let starts_a_formula = |letter| matches!(letter, '=' | '+' | '-' | '@' | '＝' | '＋' | '－' | '＠');
    if text.trim_start().starts_with(starts_a_formula) { format!("'{text}") } else { text }
}

fn unwritten(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal("A CSV file cannot be written.").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula_and_every_cell_is_read_back() {
        let cells = ["=1+1", "+1", "-1", "@a", "\t=1", " =1", "＝1", "a=1", "4.50", "a,b", "\"q\"", "two\r\nlines", ""];
        let mut file = Csv::new(&["cell"; 13]).expect("a header");
        file.line(cells).expect("a line");
        let text = file.text().expect("a file");
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let line = reader.records().next().expect("a line").expect("cells");
        let read: Vec<&str> = line.iter().collect();
        let expected = ["'=1+1", "'+1", "'-1", "'@a", "' =1", "' =1", "'＝1", "a=1", "4.50", "a,b", "\"q\"", "two  lines", ""];
        assert_eq!(read, expected);
    }
}
