//! Why a command failed, and the exit code that says so (DESIGN §8).

use std::io;

use thiserror::Error;

use crate::term;

/// The command did what was asked.
const DONE: i32 = 0;
/// It failed.
const FAILED: i32 = 1;
/// It was called wrongly; clap uses the same code.
const USAGE: i32 = 2;
/// No node answers.
const UNREACHABLE: i32 = 3;
/// What was named does not exist.
const NOT_FOUND: i32 = 4;

/// Why a command failed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// Called wrongly in a way that the argument parser cannot see.
    #[error("{0}")]
    Usage(String),
    /// No node could be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The node knows no such thing.
    #[error("{0}")]
    NotFound(String),
    /// The node refused, with its HTTP status.
    #[error("{detail}")]
    Refused {
        /// HTTP status of the answer.
        status: u16,
        /// The node's words.
        detail: String,
    },
    /// Whoever read our output has gone, as in `astral streams | head -1`.
    #[error("nobody reads the output any more")]
    BrokenPipe,
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Failure {
    /// A failure with nothing but words.
    pub(crate) fn other(words: impl std::fmt::Display) -> Self {
        Self::Other(anyhow::anyhow!("{words}"))
    }

    /// The code that the program ends with.
    pub(crate) fn exit_code(&self) -> i32 {
        match self {
            Self::BrokenPipe => DONE,
            Self::Refused { .. } | Self::Other(_) => FAILED,
            Self::Usage(_) => USAGE,
            Self::Unreachable(_) => UNREACHABLE,
            Self::NotFound(_) => NOT_FOUND,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::BrokenPipe
        } else {
            Self::Other(error.into())
        }
    }
}

/// Says on standard error what went wrong, and answers the exit code.
pub(crate) fn report(result: Result<(), Failure>) -> i32 {
    let Err(failure) = result else { return DONE };
    if !matches!(failure, Failure::BrokenPipe) {
        term::error(&failure.to_string());
    }
    failure.exit_code()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_exit_code() {
        let words = String::new;
        assert_eq!(Failure::other("x").exit_code(), 1);
        let refused = Failure::Refused {
            status: 503,
            detail: words(),
        };
        assert_eq!(refused.exit_code(), 1);
        assert_eq!(Failure::Usage(words()).exit_code(), 2);
        assert_eq!(Failure::Unreachable(words()).exit_code(), 3);
        assert_eq!(Failure::NotFound(words()).exit_code(), 4);
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let closed = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(report(Err(closed)), 0);
    }
}
