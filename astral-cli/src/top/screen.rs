//! The terminal as a whole, given back as it was however the program ends.

use std::io::{self, Write as _};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::terminal::{
    BeginSynchronizedUpdate, Clear, ClearType, DisableLineWrap, EnableLineWrap,
    EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode, size,
};
use crossterm::{execute, queue};

use crate::failure::Failure;

/// The alternate screen, without echo; dropped, the terminal is as before.
pub(super) struct Screen(());

impl Screen {
    /// Takes the terminal over.
    pub(super) fn enter() -> Result<Self, Failure> {
        enable_raw_mode()?;
        // From here on a failure gives it back.
        let screen = Self(());
        execute!(io::stdout(), EnterAlternateScreen, Hide, DisableLineWrap)?;
        Ok(screen)
    }

    /// Shows what `lines` makes of the terminal's width and height.
    pub(super) fn show(
        &mut self,
        lines: impl FnOnce(usize, usize) -> Vec<String>,
    ) -> Result<(), Failure> {
        let (width, height) = size()?;
        let mut out = io::stdout().lock();
        queue!(out, BeginSynchronizedUpdate)?;
        let lines = lines(width.into(), height.into());
        for (row, line) in (0..height).zip(lines.iter().map(String::as_str)) {
            queue!(out, MoveTo(0, row))?;
            write!(out, "{line}")?;
            queue!(out, Clear(ClearType::UntilNewLine))?;
        }
        let used = u16::try_from(lines.len()).unwrap_or(height);
        if used < height {
            queue!(out, MoveTo(0, used), Clear(ClearType::FromCursorDown))?;
        }
        queue!(out, EndSynchronizedUpdate)?;
        Ok(out.flush()?)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Each as far as it goes: the terminal itself may be gone.
        let _ = execute!(io::stdout(), EnableLineWrap, Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}
