//! The pieces of the fan-out benchmark: who sends, who receives, and what is counted.
//!
//! It measures one sending process from outside; method and figures are in
//! `tests/benches/README.md`.

pub mod audience;
pub mod bare;
pub mod meter;
pub mod table;
