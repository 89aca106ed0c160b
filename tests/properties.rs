//! Every parser at the edge, against what nobody would send in good faith.
//!
//! Three ways: `corpus` replays the inputs in `tests/corpus/<parser>/`, which must be read (`good…`) or refused (`bad…`; a
//! `.lines` file holds one input on each line), and thousands of mutants of them, of which no one may cause a panic; `growth`
//! holds that eight times the input takes about eight times the work; `laws` are properties of whatever is generated.
//!
//! All of it is deterministic and ends within seconds. To search longer, give it more rounds per parser and cases per law,
//! and a seed of its own:
//! `PAYDAY_ROUNDS=1000000 PAYDAY_SEED=7 PROPTEST_CASES=100000 cargo test -p payday-tests --test properties`.
//! A finding prints its parser, its seed and the input; put the input into the corpus.

#[path = "properties/corpus.rs"]
mod corpus;
#[path = "properties/growth.rs"]
mod growth;
#[path = "properties/laws.rs"]
mod laws;
#[path = "properties/money.rs"]
mod money;
#[path = "properties/parsers.rs"]
mod parsers;
