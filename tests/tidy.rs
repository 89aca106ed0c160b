//! The repository's own rules, as tests. Each failure says every breach and how to mend it. What a linter can hold is in
//! clippy.toml; here is what no linter sees: names that must agree, files that must exist, text that must not.

#[path = "tidy/code.rs"]
mod code;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/files.rs"]
mod files;
#[path = "tidy/template.rs"]
mod template;
#[path = "tidy/wiring.rs"]
mod wiring;
