//! `top`: the node, its streams, tickets and peers, live in the terminal.
//!
//! It looks at the API again and again, so a node that is away for a while, or
//! started again, is shown again as soon as it answers.

mod screen;
mod view;

use std::time::Duration;

use astral_proto::api::{Node, Stream, Ticket};
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use crate::args::Top;
use crate::client::Api;
use crate::commands::Session;
use crate::failure::Failure;
use crate::{home, signals, term};
use screen::Screen;

/// What the node says at one time.
struct Look {
    base: String,
    node: Node,
    nodes: Vec<Node>,
    streams: Vec<Stream>,
    /// The same as the API gave them.
    raw_streams: Vec<Value>,
    tickets: Vec<Ticket>,
}

/// Runs the command.
pub(crate) async fn run(mut session: Session, top: &Top) -> Result<(), Failure> {
    if !term::stdout_is_terminal() {
        let words = "`astral top` needs a terminal; `astral status`, and --json, do not";
        return Err(Failure::Usage(words.to_owned()));
    }
    let stop = signals::stop_token()?;
    // What is wrong from the start is said in the usual way.
    let mut look = look(&session.api).await?;
    let mut trouble = None;
    let mut screen = Screen::enter()?;
    let mut keys = EventStream::new();
    let mut ticks = interval(Duration::from_secs(top.interval));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        screen.show(|width, height| view::lines(&look, trouble.as_deref(), width, height))?;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            key = keys.next() => match key {
                Some(Ok(event)) if !is_end(&event) => {}
                Some(Ok(_)) | None => return Ok(()),
                Some(Err(error)) => return Err(error.into()),
            },
            _ = ticks.tick() => match again(&mut session).await {
                Ok(found) => (look, trouble) = (found, None),
                Err(failure) => trouble = Some(failure.to_string()),
            },
        }
    }
}

/// Looks again, also for the node itself: started anew, it may be elsewhere.
async fn again(session: &mut Session) -> Result<Look, Failure> {
    let found = look(&session.api).await;
    if found.is_err()
        && let Ok(target) = home::locate(&session.global.choice(), home::environment)
    {
        session.api = Api::new(target);
    }
    found
}

async fn look(api: &Api) -> Result<Look, Failure> {
    let (node, nodes, streams, tickets) = tokio::try_join!(
        api.get(&["node"]),
        api.list(&["nodes"]),
        api.list(&["streams"]),
        api.list(&["tickets"]),
    )?;
    Ok(Look {
        base: api.base(),
        node: node.0,
        nodes: nodes.0,
        streams: streams.0,
        raw_streams: streams.1.items,
        tickets: tickets.0,
    })
}

/// Whether somebody has seen enough. Ctrl-C is a key here, and no signal.
fn is_end(event: &Event) -> bool {
    let Event::Key(KeyEvent {
        code,
        modifiers,
        kind,
        ..
    }) = event
    else {
        return false;
    };
    let control = modifiers.contains(KeyModifiers::CONTROL);
    let plain = matches!(code, KeyCode::Char('q' | 'Q') | KeyCode::Esc);
    let with_control = matches!(code, KeyCode::Char('c' | 'd'));
    *kind == KeyEventKind::Press && (plain || (control && with_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_escape_and_ctrl_c_end_it_and_other_keys_do_not() {
        let key = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        assert!(is_end(&key(KeyCode::Char('q'), KeyModifiers::NONE)));
        assert!(is_end(&key(KeyCode::Esc, KeyModifiers::NONE)));
        assert!(is_end(&key(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!is_end(&key(KeyCode::Char('c'), KeyModifiers::NONE)));
        assert!(!is_end(&Event::Resize(80, 24)));
    }
}
