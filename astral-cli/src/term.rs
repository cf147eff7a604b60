//! Output: results on standard output, everything else on standard error.
//!
//! A closed pipe is an error value here, never a panic. Colours and lines that
//! are rewritten appear on a terminal only, and colours only without `NO_COLOR`
//! (<https://no-color.org>).

use std::io::{self, IsTerminal as _, Write as _};

use crate::failure::Failure;

/// A way to stand out.
#[derive(Clone, Copy)]
pub(crate) enum Style {
    /// Headings.
    Bold,
    /// Bad.
    Red,
}

impl Style {
    /// Parameter of ECMA-48 SGR.
    fn code(self) -> u8 {
        match self {
            Self::Bold => 1,
            Self::Red => 31,
        }
    }

    /// `text` in this style for a terminal, unless the user wants no colours.
    pub(crate) fn on(self, text: &str) -> String {
        self.paint(text, colours_wanted())
    }

    /// `text` in this style if `colours`, else as it is.
    fn paint(self, text: &str, colours: bool) -> String {
        if colours {
            format!("\x1b[{}m{text}\x1b[0m", self.code())
        } else {
            text.to_owned()
        }
    }
}

/// Prints a line of the result.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// `text` for standard output, styled if that is a terminal.
pub(crate) fn styled(style: Style, text: &str) -> String {
    style.paint(text, stdout_is_terminal() && colours_wanted())
}

/// Says something to the person in front, apart from the result.
pub(crate) fn note(text: &str) {
    // Nothing can be done about a closed standard error.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Says what went wrong.
pub(crate) fn error(text: &str) {
    let colours = stderr_is_terminal() && colours_wanted();
    note(&format!("{} {text}", Style::Red.paint("error:", colours)));
}

/// Whether standard output is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether standard error is a terminal that can rewrite a line.
pub(crate) fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal() && !dumb()
}

/// Whether the user lets programs colour what they print.
fn colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && !dumb()
}

/// A terminal without cursor movement.
fn dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// A line on standard error that is rewritten in place; nothing unless that is a terminal.
pub(crate) struct Live {
    on: bool,
    shown: bool,
}

impl Live {
    /// A line, off if `quiet` or without a terminal.
    pub(crate) fn new(quiet: bool) -> Self {
        Self {
            on: !quiet && stderr_is_terminal(),
            shown: false,
        }
    }

    /// Shows `text` in place of what was there.
    pub(crate) fn set(&mut self, text: &str) {
        if self.on {
            let mut out = io::stderr().lock();
            let _ = write!(out, "\r\x1b[2K{text}");
            let _ = out.flush();
            self.shown = true;
        }
    }

    /// Says `text` on a line of its own, above.
    pub(crate) fn note(&mut self, text: &str) {
        self.clear();
        note(text);
    }

    /// Takes the line away.
    pub(crate) fn clear(&mut self) {
        if self.shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[2K");
            self.shown = false;
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.clear();
    }
}

/// A few lines on standard output that are rewritten in place on a terminal, and
/// printed one after the other elsewhere.
#[derive(Default)]
pub(crate) struct Board {
    lines: usize,
}

impl Board {
    /// Shows `lines` in place of those that were there.
    pub(crate) fn show(&mut self, lines: &[String]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let rewrite = io::stdout().is_terminal() && !dumb();
        if rewrite && self.lines > 0 {
            write!(out, "\x1b[{}A", self.lines)?;
        }
        for line in lines {
            let clear = if rewrite { "\x1b[2K" } else { "" };
            writeln!(out, "{clear}{line}")?;
        }
        self.lines = lines.len();
        Ok(out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_colours_is_left_alone() {
        assert_eq!(Style::Bold.paint("name", false), "name");
        assert_eq!(Style::Bold.paint("name", true), "\x1b[1mname\x1b[0m");
    }
}
