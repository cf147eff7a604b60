//! The harness of the end-to-end tests: it starts the real programs and looks at
//! them from outside, as DESIGN §8 promises they look.

pub mod hostile;
pub mod synthetic;
